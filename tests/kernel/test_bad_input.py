"""What bad input gets: a CNI error with the right code that names key and value, and a host on which nothing changed.

`Host.refused` checks that nothing is left, that stdout holds one proper error and that nobody sees a traceback.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.scratch import Host, network, port

UNSUPPORTED, ENVIRONMENT, UNDECODABLE, INVALID, NETNS = 2, 4, 6, 7, 8


@pytest.fixture
def ready(host: Host) -> Host:
    host.container("c1")
    return host


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "nonsense", "[]", "null", '"text"', "42", '{"name": "a"} x', '{"a": NaN}', "\x00", "[" * 100000],
    ids=lambda text: repr(text[:12]),
)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_stdin_that_is_no_object(ready: Host, verb: str, text: str) -> None:
    assert ready.refused(verb, text).code == UNDECODABLE


def test_stdin_that_is_not_utf8(ready: Host) -> None:
    done = ready.popen(
        "sh", "-c", 'printf \'{"name":"\\377"}\' | conf/nftcni', env={"CNI_COMMAND": "STATUS"}, stdout=-1
    )
    out, _ = done.communicate(timeout=10)
    assert json.loads(out)["code"] == UNDECODABLE


@pytest.mark.parametrize("name", ["", "../etc", "a/b", ".hidden", "a b", 'a"b', "a\nb", "x" * 300, "ä", 5, None])
@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC", "STATUS"])
def test_network_names(ready: Host, verb: str, name: Any) -> None:
    answer = ready.refused(verb, {**network(), "name": name, "cni.dev/valid-attachments": []})
    assert answer.code == INVALID and "name" in answer.words


@pytest.mark.parametrize("container", ["../x", "a/b", "-x", "a b", 'a"', "a\nb", "ü"])
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_container_ids(ready: Host, verb: str, container: str) -> None:
    answer = ready.refused(verb, network(), container, netns="/run/netns/c1")
    assert answer.code == ENVIRONMENT and "CNI_CONTAINERID" in answer.words


@pytest.mark.parametrize("ifname", ["x" * 16, ".", "..", "a/b", "a:b", "a b", "a\tb", "eth%d", 'a"b', "ü"])
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_interface_names(ready: Host, verb: str, ifname: str) -> None:
    answer = ready.refused(verb, network(), ifname=ifname)
    assert answer.code == ENVIRONMENT and "CNI_IFNAME" in answer.words


def test_an_unknown_verb(ready: Host) -> None:
    answer = ready.refused("add", network())
    assert answer.code == ENVIRONMENT and "add" in answer.words


# key, value, what the message must hold besides the key
WRONG: list[tuple[str, Any, str]] = [
    ("bridge", 5, "5"),
    ("bridge", "x" * 16, "15"),
    ("bridge", "a/b", "a/b"),
    ("bridge", "../x", "../x"),
    ("isGateway", "yes", "yes"),
    ("isGateway", 1, "1"),
    ("ipMasq", "true", "true"),
    ("isolation", [], "[]"),
    ("mtu", "1500", "1500"),
    ("mtu", -1, "-1"),
    ("mtu", 67, "67"),
    ("mtu", 1.5, "1.5"),
    ("mtu", 65536, "65536"),
    ("mtu", True, "true"),
    ("ingressPolicy", "closed", "closed"),
    ("ipam", [], "[]"),
    ("ipam", "host-local", "host-local"),
    ("dns", "192.0.2.1", "192.0.2.1"),
    ("dns", {"nameservers": "192.0.2.1"}, "nameservers"),
    ("runtimeConfig", "x", "x"),
    ("runtimeConfig", {"portMappings": {}}, "portMappings"),
    ("runtimeConfig", {"portMappings": ["8080:80"]}, "8080:80"),
    ("runtimeConfig", {"ips": "10.88.0.9"}, "ips"),
    ("runtimeConfig", {"ips": [5]}, "5"),
    ("runtimeConfig", {"mac": "nonsense"}, "nonsense"),
    ("runtimeConfig", {"mac": "01:00:5e:00:00:01"}, "01:00:5e:00:00:01"),
    ("runtimeConfig", {"mac": "00:00:00:00:00:00"}, "00:00:00:00:00:00"),
    ("args", {"cni": {"ips": ["nonsense"]}}, "nonsense"),
    ("args", "x", "x"),
    ("dataDir", "relative/path", "relative/path"),
    ("disableContainerInterface", True, "ipam"),
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_values_of_the_wrong_kind(ready: Host, key: str, value: Any, words: str) -> None:
    answer = ready.refused("ADD", network(**{key: value}))
    assert answer.code == INVALID and key in answer.words and words in answer.words, answer.words


PORTS: list[tuple[dict[str, Any], str]] = [
    (port(0, 80), "0"),
    (port(65536, 80), "65536"),
    (port(8080, 0), "0"),
    (port(8080, 65536), "65536"),
    (port(-1, 80), "-1"),
    ({**port(1, 1), "HostPort": "80"}, '"80"'),
    ({**port(1, 1), "HostPort": 80.5}, "80.5"),
    ({"hostPort": 80, "protocol": "tcp"}, "containerPort"),
    ({"containerPort": 80, "protocol": "tcp"}, "hostPort"),
    (port(80, 80, "TCP"), "TCP"),
    (port(80, 80, ""), "protocol"),
    (port(80, 80, "icmp"), "icmp"),
    (port(80, 80, "ip saddr 6.6.6.6 tcp"), "6.6.6.6"),
    (port(80, 80, ip="nonsense"), "nonsense"),
    (port(80, 80, ip="10.0.0.256"), "10.0.0.256"),
    (port(80, 80, ip="10.0.0.1/24"), "10.0.0.1/24"),
    (port(80, 80, ip="::1"), "::1"),
    (port(80, 80, ip="fd00::1"), "IPv6"),
    (port(80, 80, ip="::"), "IPv6"),
    (port(80, 80, ip="224.0.0.1"), "224.0.0.1"),
]


@pytest.mark.parametrize(("mapping", "words"), PORTS, ids=lambda value: str(value)[:60])
def test_port_mappings(ready: Host, mapping: dict[str, Any], words: str) -> None:
    answer = ready.refused("ADD", network(ports=[port(8000, 80), mapping]))
    assert answer.code == INVALID and "portMappings" in answer.words and words in answer.words, answer.words


def test_loopback_of_ipv6_says_that_the_kernel_cannot(ready: Host) -> None:
    assert "kernel" in ready.refused("ADD", network("net0", "fd00::/64", ports=[port(80, 80, ip="::1")])).words


@pytest.mark.parametrize(
    "mappings",
    [
        [port(80, 80), port(80, 81)],
        [port(80, 80), port(80, 80, ip="127.0.0.1")],
        [port(80, 80, ip="127.0.0.1"), port(80, 81, ip="127.0.0.1")],
    ],
)
def test_one_host_port_asked_for_twice(ready: Host, mappings: list[Any]) -> None:
    answer = ready.refused("ADD", network(ports=mappings))
    assert answer.code == INVALID and ":80/tcp" in answer.words


RANGES: list[tuple[Any, str]] = [
    ("text", "ranges"),
    ([{"subnet": "10.88.0.0/24"}], "ranges[0]"),
    ([[]], "ranges[0]"),
    ([[5]], "5"),
    ([[{}]], "subnet"),
    ([[{"subnet": "10.88.0.1/24"}]], "10.88.0.0/24"),
    ([[{"subnet": "fd00::1/64"}]], "fd00::/64"),
    ([[{"subnet": "10.88.0.0/31"}]], "too small"),
    ([[{"subnet": "fd00::/127"}]], "too small"),
    ([[{"subnet": "10.88.0.0"}]], "10.88.0.0"),
    ([[{"subnet": "10.88.0.0/33"}]], "10.88.0.0/33"),
    ([[{"subnet": "nonsense"}]], "nonsense"),
    ([[{"subnet": "127.0.0.0/8"}]], "127.0.0.0/8"),
    ([[{"subnet": "224.0.0.0/24"}]], "224.0.0.0/24"),
    ([[{"subnet": "10.88.0.0/24", "gateway": "10.89.0.1"}]], "10.89.0.1"),
    ([[{"subnet": "10.88.0.0/24", "gateway": "10.88.0.255"}]], "10.88.0.255"),
    ([[{"subnet": "10.88.0.0/24", "rangeStart": "10.87.0.9"}]], "10.87.0.9"),
    ([[{"subnet": "10.88.0.0/24", "rangeEnd": "10.89.0.9"}]], "10.89.0.9"),
    ([[{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.9", "rangeEnd": "10.88.0.5"}]], "rangeEnd"),
    ([[{"subnet": "10.88.0.0/24"}], [{"subnet": "10.88.0.0/25"}]], "overlap"),
    ([[{"subnet": "10.88.0.0/24"}, {"subnet": "10.88.0.0/25"}]], "overlap"),
    ([[{"subnet": "10.88.0.0/24"}, {"subnet": "fd00::/64"}]], "mixes"),
]


@pytest.mark.parametrize(("ranges", "words"), RANGES, ids=lambda value: str(value)[:70])
@pytest.mark.parametrize("where", ["ipam.ranges", "ipRanges"])
def test_ranges(ready: Host, ranges: Any, words: str, where: str) -> None:
    config = network(ipam={"ranges": ranges})
    if where == "ipRanges":
        config.update(ipam={"type": "host-local"}, runtimeConfig={"ipRanges": ranges})
        words = "ipRanges" if words.startswith("ranges") else words
    answer = ready.refused("ADD", config)
    assert answer.code == INVALID and words in answer.words, answer.words


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({}, "dst"),
        ({"dst": "nonsense"}, "nonsense"),
        ({"dst": "0.0.0.0/0", "gw": "x"}, "gw"),
        ({"dst": "::/0", "gw": "10.88.0.1"}, "10.88.0.1"),
        ({"dst": "0.0.0.0/0", "mtu": -1}, "mtu"),
    ],
)
def test_routes(ready: Host, route: dict[str, Any], words: str) -> None:
    answer = ready.refused("ADD", network(ipam={"ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [route]}))
    assert answer.code == INVALID and "routes[0]" in answer.words and words in answer.words


@pytest.mark.parametrize(
    ("address", "code"),
    [("10.99.0.1", INVALID), ("fd00::5", INVALID), ("10.88.0.255", INVALID), ("10.88.0.1", 102), ("10.88.0.7", 102)],
    ids=["outside", "other-family", "broadcast", "gateway", "taken"],
)
@pytest.mark.parametrize("way", ["runtimeConfig", "args", "CNI_ARGS"])
def test_requested_addresses(ready: Host, address: str, code: int, way: str) -> None:
    ready.add(network(runtimeConfig={"ips": ["10.88.0.7"]}), "holder")
    keys: dict[str, Any] = {"runtimeConfig": {"ips": [address]}, "args": {"cni": {"ips": [address + "/24"]}}}
    options: dict[str, Any] = {"args": f"IP={address}"} if way == "CNI_ARGS" else {}
    answer = ready.refused("ADD", network(**({way: keys[way]} if way in keys else {})), **options)
    assert answer.code == code and address in answer.words
    if address == "10.88.0.7":
        assert "net0/holder/eth0" in answer.words


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("promisc", True),
        ("backend", "firewalld"),
        ("sysctl", {"net.ipv4.ip_forward": "1"}),
    ],
)
def test_keys_of_the_reference_plugins_that_are_not_done(ready: Host, key: str, value: Any) -> None:
    answer = ready.refused("ADD", network(**{key: value}))
    assert (
        answer.code == UNSUPPORTED and key in answer.words and json.dumps(value, separators=(",", ":")) in answer.words
    )


@pytest.mark.parametrize("netns", ["/run/netns/missing", "/etc/passwd", "/run", "/proc/self/ns/mnt", "relative"])
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_namespaces(ready: Host, verb: str, netns: str) -> None:
    config = network(prevResult={"cniVersion": "1.1.0", "ips": []}) if verb == "CHECK" else network()
    answer = ready.refused(verb, config, netns=netns)
    assert answer.code == NETNS and netns in answer.words
