"""The small values everything is made of: addresses, JSON, names, records. The oracles are the standard library's."""

from __future__ import annotations

import ast
import importlib
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.model.attachment import KINDS, Attachment, Lease
from cni.model.names import COMMENT_LIMIT, derived_mac, host_link, identity
from cni.model.ports import PortMapping, collide
from cni.protocol import jsontext
from cni.protocol.spec import Dns, Route
from cni.state.record import from_document, to_document
from nft.addresses import Address, Prefix, link_local, parse_address, parse_mac, parse_prefix
from nft.value import Value

ROOT = Path(__file__).resolve().parents[2]
IPS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda item: item.ipv4_mapped is None))


@given(IPS)
def test_addresses_are_read_and_written_as_ipaddress_does(oracle: Any) -> None:
    ours = parse_address(oracle.exploded)
    assert (ours.version, ours.number, ours.packed) == (oracle.version, int(oracle), oracle.packed)
    assert ipaddress.ip_address(str(ours)) == oracle
    assert ours.is_loopback == oracle.is_loopback and ours.is_multicast == oracle.is_multicast


@given(IPS, st.integers(0, 128), IPS)
def test_prefixes_hold_what_ipaddress_says(oracle: Any, length: int, other: Any) -> None:
    length = min(length, oracle.max_prefixlen)
    net = ipaddress.ip_network((oracle, length), strict=False)
    prefix = parse_prefix(f"{oracle}/{length}")
    assert (prefix.first, prefix.last, prefix.size) == (
        int(net.network_address),
        int(net.broadcast_address),
        net.num_addresses,
    )
    assert str(prefix.network) == f"{parse_address(str(net.network_address))}/{length}"
    assert (parse_address(str(other)) in prefix) == (other.version == net.version and other in net)


@given(st.text(max_size=20))
def test_what_ipaddress_refuses_is_refused(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        with pytest.raises(ValueError, match="not an IP address"):
            parse_address(text)


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/ 8", "fd00::/129", "/8"]
)
def test_prefixes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_prefix(text)


def test_link_local_addresses_are_the_kernels() -> None:
    """The pair is from RFC 4291, appendix A, as `ip -6 addr` shows it."""
    assert str(link_local(parse_mac("52:ad:61:9f:c3:e2"))) == "fe80::50ad:61ff:fe9f:c3e2/64"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:11",
        "02:11:22:33:44:55:66",
        "02:11:22:33:44:zz",
        "0:1:2:3:4:5",
        "021122334455",
        "+2:11:22:33:44:55",
        "02:11:22:33:44: 5",
        "02:11:22:33:44:٠١",
    ],
)
def test_macs_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="six"):
        parse_mac(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_goes_out_and_comes_back(value: Any) -> None:
    assert json.loads(jsontext.dumps(value)) == value
    assert jsontext.loads(json.dumps(value, indent=1)) == value


@given(st.text(alphabet='[]{}:,"0123456789.eE+-truefalsn \\u', max_size=30))
def test_json_is_refused_where_the_standard_module_refuses(text: str) -> None:
    try:
        expected = json.loads(text)
    except (ValueError, RecursionError):
        with pytest.raises(ValueError):
            jsontext.loads(text)
    else:
        assert jsontext.loads(text) == expected


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "[" * 65 + "]" * 65])
def test_json_is_stricter_where_the_standard_module_is_lax(text: str) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(text)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", fullmatch=True)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", fullmatch=True)
IFNAMES = st.text(sorted({chr(code) for code in range(33, 127)} - set("/:%\"'\\`")), min_size=1, max_size=15)


@given(NAMES, IDS, IFNAMES)
def test_identities_fit_a_comment_and_links_fit_the_kernel(network: str, container: str, ifname: str) -> None:
    ident = identity(network, container, ifname)
    assert len(ident) <= COMMENT_LIMIT and ident.count("/") == 2 and '"' not in ident
    assert len(host_link(ident)) == 15
    mac = derived_mac("container", ident)
    assert mac[0] & 3 == 2 and len(mac) == 6


@given(st.sets(st.tuples(NAMES, IDS, IFNAMES), min_size=2, max_size=8))
def test_different_attachments_have_different_names(attachments: set[tuple[str, str, str]]) -> None:
    idents = {identity(*item) for item in attachments}
    assert len(idents) == len({host_link(ident) for ident in idents}) == len(attachments)


