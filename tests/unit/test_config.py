"""Keys of the configuration: what they mean, which source wins, and what is refused with which words.

The oracles are the keys of the reference plugins bridge and firewall (containernetworking/plugins v1.9.1) and
CONVENTIONS.md of the CNI project. Ranges and ports have files of their own; the same through the executable is
tests/kernel/test_bad_input.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from asking import SUBNET, parsed, refusal, request
from hypothesis import given
from hypothesis import strategies as st

from cni.model import typos
from cni.model.chain_keys import REFUSED
from cni.model.config import parse_network
from cni.model.typos import KNOWN, KNOWN_IPAM, slips
from cni.protocol.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError

MACS = ["02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"]
KEY = "02:00:00:00:00:0d"


def test_defaults_are_what_users_would_expect() -> None:
    found = parsed({})
    assert (found.bridge, found.mtu, found.mac, found.mappings) == ("nftcni0", 0, b"", ())
    assert found.is_gateway and found.is_default_gateway and found.ip_masq and found.hairpin and found.isolation
    assert not (found.force_address or found.port_isolation or found.dad or found.fast_path) and found.link_up


def test_defaults_under_the_name_of_the_reference_bridge() -> None:
    found = parsed({}, role="bridge")
    assert found.bridge == "cni0"
    assert not (found.is_gateway or found.is_default_gateway or found.ip_masq or found.hairpin or found.isolation)


ROUTES = {**SUBNET, "routes": [{"dst": "192.0.2.0/24"}]}


@pytest.mark.parametrize(
    ("keys", "role", "gateway", "default"),
    [
        ({"isGateway": False}, "", False, False),
        ({"isGateway": False, "isDefaultGateway": True}, "", True, True),
        ({"isDefaultGateway": False}, "", True, False),
        ({"ipam": ROUTES}, "", True, False),
        ({"ipam": {**SUBNET, "routes": []}}, "", True, False),
        ({"ipam": {**SUBNET, "routes": None}}, "", True, True),
        ({"ipam": ROUTES, "isDefaultGateway": True}, "", True, True),
        ({"isGateway": True}, "bridge", True, False),
        ({"isDefaultGateway": True}, "bridge", True, True),
    ],
    ids=str,
)
def test_gateways(keys: dict[str, Any], role: str, gateway: bool, default: bool) -> None:
    """isDefaultGateway implies isGateway, as in the reference; without routes we also take it for granted."""
    found = parsed(keys, role=role)
    assert (found.is_gateway, found.is_default_gateway) == (gateway, default)


FULL = {
    "bridge": "br-x",
    "isGateway": False,
    "forceAddress": True,
    "ipMasq": False,
    "mtu": 1400,
    "isolation": False,
    "portIsolation": True,
    "enabledad": True,
}


def test_every_key_says_its_own_thing() -> None:
    found = parsed(FULL)
    assert (found.bridge, found.mtu) == ("br-x", 1400)
    assert not (found.is_gateway or found.ip_masq or found.isolation)
    assert found.force_address and found.port_isolation and found.dad


@pytest.mark.parametrize("fold", [str.upper, str.lower, str.capitalize, str.swapcase], ids=lambda fold: fold.__name__)
def test_the_case_of_keys_does_not_matter(fold: Any) -> None:
    """Go's decoder folds it, and containerd sends what Go's encoder makes of untagged fields."""
    folded = {fold(key): value for key, value in FULL.items()}
    runtime = {fold("runtimeConfig"): {fold("mac"): MACS[0], fold("ips"): ["10.88.0.9"]}}
    found = parsed({**folded, **runtime})
    assert found == parsed({**FULL, "runtimeConfig": {"mac": MACS[0], "ips": ["10.88.0.9"]}}) != parsed(FULL)


SECTIONS = ("ipam", "dns", "runtimeConfig", "args")
NULLS = [*FULL, *SECTIONS, *REFUSED, "isDefaultGateway", "hairpinMode", "ingressPolicy", "disableContainerInterface"]


@pytest.mark.parametrize("key", NULLS)
def test_null_is_absent(key: str) -> None:
    bare: dict[str, Any] = {} if key == "ipam" else {"ipam": SUBNET}
    assert parse_network(request({**bare, key: None})) == parse_network(request(bare))


@pytest.mark.parametrize("key", ["portMappings", "ips", "mac", "ipRanges", "dns", "bandwidth"])
def test_null_of_the_runtime_is_absent(key: str) -> None:
    """Kubernetes sends `"portMappings": null` (kubernetes#92811)."""
    assert parsed({"runtimeConfig": {key: None}}) == parsed({})


@given(st.dictionaries(st.text(max_size=8).map(lambda text: "x-" + text), st.none() | st.integers() | st.text()))
def test_unknown_keys_pass(keys: dict[str, Any]) -> None:
    extra = {"args": {"cni": keys, "other": keys}, "runtimeConfig": keys, "capabilities": keys}
    assert parsed({**keys, **extra, "ipam": {**SUBNET, **keys}}) == parsed({})


@pytest.mark.parametrize(
    ("runtime", "arguments", "environment", "wanted"),
    [
        (MACS[0], MACS[1], MACS[2], MACS[0]),
        ("", MACS[1], MACS[2], MACS[1]),
        ("", "", MACS[2], MACS[2]),
        ("", "", "", KEY),
        (MACS[0], "", MACS[2], MACS[0]),
    ],
)
def test_whose_mac_address_wins(runtime: str, arguments: str, environment: str, wanted: str) -> None:
    """runtimeConfig.mac over args.cni.mac over CNI_ARGS MAC, as the reference bridge has it; the network's last."""
    keys: dict[str, Any] = {"runtimeConfig": {"mac": runtime}, "args": {"cni": {"mac": arguments}}}
    options = {"MAC": environment} if environment else {}
    assert parsed({**keys, "mac": KEY}, **options).mac == bytes.fromhex(wanted.replace(":", ""))
    assert parsed(keys, **options).mac == (b"" if wanted == KEY else bytes.fromhex(wanted.replace(":", "")))


@pytest.mark.parametrize(
    ("runtime", "arguments", "environment", "wanted"),
    [
        (["10.88.0.5"], [], "", ["10.88.0.5"]),
        (["10.88.0.5/24"], ["10.88.0.6"], "", ["10.88.0.5", "10.88.0.6"]),
        ([], ["10.88.0.6/32"], "10.88.0.7", ["10.88.0.6"]),
        (["fd00::5"], None, "10.88.0.7,10.88.0.8", ["fd00::5", "10.88.0.7", "10.88.0.8"]),
        (["10.88.0.5"], None, "10.88.0.5", ["10.88.0.5"]),
        (None, None, "10.88.0.7/16", ["10.88.0.7"]),
    ],
)
def test_requested_addresses(
    runtime: list[str] | None, arguments: list[str] | None, environment: str, wanted: list[str]
) -> None:
    """All sources together without their prefixes, but CNI_ARGS only where args.cni says nothing (CONVENTIONS.md)."""
    keys: dict[str, Any] = {"runtimeConfig": {"ips": runtime}, "args": {"cni": {"ips": arguments}}}
    found = parsed(keys, **({"IP": environment} if environment else {}))
    assert [str(item) for item in found.ipam.requested] == wanted


@pytest.mark.parametrize(
    ("policy", "isolation", "port_isolation"),
    [("", True, False), ("open", False, False), ("same-bridge", True, False), ("isolated", True, True)],
)
def test_words_of_the_reference_firewall(policy: str, isolation: bool, port_isolation: bool) -> None:
    found = parsed({"ingressPolicy": policy})
    assert (found.isolation, found.port_isolation) == (isolation, port_isolation)
    assert not parsed({"ingressPolicy": policy, "isolation": False}).isolation


@pytest.mark.parametrize("kind", ["dhcp", "whereabouts", "static"])
def test_other_address_plugins_are_called(kind: str) -> None:
    found = parsed({"ipam": {"type": kind, "ranges": "theirs to read"}}).ipam
    assert (found.delegate, found.range_sets) == (kind, ())


@pytest.mark.parametrize("kind", [None, "", "host-local", "nftcni"])
def test_these_names_mean_the_built_in_one(kind: str | None) -> None:
    found = parsed({"ipam": {**SUBNET, "type": kind}}).ipam
    assert found.delegate == "" and len(found.range_sets) == 1


def test_no_addresses_at_all_is_a_plain_bridge() -> None:
    assert parse_network(request({})).ipam.range_sets == ()


# Refusals: key path, configuration, what the message shows of the value

WRONG: list[tuple[str, dict[str, Any], str]] = [
    *((key, {key: "true"}, '"true"') for key in ("isGateway", "isDefaultGateway", "forceAddress", "ipMasq")),
    *((key, {key: 1}, "1") for key in ("hairpinMode", "isolation", "portIsolation", "enabledad")),
    ("disableContainerInterface", {"disableContainerInterface": True}, "true"),
    ("bridge", {"bridge": ["br0"]}, '["br0"]'),
    *(("bridge", {"bridge": name}, json.dumps(name)) for name in ("x" * 16, "a/b", "..", "a b", 'a"b', "br\n", "b%d")),
    *(("mtu", {"mtu": mtu}, json.dumps(mtu)) for mtu in (-1, 67, 65536, "1500", 1500.0, True)),
    ("mtu", {"mtu": 1279, "ipam": {"ranges": [[{"subnet": "fd00::/64"}]]}}, "1279"),
    ("ingressPolicy", {"ingressPolicy": "closed"}, '"closed"'),
    ("runtimeConfig.mac", {"runtimeConfig": {"mac": "02:00:00"}}, '"02:00:00"'),
    ("args.cni.mac", {"args": {"cni": {"mac": "01:00:5e:00:00:01"}}}, "01:00:5e:00:00:01"),
    ("runtimeConfig.ips[1]", {"runtimeConfig": {"ips": ["10.88.0.2", "10.88.0.300"]}}, "10.88.0.300"),
    ("runtimeConfig.ips[0]", {"runtimeConfig": {"ips": [7]}}, "7"),
    ("args.cni.ips[0]", {"args": {"cni": {"ips": ["10.88.0.2/33"]}}}, "10.88.0.2/33"),
    ("args.cni", {"args": {"cni": "x"}}, '"x"'),
    ("runtimeConfig", {"runtimeConfig": []}, "[]"),
    ("ipam.type", {"ipam": {"type": "../../bin/sh"}}, "../../bin/sh"),
    ("ipam.type", {"ipam": {"type": 5}}, "5"),
    ("ipam.ranges", {"ipam": {"type": "host-local"}}, "null"),
    ("ipam.routes[0].dst", {"ipam": {**SUBNET, "routes": [{}]}}, "null"),
    ("ipam.routes[0].dst", {"ipam": {**SUBNET, "routes": [{"dst": "10.0.0.0"}]}}, "10.0.0.0"),
    ("ipam.routes[1].gw", {"ipam": {**SUBNET, "routes": [{"dst": "::/0"}, {"dst": "::/0", "gw": "10.0.0.1"}]}}, "10."),
    ("ipam.routes[0].scope", {"ipam": {**SUBNET, "routes": [{"dst": "0.0.0.0/0", "scope": 256}]}}, "256"),
    ("ipam.resolvConf", {"ipam": {**SUBNET, "resolvConf": "/nonexistent/resolv.conf"}}, "/nonexistent/resolv.conf"),
    ("dns.nameservers", {"dns": {"nameservers": "192.0.2.1"}}, '"192.0.2.1"'),
    ("dns.search[0]", {"dns": {"search": [None]}}, "null"),
    ("runtimeConfig.dns.servers[0]", {"runtimeConfig": {"dns": {"servers": [1]}}}, "1"),
]


@pytest.mark.parametrize(("key", "document", "value"), WRONG, ids=lambda item: str(item)[:50])
def test_wrong_values(key: str, document: dict[str, Any], value: str) -> None:
    error = refusal(document)
    assert error.code == INVALID_CONFIG and error.msg.startswith(key) and value in error.msg, error.msg


@pytest.mark.parametrize(("name", "value"), [("IP", "10.88.0.300"), ("IP", "10.88.0.2,"), ("MAC", "02:00")])
def test_wrong_values_of_the_environment(name: str, value: str) -> None:
    error = refusal({}, **{name: value})
    assert error.code == INVALID_CONFIG and "CNI_ARGS" in error.msg and name in error.msg, error.msg


ASKING: list[tuple[str, Any]] = [
    *[("ipMasqBackend", "ebtables"), ("backend", "ipset")],
    *[("sysctl", {"net.core.somaxconn": "1"}), ("promisc", True), ("allmulti", True), ("txQLen", 1000)],
]


@pytest.mark.parametrize(("key", "value"), ASKING)
def test_what_the_reference_plugins_do_and_we_do_not(key: str, value: Any) -> None:
    """Never ignored: code 2, whose message must name key and value (SPEC.md, "Error"). A neutral value passes."""
    error = refusal({key.swapcase(): value})
    text = json.dumps(value, separators=(",", ":"))
    assert error.code == UNSUPPORTED_FIELD and key in error.msg and text in error.msg, error.msg


@pytest.mark.parametrize(
    "keys",
    [
        {"vlan": 0, "vlanTrunk": [], "preserveDefaultVlan": False, "macspoofchk": False, "promiscMode": False},
        {"snat": True, "masqAll": False, "backend": "nftables", "conditionsV4": [], "conditionsV6": []},
        {"ipMasqBackend": "nftables", "sysctl": {}, "promisc": False, "txQLen": 0},
    ],
)
def test_keys_that_ask_for_nothing_pass(keys: dict[str, Any]) -> None:
    assert parsed(keys) == parsed({})


def test_one_refusal_names_all_of_them() -> None:
    error = refusal({"ipMasqBackend": "pf", "promisc": True, "runtimeConfig": {"deviceID": "0000:00:1f.6"}})
    assert error.code == UNSUPPORTED_FIELD
    for word in ('ipMasqBackend: "pf"', "promisc: true", 'runtimeConfig.deviceID: "0000:00:1f.6"'):
        assert word in error.msg, error.msg


@pytest.mark.parametrize("key", ["conditionsV4", "conditionsV6"])
@pytest.mark.parametrize("conditions", [["!", "-d", "192.0.2.0/24"], ["-m", "set", "--match-set", "x", "src"]])
def test_conditions_of_iptables(key: str, conditions: list[str]) -> None:
    """Refused where there are ports for them to be conditions of."""
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    error = refusal({key: conditions, "runtimeConfig": {"portMappings": [mapping]}})
    assert error.code == UNSUPPORTED_FIELD and key in error.msg and "iptables syntax" in error.msg
    assert parsed({key: conditions}) == parsed({})


def test_conditions_of_nftables() -> None:
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    asked = {"conditionsV4": ["ip", "saddr", "!=", "192.0.2.0/24"], "runtimeConfig": {"portMappings": [mapping]}}
    assert (parsed(asked).condition4, parsed(asked).condition6) == ("ip saddr != 192.0.2.0/24", "")
    assert parsed({**asked, "runtimeConfig": {}}) == parsed({})
    error = refusal({**asked, "conditionsV6": ["ip6 saddr ::1 accept"]})
    assert error.code == INVALID_CONFIG and "conditionsV6" in error.msg and "accept" in error.msg


def test_keys_of_marks_are_needed_for_nothing() -> None:
    assert parsed({"markMasqBit": 17}) == parsed({"externalSetMarkChain": "KUBE-MARK-MASQ"}) == parsed({})
    assert refusal({"markMasqBit": 32}).code == INVALID_CONFIG
    both = refusal({"markMasqBit": 5, "externalSetMarkChain": "X"})
    assert both.code == INVALID_CONFIG and "externalSetMarkChain" in both.msg


def test_promiscuous_bridges() -> None:
    assert parsed({"promiscMode": True}).wire.promisc
    assert not parsed({"promiscMode": True}).hairpin
    assert "hairpinMode" in refusal({"promiscMode": True, "hairpinMode": True}).msg


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"vlan": 4095}, "vlan"),
        ({"vlan": "0"}, "vlan"),
        ({"vlanTrunk": [{"minID": 5}]}, "minID"),
        ({"vlanTrunk": [{"minID": 9, "maxID": 5}]}, "minID"),
        ({"vlanTrunk": [{"id": 0}]}, "id"),
        ({"vlanTrunk": [{}]}, "id"),
    ],
)
def test_wrong_vlans(keys: dict[str, Any], word: str) -> None:
    error = refusal({"isGateway": False, **keys})
    assert error.code == INVALID_CONFIG and word in error.msg


