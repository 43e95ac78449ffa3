"""An attachment's elements, as bytes and as text: the kernel and nft say whether both mean the same and what we meant.

Tables are loaded in a scratch host by nft from text and by our netlink messages, then listed with `nft -j`. What is
expected is written from the attachment's own fields. Traffic through them is in tests/kernel.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.scratch import Host

from cni.model.attachment import CHAINED, Attachment, Lease
from cni.model.names import bridge_mac, host_link
from cni.model.ports import PortMapping
from cni.model.projection import attachment_elements, bridge_elements, cross_elements, projection
from cni.model.reading import read_attachment
from cni.model.wire import Wire
from cni.protocol.name_rules import check_ifname
from nft.addresses import Prefix, parse_address, parse_prefix
from nft.elements import Element, element_text, elements_text
from nft.fastpath import FAST_CHAIN
from nft.ruleset import TYPEOF, is_whole, replacing_text, table_text
from nft.schema import FAST_PATH, LAYER2, SETS
from nft.table import Table

LONG = "default-" + "0123456789abcdef" * 12  # 200 characters, as long as container IDs may be


def attachment(number: int = 2, container: str = "c1", **keys: Any) -> Attachment:
    """A dual stack container that publishes on every kind of host address."""
    leases = tuple(Lease(parse_prefix(text)) for text in (f"10.88.0.{number}/24", f"fd00:88::{number:x}/64"))
    ports = (
        ("tcp", "0.0.0.0", 8000 + number, 80),
        ("udp", "127.0.0.1", 8000 + number, 53),
        ("sctp", "::", 8000 + number, 65535),
        ("tcp", "fd00::1", 8000 + number, 1),
    )
    defaults: dict[str, Any] = {
        "network": "net0",
        "container": container,
        "ifname": "eth0",
        "sandbox": "",
        "bridge": "br-net0",
        "mac": bytes(6),
        "leases": leases,
        "mappings": tuple(PortMapping(name, parse_address(ip), port, to) for name, ip, port, to in ports),
    }
    return Attachment(**{**defaults, **keys})


def expected(item: Attachment) -> set[tuple[Any, ...]]:
    """(set, key, data, comment) from the fields: the sets as reference documentation of the table has them."""
    comment = f"{item.network}/{item.container}/{item.ifname}"
    found: set[tuple[Any, ...]] = set()
    targets = {lease.address.version: str(lease.address.address) for lease in reversed(item.leases)}
    for lease in item.leases:
        text, version = str(lease.address.address), lease.address.version
        found.add((f"containers{version}", (item.bridge, text), (), comment))
        if item.ip_masq:
            found.add((f"masq{version}", (text,), (), comment))
    for mapping in item.mappings:
        assert mapping.host_ip is not None
        text, version = str(mapping.host_ip), mapping.host_ip.version
        host: tuple[str, ...] = () if text in ("0.0.0.0", "::") else (text,)
        data = (targets[version], mapping.container_port)
        found.add((f"self{version}", (targets[version], targets[version]), (), comment))
        name = f"dnat{version}" + ("_ip" if host else "")
        found.add((name, (*host, mapping.protocol, mapping.host_port), data, comment))
    return found


def listed(host: Host) -> set[tuple[Any, ...]]:
    """The same from `nft -j`, the attachments' 16 byte markers left out."""
    found = set()
    for name, entries in host.elements().items():
        for entry in entries if name != "attachments" else []:
            key, data = entry if isinstance(entry, list) else (entry, None)
            comment = key["elem"].get("comment", "") if isinstance(key, dict) and "elem" in key else ""
            key = key["elem"]["val"] if comment else key
            found.add((name, _fields(key), _fields(data), comment))
    return found


def _fields(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value["concat"]) if isinstance(value, dict) else (value,)


def shared(bridge: str, isolation: bool = True) -> set[tuple[Any, ...]]:
    """Of an adopted bridge, network mode nat."""
    found: set[tuple[Any, ...]] = {("same_net", (bridge, bridge), (), "")}
    found |= {("closed", (family, bridge), (), "") for family in ("ipv4", "ipv6")}
    return found | ({("isolated", (bridge,), (), "")} if isolation else set())


