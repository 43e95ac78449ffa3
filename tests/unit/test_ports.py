"""Published ports: `runtimeConfig.portMappings` in every spelling, the families they open, which ones collide.

The oracle for collisions is the kernel: bind(2) of real sockets in a scratch host refuses the same pairs.
What is refused goes by the issue's list; the reference portmap takes part of it silently.
"""

from __future__ import annotations

import errno
import json
import socket
from typing import Any

import pytest
from asking import parsed, refusal
from hypothesis import given
from hypothesis import strategies as st
from support.scratch import Host

from cni.model.ports import PortMapping, collide, for_families
from cni.protocol.errors import INVALID_CONFIG, CniError
from nft.addresses import parse_address

GOOD = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}


def mappings(*entries: Any) -> tuple[PortMapping, ...]:
    return parsed({"runtimeConfig": {"portMappings": list(entries)}}).mappings


def texts(found: tuple[PortMapping, ...]) -> list[str]:
    return [f"{item} {item.container_port}" for item in found]


@given(st.sampled_from(["tcp", "udp", "sctp"]), st.integers(1, 65535), st.integers(1, 65535))
def test_every_port_of_every_protocol(protocol: str, host: int, inside: int) -> None:
    (found,) = mappings({"hostPort": host, "containerPort": inside, "protocol": protocol})
    assert (found.protocol, found.host_ip, found.host_port, found.container_port) == (protocol, None, host, inside)


@pytest.mark.parametrize("fold", [str.upper, str.lower, str.capitalize], ids=lambda fold: fold.__name__)
def test_the_case_of_keys_does_not_matter(fold: Any) -> None:
    assert mappings({fold(key): value for key, value in GOOD.items()}) == mappings(GOOD)