def test_vlans() -> None:
    wire = parsed({"isGateway": False, "vlan": 5, "vlanTrunk": [{"minID": 10, "maxID": 20, "id": 30}]}).wire
    assert (wire.vlan, wire.trunk, wire.default_vlan) == (5, ((10, 20), (30, 30)), False)
    assert parsed({"bridge": "a-long-bridge", "vlan": 55, "isGateway": False}).wire.vlan == 55  # needs no link there
    assert parsed({"bridge": "a-long-bridge", "vlan": 55, "ipam": None}).wire.vlan == 55
    error = refusal({"bridge": "a-long-bridge", "vlan": 55})
    assert error.code == INVALID_CONFIG and "a-long-bridge.55" in error.msg


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("isGatway", "isGateway"),
        ("ipmasqq", "ipMasq"),
        ("hairpinmdoe", "hairpinMode"),
        ("mtv", "mtu"),
        ("bridg", "bridge"),
    ],
)
def test_a_slip_of_the_pen_is_told(key: str, meant: str) -> None:
    assert slips([key], KNOWN) == [(key, meant)]


def test_thousands_of_unknown_keys_are_not_compared_with_all_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wrote them by hand, and each of them takes as long as all the rest of an ADD."""
    asked = []
    monkeypatch.setattr(typos, "is_slip", lambda one, other: asked.append(one))
    assert slips([f"key{number}" for number in range(10_000)], KNOWN) == []
    assert len(set(asked)) < 1000


def test_every_key_of_the_readme_is_known() -> None:
    """`nftcni check` had a list of its own, without twelve of them, and passed over slips in those."""
    readme = Path(__file__).parents[2] / "README.md"
    text = readme.read_text(encoding="utf-8").partition("## A network, key by key")[2].partition("\n### ")[0]
    named = {key for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)}
    assert len(named) > 40 and {"antiSpoof", "gatewayMode", "ipam.routes", "ingressRate"} <= named
    known = {*KNOWN.split(), *(f"ipam.{key}" for key in KNOWN_IPAM.split()), "nerdctlLabels"}
    assert named - known == set()


@given(st.sampled_from(KNOWN.split()))
def test_known_keys_are_no_slips(key: str) -> None:
    assert slips([key, key.lower(), "x-" + key, "nerdctlLabels"], KNOWN) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*FULL, "cni", "ips"]), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*NULLS, "mac"]), JSON, max_size=4))
def test_whatever_comes_is_taken_or_refused(document: dict[str, Any]) -> None:
    try:
        parse_network(request(document))
    except CniError as error:
        assert error.code in (INVALID_CONFIG, UNSUPPORTED_FIELD) and "\n" not in error.msg and len(error.msg) < 500