@pytest.mark.parametrize("isolation", [True, False])
@pytest.mark.parametrize("way", ["text", "netlink"])
def test_what_nft_lists_is_what_was_meant(host: Host, way: str, isolation: bool) -> None:
    items = [attachment(2), attachment(3, "c2", ip_masq=False), attachment(4, "c3", mappings=())]
    own = [element for item in items for element in attachment_elements(item)]
    common = bridge_elements(attachment(isolation=isolation))
    if way == "text":
        host.nft(table_text("boot") + elements_text(own + common))
    else:
        host.nft(table_text("boot"))
        with host.entered():
            Table().add(own, common)
    assert listed(host) == set().union(*map(expected, items)) | shared("br-net0", isolation)
    markers = [entry["elem"] for entry in host.elements()["attachments"]]
    assert {marker["comment"] for marker in markers} == {f"net0/{name}/eth0" for name in ("c1", "c2", "c3")}
    assert len({marker["val"] for marker in markers}) == 3


def test_the_kernel_gives_back_what_nft_was_told(host: Host) -> None:
    """Text through nft's parser into the kernel, out through our own reader: the very same values."""
    own = attachment_elements(attachment()) + bridge_elements(attachment())
    host.nft(table_text("boot") + elements_text(own))
    with host.entered():
        table = Table()
        assert sorted(table.elements(), key=repr) == sorted(own, key=repr)
        assert [table.get(element) for element in own] == own
        assert table.comment() == "boot" == _comment(host)


def _comment(host: Host) -> str:
    return host.run("nft", "list", "table", "inet", "nftcni").split('comment "')[1].split('"')[0]


NUMBER = st.integers(1, 65535)
HOSTS = st.sampled_from(["0.0.0.0", "::", "127.0.0.1", "198.51.100.7", "fd00::7", "2001:db8::"])
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", fullmatch=True)
LINKS = st.text("abcXYZ019_.-~+@#$!?=,;&()[]{}<>|^", min_size=1, max_size=15).filter(
    lambda text: text not in (".", "..")
)
PORTS = st.tuples(st.sampled_from(["tcp", "udp", "sctp"]), HOSTS, NUMBER, NUMBER)
KEYS = st.tuples(NAMES, NAMES, LINKS, st.lists(PORTS, max_size=3), st.booleans())


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(KEYS, min_size=1, max_size=20, unique_by=lambda item: item[1]))
def test_whatever_is_attached_nft_reads_the_text_as_meant(host: Host, drawn: list[Any]) -> None:
    """Odd bridge names, too. Each example replaces the whole table, as `repair` does."""
    taken: set[tuple[str, int, str]] = set()
    items = []
    for number, (network, container, bridge, ports, masq) in enumerate(drawn, 1):
        free = [entry for entry in ports if (entry[0], entry[2], entry[1]) not in taken]
        free = list({(entry[0], entry[1], entry[2]): entry for entry in free}.values())
        taken |= {(entry[0], entry[2], entry[1]) for entry in free}
        made = tuple(PortMapping(name, parse_address(ip), port, to) for name, ip, port, to in free)
        keys = {"network": network, "bridge": bridge, "mappings": made, "ip_masq": masq}
        items.append(attachment(number, container, **keys))
    elements = [element for item in items for element in attachment_elements(item)]
    host.nft(replacing_text("boot", elements_text(elements)))
    assert listed(host) == set().union(*map(expected, items))


@pytest.mark.parametrize("name", ["ab*", "*", "a*b", "x[1]", "a?", "$x", "{x}", "#x", "@x", "!x", "a;b"])
def test_bridge_names_that_nft_may_take_for_something_else(host: Host, name: str) -> None:
    """Either such a name is refused in the configuration, or it means in text what it means to the kernel."""
    try:
        check_ifname(name)
    except ValueError:
        return
    elements = attachment_elements(attachment(bridge=name)) + bridge_elements(attachment(bridge=name))
    host.nft(table_text("boot") + elements_text(elements))
    assert listed(host) == expected(attachment(bridge=name)) | shared(name, True)