def test_what_go_cni_sends() -> None:
    """containerd's go-cni has no JSON tags on its type PortMapping; nerdctl fills in the wildcard address."""
    (found,) = mappings({"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "0.0.0.0"})
    assert str(found) == "0.0.0.0:8080/tcp"


@pytest.mark.parametrize("host_ip", [None, ""])
def test_no_host_address_means_every_family(host_ip: str | None) -> None:
    assert texts(for_families(mappings({**GOOD, "hostIP": host_ip}), (4, 6))) == [
        "0.0.0.0:8080/tcp 80",
        "[::]:8080/tcp 80",
    ]
    assert texts(for_families(mappings({**GOOD, "hostIP": host_ip}), (6,))) == ["[::]:8080/tcp 80"]
    assert for_families(mappings(GOOD), ()) == ()


@pytest.mark.parametrize(
    ("host_ip", "text"),
    [
        ("0.0.0.0", "0.0.0.0:8080/tcp 80"),
        ("::", "[::]:8080/tcp 80"),
        ("127.0.0.1", "127.0.0.1:8080/tcp 80"),
        ("fd00:0:0::1", "[fd00::1]:8080/tcp 80"),
        ("::ffff:192.0.2.1", "192.0.2.1:8080/tcp 80"),
    ],
)
def test_a_host_address_opens_its_own_family_only(host_ip: str, text: str) -> None:
    found = mappings({**GOOD, "hostIP": host_ip})
    assert texts(for_families(found, (4, 6))) == [text]
    missing = 4 if "[" in text else 6
    for first in ("eth0", "net", "wlan00"):
        with pytest.raises(CniError) as caught:
            for_families(found, (missing,), first)
        assert caught.value.code == INVALID_CONFIG and text.split(" ")[0] in caught.value.msg
        assert f"IPv{10 - missing}" in caught.value.msg and first in caught.value.msg


@pytest.mark.parametrize("ifname", ["", "eth1", "eth10", "net-2"])
def test_further_networks_publish_what_they_can(ifname: str) -> None:
    """Runtimes ask each of them for all ports, nerdctl with 0.0.0.0 in every one; so does the reference portmap."""
    asked = mappings({**GOOD, "hostIP": "0.0.0.0"}, {**GOOD, "hostIP": "::"})
    assert texts(for_families(asked, (6,), ifname)) == ["[::]:8080/tcp 80"]


def test_a_run_of_ports_comes_as_one_entry_each() -> None:
    run = [{**GOOD, "hostPort": 7000 + number, "containerPort": 80 + number} for number in range(1000)]
    assert texts(mappings(*run)) == [f"*:{7000 + number}/tcp {80 + number}" for number in range(1000)]


def test_the_same_port_of_several_protocols() -> None:
    found = mappings(*({**GOOD, "protocol": name} for name in ("tcp", "udp", "sctp")))
    assert len(for_families(found, (4,))) == 3


def test_exact_duplicates_are_one() -> None:
    assert len(mappings(GOOD, GOOD, {**GOOD, "hostIP": None})) == 1
    assert len(for_families(mappings(GOOD, {**GOOD, "hostIP": "0.0.0.0"}), (4,))) == 1


ADDRESSES = ["0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1"]


def test_collisions_are_those_of_bind(host: Host) -> None:
    """Real sockets in a scratch host say it; IPv6 ones for IPv6 alone, as a published port of `::` is."""
    with host.entered():
        refused = {(one, other): _bind_refuses(one, other) for one in ADDRESSES for other in ADDRESSES}
    assert {(one, other): collide(parse_address(one), parse_address(other)) for one, other in refused} == refused


def _bind_refuses(one: str, other: str) -> bool:
    with _socket(one) as first, _socket(other) as second:
        first.bind((one, 0))
        first.listen(1)
        try:
            second.bind((other, first.getsockname()[1]))
        except OSError as error:
            assert error.errno == errno.EADDRINUSE, f"{other}: {error}"
            return True
        return False


def _socket(text: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_STREAM)
    if ":" in text:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


@pytest.mark.parametrize(
    "pair",
    [
        [GOOD, {**GOOD, "containerPort": 81}],
        [GOOD, {**GOOD, "hostIP": "127.0.0.1"}],
        [{**GOOD, "hostIP": "127.0.0.1"}, GOOD],
        [{**GOOD, "hostIP": "fd00::1"}, {**GOOD, "hostIP": "::"}],
        [{**GOOD, "hostIP": "127.0.0.1"}, {**GOOD, "hostIP": "127.0.0.1", "containerPort": 81}],
    ],
    ids=str,
)
def test_one_port_asked_for_twice(pair: list[Any]) -> None:
    with pytest.raises(CniError) as caught:
        for_families(mappings(*pair), (4, 6))
    assert caught.value.code == INVALID_CONFIG and ":8080/tcp" in caught.value.msg and "twice" in caught.value.msg


@pytest.mark.parametrize(
    "pair",
    [
        [{**GOOD, "hostIP": "127.0.0.1"}, {**GOOD, "hostIP": "127.0.0.2", "containerPort": 81}],
        [{**GOOD, "hostIP": "0.0.0.0"}, {**GOOD, "hostIP": "::", "containerPort": 81}],
        [GOOD, {**GOOD, "protocol": "udp", "containerPort": 81}],
        [GOOD, {**GOOD, "hostPort": 8081}],
    ],
    ids=str,
)
def test_these_do_not_collide(pair: list[Any]) -> None:
    assert for_families(mappings(*pair), (4, 6))


WRONG: list[tuple[str, dict[str, Any], str]] = [
    *(
        (key, {**GOOD, key: value}, json.dumps(value))
        for key in ("hostPort", "containerPort")
        for value in (0, -1, 65536, 1 << 70, "80", "", 80.0, True, [80], {})
    ),
    *((key, {**GOOD, key: None}, "null") for key in ("hostPort", "containerPort", "protocol")),
    *(("protocol", {**GOOD, "protocol": value}, json.dumps(value)) for value in ("TCP", "", "icmp", " tcp", "6", 6)),
    ("protocol", {**GOOD, "protocol": "ip saddr 6.6.6.6 tcp"}, "6.6.6.6"),
    *(
        ("hostIP", {**GOOD, "hostIP": value}, json.dumps(value))
        for value in ("nonsense", "192.0.2.256", "192.0.2.1/24", "192.0.2.1 ", "1", "fe80::1%eth0", "localhost", "*", 0)
    ),
    *(("hostIP", {**GOOD, "hostIP": value}, value) for value in ("::1", "0:0::1", "224.0.0.1", "ff02::1")),
]


@pytest.mark.parametrize(("key", "entry", "value"), WRONG, ids=lambda item: str(item)[:80])
def test_wrong_entries(key: str, entry: dict[str, Any], value: str) -> None:
    error = refusal({"runtimeConfig": {"portMappings": [{**GOOD, "hostPort": 1}, entry]}})
    assert error.code == INVALID_CONFIG and value in error.msg, error.msg
    assert error.msg.startswith(f"runtimeConfig.portMappings[1].{key}:")


def test_the_loopback_of_ipv6_is_refused_with_the_reason() -> None:
    assert "kernel" in refusal({"runtimeConfig": {"portMappings": [{**GOOD, "hostIP": "::1"}]}}).msg


@pytest.mark.parametrize("value", [{}, "8080:80", 8080, {"hostPort": 1}])
def test_a_list_that_is_none(value: Any) -> None:
    error = refusal({"runtimeConfig": {"portMappings": value}})
    assert error.code == INVALID_CONFIG and error.msg.startswith("runtimeConfig.portMappings: " + json.dumps(value)[:5])
