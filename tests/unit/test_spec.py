"""Documents of the specification: results in each version's shape, errors, versions, and the rules for names.

The expected documents are written out by hand after SPEC.md 1.1.0 of containernetworking/cni and, for the older shapes,
its pkg/types/020, 040 and 100: nothing here is computed from what the code answers.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.protocol.errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, CniError
from cni.protocol.name_rules import is_name
from cni.protocol.spec import (
    Dns,
    Interface,
    Result,
    ResultAddress,
    Route,
    check_version,
    error_document,
    result_document,
)
from cni.protocol.versions import version_document
from nft.addresses import parse_address, parse_prefix

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
FOUR, SIX, MORE = (parse_prefix(text) for text in ("10.1.0.5/16", "fd00::5/64", "10.2.0.5/16"))
FULL = Result(
    interfaces=(
        Interface("cni0", "00:11:22:33:44:55", 1400),
        Interface("veth3243", "55:44:33:22:11:11", 1400),
        Interface("eth0", "99:88:77:66:55:44", 1400, "/run/netns/blue"),
    ),
    ips=(
        ResultAddress(FOUR, parse_address("10.1.0.1"), 2),
        ResultAddress(SIX, parse_address("fd00::1"), 2),
        ResultAddress(MORE, None, 2),
    ),
    routes=(
        Route(parse_prefix("0.0.0.0/0")),
        Route(parse_prefix("::/0"), parse_address("fd00::9")),
        Route(parse_prefix("192.0.2.0/24"), parse_address("10.1.0.9"), (("mtu", 1300), ("priority", 7))),
    ),
    dns=Dns(("10.1.0.1",), "example.com", ("a.example",), ("ndots:2",)),
)
DNS = {"nameservers": ["10.1.0.1"], "domain": "example.com", "search": ["a.example"], "options": ["ndots:2"]}
INTERFACES = [
    {"name": "cni0", "mac": "00:11:22:33:44:55"},
    {"name": "veth3243", "mac": "55:44:33:22:11:11"},
    {"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": "/run/netns/blue"},
]
IPS = [
    {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2},
    {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 2},
    {"address": "10.2.0.5/16", "interface": 2},
]
ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "::/0", "gw": "fd00::9"},
    {"dst": "192.0.2.0/24", "gw": "10.1.0.9"},
]
SHAPES: dict[str, dict[str, Any]] = {
    "1.1.0": {
        "interfaces": [{**item, "mtu": 1400} for item in INTERFACES],
        "ips": IPS,
        "routes": [*ROUTES[:2], {**ROUTES[2], "mtu": 1300, "priority": 7}],
        "dns": DNS,
    },
    "1.0.0": {"interfaces": INTERFACES, "ips": IPS, "routes": ROUTES, "dns": DNS},
    "0.2.0": {
        "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [ROUTES[0], ROUTES[2]]},
        "ip6": {"ip": "fd00::5/64", "gateway": "fd00::1", "routes": [ROUTES[1]]},
        "dns": DNS,
    },
}
NUMBERED = [{**item, "version": version} for item, version in zip(IPS, "464")]
SHAPES["0.4.0"] = SHAPES["0.3.1"] = SHAPES["0.3.0"] = {**SHAPES["1.0.0"], "ips": NUMBERED}
SHAPES["0.1.0"] = SHAPES["0.2.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_full_result(version: str) -> None:
    assert result_document(FULL, version) == {"cniVersion": version, **SHAPES[version]}


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        *((version, {"ip4": {"ip": "10.1.0.5/16"}, "dns": {}}) for version in VERSIONS[:2]),
        *((version, {"ips": [{"version": "4", "address": "10.1.0.5/16"}], "dns": {}}) for version in VERSIONS[2:5]),
        *((version, {"ips": [{"address": "10.1.0.5/16"}]}) for version in VERSIONS[5:]),
    ],
)
def test_the_least_result(version: str, wanted: dict[str, Any]) -> None:
    """One address and nothing else, as an IPAM plugin answers; `dns` is always there before 1.0.0."""
    least = Result((), (ResultAddress(FOUR),), (), Dns())
    assert result_document(least, version) == {"cniVersion": version, **wanted}


@pytest.mark.parametrize("version", VERSIONS[:2])
def test_a_route_of_a_family_without_address_is_dropped_in_the_oldest(version: str) -> None:
    found = result_document(FULL.replace(ips=FULL.ips[:1]), version)
    assert "ip6" not in found and found["ip4"]["routes"] == [ROUTES[0], ROUTES[2]]


@pytest.mark.parametrize("version", VERSIONS[:2])
def test_no_address_cannot_be_said_in_the_oldest(version: str) -> None:
    with pytest.raises(CniError) as caught:
        result_document(FULL.replace(ips=()), version)
    assert caught.value.code == INVALID_CONFIG and version in caught.value.msg


@pytest.mark.parametrize("version", VERSIONS[2:])
def test_no_address_is_left_out_later(version: str) -> None:
    """As libcni's own types have it (pkg/types/100)."""
    assert "ips" not in result_document(FULL.replace(ips=(), routes=()), version)


def test_errors() -> None:
    """SPEC.md, "Error": cniVersion, code, msg, and details where there are any."""
    short = error_document(CniError(7, "Invalid Configuration"), "1.1.0")
    assert short == {"cniVersion": "1.1.0", "code": 7, "msg": "Invalid Configuration"}
    long = error_document(CniError(101, "a", "Network 192.168.0.0/31 too small to allocate from."), "0.4.0")
    assert long == {
        **{"cniVersion": "0.4.0", "code": 101, "msg": "a"},
        "details": "Network 192.168.0.0/31 too small to allocate from.",
    }


def test_versions() -> None:
    assert version_document("0.4.0") == {"cniVersion": "0.4.0", "supportedVersions": VERSIONS}


FIRST = {"ADD": "0.1.0", "DEL": "0.1.0", "CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


@pytest.mark.parametrize("verb", FIRST)
@pytest.mark.parametrize("version", VERSIONS)
def test_verbs_came_with_versions(verb: str, version: str) -> None:
    if VERSIONS.index(version) >= VERSIONS.index(FIRST[verb]):
        check_version(version, verb)
        return
    with pytest.raises(CniError) as caught:
        check_version(version, verb)
    assert caught.value.code == INCOMPATIBLE_VERSION and version in caught.value.msg and verb in caught.value.msg


@pytest.mark.parametrize("version", ["", "1.0", "1", "v1.0.0", "1.0.0 ", "01.0.0", "0.5.0", "1.2.0", "9.9.9", "x" * 99])
def test_versions_are_compared_as_texts(version: str) -> None:
    """libcni looks for the exact text in the list of what the plugin says it supports."""
    with pytest.raises(CniError) as caught:
        check_version(version, "ADD")
    assert caught.value.code == INCOMPATIBLE_VERSION and version[:20] in caught.value.msg
    assert all(item in caught.value.details for item in VERSIONS), caught.value.details


@given(st.text(max_size=6) | st.from_regex(r"[a-zA-Z0-9_.\-/~\n]{0,12}", fullmatch=True))
def test_names_go_by_libcnis_expression(text: str) -> None:
    """pkg/utils/utils.go of libcni; Go's `$` is the end of the text, unlike Python's."""
    assert is_name(text) is bool(re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", text))