def test_the_longest_names_fit_a_comment(host: Host) -> None:
    """nft takes 128 characters; whose element it is stays told apart."""
    items = [attachment(2, LONG, network="n" * 80, ifname="e" * 15), attachment(3, LONG[:-1] + "x", network="n" * 80)]
    elements = [element for item in items for element in attachment_elements(item)]
    host.nft(table_text("boot") + elements_text(elements))
    with host.entered():
        comments = {element.comment for element in Table().elements()}
    assert comments == {item.ident for item in items} and len(comments) == 2
    assert all(len(comment) <= 128 for comment in comments)


def test_sets_have_the_types_that_the_elements_are_packed_for(host: Host) -> None:
    host.nft(table_text("boot"))
    found = {}
    for item in json.loads(host.run("nft", "-j", "list", "table", "inet", "nftcni"))["nftables"]:
        for kind in ("set", "map"):
            if kind in item:
                entry = item[kind]
                found[entry["name"]] = (_types(entry["type"]), _types(entry.get("map", [])))
    # nft 1.0.6 prints a concatenated data type as one text or not in full; keys are compared everywhere.
    inet = {name: entry for name, entry in SETS.items() if name not in LAYER2 and name not in TYPEOF}
    assert {name: key for name, (key, _data) in found.items() if name not in TYPEOF} == {
        name: key for name, (key, _data) in inet.items()
    }
    assert {name for name, (_key, data) in found.items() if data} == {
        name for name, (_key, data) in SETS.items() if data
    }


def _types(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


OURS = {"bridges", "bridge_macs", "routed", "masquerading"}
MODES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nat": ({}, {"closed", "isolated", *OURS}),
    "nat-unprotected": ({"mode4": "nat-unprotected", "isolation": False}, OURS),
    "routed": ({"mode4": "routed"}, {"closed", "isolated", *OURS} - {"masquerading"}),
    "isolated": ({"mode4": "isolated"}, {"isolated", "bridges", "bridge_macs"}),
    "open": ({"mode4": "open", "isolation": False}, OURS),
    "open-without-masquerade": ({"mode4": "open", "isolation": False, "ip_masq": False}, OURS - {"masquerading"}),
    "no-gateway": (
        {"is_gateway": False},
        {"closed", "isolated", "bridges", "bridge_macs"},
    ),
    "fast-path": ({"fast_path": True}, {"fast_links", "closed", "isolated", *OURS}),
    "ports-apart": ({"port_isolation": True}, {"apart", "closed", "isolated", *OURS}),
}


@pytest.mark.parametrize(("keys", "names"), MODES.values(), ids=MODES)
def test_what_a_bridge_of_ours_gets_of_a_mode(keys: dict[str, Any], names: set[str]) -> None:
    leases = (Lease(parse_prefix("10.88.0.2/24")),)
    found = bridge_elements(attachment(made=True, mode6="open", leases=leases, mappings=(), **keys))
    six = {"routed", "masquerading"}
    of_four = {element.set for element in found if element.set not in ("closed", *six) or element.key[0] == 2}
    assert of_four == names | {"same_net"}


def test_the_fast_path_is_its_container_s_alone() -> None:
    """The addresses that the host routes for, each on the container's bridge. An uplink's container has none: the
    host is not its router."""

    def fast(**keys: Any) -> set[tuple[str, bytes]]:
        items = [attachment(2, fast_path=True, **keys), attachment(3, "c2", **keys)]
        return {key for key in projection(items) if key[0].startswith("fast")}

    name = b"br-net0".ljust(16, b"\0")
    v4, v6 = (name + parse_address(text).packed for text in ("10.88.0.2", "fd00:88::2"))
    assert fast() == {("fast4", v4), ("fast6", v6), ("fast_links", name)}
    assert fast(made=True, mode6="isolated") == {("fast4", v4), ("fast_links", name)}
    assert fast(uplink=True) == set()


def test_a_lost_record_was_on_the_fast_path() -> None:
    for asked in (True, False):
        item = attachment(fast_path=asked)
        found = read_attachment(item.ident, attachment_elements(item))
        assert found is not None and found.fast_path is asked


def test_the_rules_are_whole_with_the_fast_path_and_without(host: Host) -> None:
    host.nft(table_text("boot"))
    with host.entered():
        rules = Table().rules()
    fast = [(FAST_PATH, b"")] * len(FAST_CHAIN.strip().splitlines()[1:-1])  # one of them is the hook
    assert is_whole(rules) and is_whole(rules + fast[:-1]) and not is_whole(rules + fast)
    assert not is_whole(rules[1:] + fast[:-1])


