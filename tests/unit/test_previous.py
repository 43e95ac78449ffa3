"""prevResult as the drop-in plugins read it: whose addresses, which host link, what is no result, and the merged one.

Shapes are those of SPEC.md 1.1.0 ("prevResult") and of its older versions.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from asking import request

from cni.protocol.errors import INVALID_CONFIG, CniError
from cni.protocol.results import Previous, merged, parse_previous

INTERFACES = [
    {"name": "cni0", "mac": "00:11:22:33:44:55"},
    {"name": "veth3243", "mac": "55:44:33:22:11:11"},
    {"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": "/run/netns/c1"},
    {"name": "eth1", "mac": "99:88:77:66:55:45", "sandbox": "/run/netns/c1"},
]


def previous(result: Any, version: str = "1.1.0") -> Previous:
    return parse_previous(request({"prevResult": result}, version=version))


def addresses(result: Any) -> list[str]:
    return [str(item) for item in previous(result).addresses]


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        ({"interfaces": INTERFACES, "ips": [{"address": "10.1.0.5/16", "interface": 2}]}, ["10.1.0.5/16"]),
        ({"interfaces": INTERFACES, "ips": [{"address": "10.1.0.5/16", "interface": 3}]}, []),
        ({"interfaces": INTERFACES, "ips": [{"address": "10.1.0.5/16", "interface": 0}]}, []),
        ({"interfaces": INTERFACES, "ips": [{"address": "10.1.0.5/16"}]}, ["10.1.0.5/16"]),
        ({"ips": [{"version": "6", "address": "fd00::5/64"}]}, ["fd00::5/64"]),
        ({"Interfaces": INTERFACES, "IPs": [{"Address": "10.1.0.5/16", "Interface": 2}]}, ["10.1.0.5/16"]),
        ({"ip4": {"ip": "10.1.0.5/16"}, "ip6": {"ip": "fd00::5/64"}}, ["10.1.0.5/16", "fd00::5/64"]),
        ({"ips": None, "interfaces": None, "ip4": None}, []),
        ({}, []),
    ],
    ids=str,
)
def test_addresses_of_the_containers_interface(result: Any, wanted: list[str]) -> None:
    assert addresses(result) == wanted


@pytest.mark.parametrize(("count", "wanted"), [(4, "cni0"), (0, "")])
def test_the_first_host_interface_leads_to_the_container(count: int, wanted: str) -> None:
    assert previous({"interfaces": INTERFACES[:count]}).host_link == wanted


def test_an_interface_index_of_minus_one_is_no_interface() -> None:
    """Libraries of old wrote -1 for an address without one; libcni bears it."""
    assert addresses({"interfaces": INTERFACES, "ips": [{"address": "10.1.0.5/16", "interface": -1}]}) == [
        "10.1.0.5/16"
    ]


WRONG: list[tuple[Any, str, str]] = [
    ("text", "prevResult", '"text"'),
    ([], "prevResult", "[]"),
    ({"ips": {}}, "prevResult.ips", "{}"),
    ({"ips": [5]}, "prevResult.ips[0]", "5"),
    ({"ips": [{}]}, "prevResult.ips[0].address", "null"),
    ({"ips": [{"address": "10.1.0.5"}]}, "prevResult.ips[0].address", "10.1.0.5"),
    ({"ips": [{"address": "x/8"}]}, "prevResult.ips[0].address", "x/8"),
    ({"interfaces": INTERFACES, "ips": [{"address": "10.1.0.5/16", "interface": 4}]}, "prevResult.ips[0]", "4"),
    ({"interfaces": ["cni0"]}, "prevResult.interfaces[0]", '"cni0"'),
    ({"interfaces": [{"name": 5}]}, "prevResult.interfaces[0].name", "5"),
    *(
        ({"interfaces": [{"name": name}]}, "prevResult.interfaces[0].name", name[:4])
        for name in ("x" * 16, 'br"x', "br0 }", "a/b", "..", "br*")
    ),
]


@pytest.mark.parametrize(("result", "key", "value"), WRONG, ids=lambda item: str(item)[:60])
def test_what_is_no_result(result: Any, key: str, value: str) -> None:
    """Interface names become part of nft's text: what no link can be called must not get there."""
    with pytest.raises(CniError) as caught:
        previous(result)
    assert (
        caught.value.code == INVALID_CONFIG
        and caught.value.msg.startswith(key)
        and (value in caught.value.msg or json.dumps(value)[1:-1] in caught.value.msg)
    )


def test_without_one_a_chained_plugin_cannot_work() -> None:
    with pytest.raises(CniError) as caught:
        parse_previous(request({"prevResult": None}))
    assert caught.value.code == INVALID_CONFIG and "prevResult" in caught.value.msg


def test_our_result_behind_an_earlier_plugins() -> None:
    before = {
        "interfaces": INTERFACES[:3],
        "ips": [{"address": "10.1.0.5/16", "interface": 2}],
        "dns": {"domain": "a.example"},
        "x": 1,
    }
    own: dict[str, Any] = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "br0"}, {"name": "net1", "sandbox": "/run/netns/c1"}],
        "ips": [{"address": "10.2.0.5/16", "interface": 1}],
        "dns": {"domain": "b.example"},
    }
    assert merged(before, own) == {
        "cniVersion": "1.1.0",
        "interfaces": [*INTERFACES[:3], {"name": "br0"}, {"name": "net1", "sandbox": "/run/netns/c1"}],
        "ips": [{"address": "10.1.0.5/16", "interface": 2}, {"address": "10.2.0.5/16", "interface": 4}],
        "dns": {"domain": "a.example"},
        "x": 1,
    }