ADDRESSES = st.builds(Address, st.just(4), st.integers(1, 2**32 - 1))
PREFIXES = st.builds(Prefix, ADDRESSES, st.integers(8, 30))
RECORDS = st.builds(
    Attachment,
    network=NAMES,
    container=IDS,
    ifname=IFNAMES,
    sandbox=st.text(max_size=20),
    bridge=IFNAMES,
    mac=st.binary(min_size=6, max_size=6).map(lambda raw: bytes([raw[0] & 0xFC | 2]) + raw[1:]),
    mtu=st.integers(0, 65535),
    leases=st.lists(st.builds(Lease, PREFIXES, st.none() | ADDRESSES), max_size=3).map(tuple),
    routes=st.lists(st.builds(Route, PREFIXES, st.none() | ADDRESSES, st.just((("mtu", 1400),))), max_size=2).map(
        tuple
    ),
    dns=st.builds(Dns, st.lists(st.text(max_size=5), max_size=2).map(tuple), st.text(max_size=5)),
    mappings=st.lists(
        st.builds(
            PortMapping,
            st.sampled_from(["tcp", "udp", "sctp"]),
            ADDRESSES,
            st.integers(1, 65535),
            st.integers(1, 65535),
        ),
        max_size=3,
    ).map(tuple),
    isolation=st.booleans(),
    kind=st.sampled_from(list(KINDS.values())),
    done=st.booleans(),
)


@given(RECORDS)
def test_records_come_back_from_json(item: Attachment) -> None:
    assert from_document(jsontext.loads(jsontext.dumps(to_document(item)))) == item


@given(RECORDS, st.data())
def test_records_with_a_field_missing_or_altered_are_refused_or_whole(item: Attachment, data: Any) -> None:
    document = to_document(item)
    key = data.draw(st.sampled_from(sorted(document)))
    if data.draw(st.booleans()):
        del document[key]
    else:
        document[key] = data.draw(JSON)
    try:
        found = from_document(document)
    except ValueError:
        return
    assert from_document(to_document(found)) == found


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("0.0.0.0", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("192.0.2.1", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("::", "fd00::1", True),
        ("::", "0.0.0.0", False),
    ],
)
def test_two_addresses_collide_as_sockets_do(one: str, other: str, wanted: bool) -> None:
    assert (
        collide(parse_address(one), parse_address(other)) is collide(parse_address(other), parse_address(one)) is wanted
    )


class Point(Value):
    x: int
    y: int = 0


def test_values_compare_by_fields_and_cannot_change() -> None:
    assert Point(1) == Point(x=1, y=0) != Point(1, 1)
    assert hash(Point(1)) == hash(Point(1)) and repr(Point(1, 2)) == "Point(x=1, y=2)"
    assert Point(1).replace(y=5) == Point(1, 5)
    with pytest.raises(AttributeError, match="immutable"):
        Point(1).x = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="needs x"):
        Point()  # type: ignore[call-arg]


def test_a_misspelt_field_is_an_error_and_not_another_attribute() -> None:
    with pytest.raises(TypeError, match="no field z"):
        Point(1, z=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no field z"):
        Point(1).replace(z=3)
    with pytest.raises(TypeError, match="twice"):
        Point(1, x=3)  # type: ignore[misc]


def test_what_is_replaced_is_a_field() -> None:
    """`replace` cannot be typed by field (its keywords are any), so the calls in the sources are looked at: each
    keyword is a field of some value. A field of another value is refused when it runs."""
    fields: set[str] = set()
    asked: list[tuple[str, str]] = []
    for path in (path for folder in ("cni", "nft") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                fields.update(
                    part.target.id
                    for part in node.body
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
                )
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
                asked += [(keyword.arg, f"{path.name}:{node.lineno}") for keyword in node.keywords if keyword.arg]
    assert len(asked) > 20
    assert [(name, place) for name, place in asked if name not in fields] == []


def subclasses(kind: type[Value]) -> Iterator[type[Value]]:
    for found in kind.__subclasses__():
        yield found
        yield from subclasses(found)


def test_fields_with_defaults_come_last() -> None:
    """Values that are given in order are taken without a look at their names."""
    for folder in ("cni", "nft"):
        for path in sorted(ROOT.joinpath(folder).rglob("*.py")):
            if path.name != "__init__.py":
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for kind in subclasses(Value):
        has_default = [hasattr(kind, name) for name in kind._fields]
        assert has_default == sorted(has_default), kind