def test_prefixes_of_two_networks_on_one_bridge_are_merged(host: Host) -> None:
    """The kernel refuses intervals that overlap."""
    items = [attachment(2, direct=("10.0.0.0/8",)), attachment(3, "c2", direct=("10.1.0.0/16", "fd00::/8"))]
    elements = [*projection(items).values()]
    host.nft(replacing_text("boot", elements_text(elements)))
    with host.entered():
        held = [element for element in Table().elements() if element.set.startswith("direct")]
        assert [Table().get(element) for element in held] == held
    assert sorted(element_text(element) for element in held) == [
        '"br-net0" . 10.0.0.0-10.255.255.255',
        '"br-net0" . fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
    ]


def test_a_container_on_two_networks_is_known_on_both(host: Host) -> None:
    one, other = attachment(2, mappings=()), attachment(3, bridge="br-net1", network="net1", mappings=())
    stranger = attachment(4, "c2", bridge="br-net1", network="net1", mappings=())
    found = {key for key in projection([one, other, stranger]) if key[0].startswith("cross")}
    assert found == {(element.set, element.key) for element in cross_elements(one, [other])} and len(found) == 4
    assert cross_elements(other, [one]) and cross_elements(one, [attachment(5, ifname="eth1")]) == []


def test_an_attachment_without_anything_in_the_table() -> None:
    """Addresses leased for somebody else's plugin alone."""
    item = attachment(kind=CHAINED, mappings=(), isolation=False)
    assert attachment_elements(item) == []


def test_a_port_leads_to_the_first_address_of_its_family() -> None:
    first, second = Lease(parse_prefix("10.88.0.2/24")), Lease(parse_prefix("10.88.0.3/24"))
    mapping = PortMapping("tcp", parse_address("0.0.0.0"), 8080, 80)
    (found,) = [
        element
        for element in attachment_elements(attachment(leases=(first, second), mappings=(mapping,)))
        if element.set == "dnat4"
    ]
    packed = parse_address("10.88.0.2").packed
    assert found == Element("dnat4", b"\x06\0\0\0\x1f\x90\0\0", packed + b"\0\x50\0\0", "net0/c1/eth0")
    assert isinstance(first.address, Prefix)


PLACES = [
    {"bridge": "br-net0"},
    {"bridge": "br-net1"},
    {"bridge": "br-net0.10", "wire": Wire(vlan=10, master="br-net0")},
    {"bridge": "br-net0.20", "wire": Wire(vlan=20, master="br-net0")},
    {"bridge": host_link("net0/c1/eth0"), "container": "c1"},  # point to point
    {"bridge": host_link("net0/c2/eth0"), "container": "c2"},
]


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(PLACES, 2)])
def test_what_bridges_share_goes_with_the_last_of_each(one: Any, other: Any) -> None:
    """But for what a bridge has in its VLANs, too, and what is looked for elsewhere (`withdrawal`)."""
    gateway = parse_address("10.88.0.1")
    lease = Lease(parse_prefix("10.88.0.2/24"), gateway)
    usual: dict[str, Any] = {
        "leases": (lease,),
        "made": True,
        "anti_spoof": True,
        "is_gateway": True,
        "isolation": True,
    }
    items = [attachment(**{**usual, **place}) for place in (one, other)]
    if not any(item.is_ptp for item in items):  # on two bridges are two networks
        away = Lease(parse_prefix("10.89.0.2/24"), parse_address("10.89.0.1"))
        items[1] = items[1].replace(leases=(away,))
    both = [(element.set, element.key) for element in bridge_elements(items[0]) if element in bridge_elements(items[1])]
    expected = []
    if items[0].master == items[1].master:
        name, mac = b"br-net0".ljust(16, b"\0"), bridge_mac("br-net0")
        expected = [("bridge_macs", name + mac.ljust(8, b"\0")), ("taken_macs", mac)]
        expected += [("vlan_bridges", name)] if all(item.wire.master for item in items) else []
    assert sorted(both) == expected
