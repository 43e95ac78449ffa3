"""What rules do to a packet, on rules that need no kernel; the kernel itself is asked in tests/kernel/test_doctor_*."""

from __future__ import annotations

import pytest

from cni.operate.walk.iptables_save import read_saved
from cni.operate.walk.judge import Judge
from cni.operate.walk.packet import Packet
from cni.operate.walk.ruleset import Chain, Rule, Ruleset, add_devices
from nft.addresses import Address, parse_address

LAN, INSIDE = parse_address("198.51.100.2"), parse_address("10.88.0.2")


class Facts:
    def address_type(self, address: Address) -> str:
        return "local" if str(address) == "198.51.100.1" else "unicast"

    def reverse_path(self, packet: Packet, same_link: bool) -> str:
        return packet.iif

    def link_kind(self, name: str) -> str:
        return "bridge" if name == "br0" else ""

    def link_group(self, name: str) -> int:
        return 7 if name == "eth0" else 0

    def bridge_of(self, port: str) -> str:
        return ""


def packet() -> Packet:
    """As it is in forward: translated, on its way from the LAN to a container."""
    made = Packet("tcp", LAN, parse_address("198.51.100.1"), 8080).at("eth0", "br0")
    made.daddr, made.dport, made.status, made.natted = INSIDE, 80, frozenset({"dnat"}), True
    return made


def saved(*rules: str, policy: str = "ACCEPT") -> Ruleset:
    lines = ["*filter", f":FORWARD {policy} [0:0]", ":custom - [0:0]", *(f"-A {rule}" for rule in rules), "COMMIT"]
    found = Ruleset()
    for chain in read_saved("\n".join(lines), "ip", "iptables"):
        found.add(chain)
    return found


MATCHING = (
    *("-i eth0", "-i eth+", "-i +", "! -i eth1", "-o br0", "-s 198.51.100.0/24", "-s 198.51.100.2", "! -s 10.0.0.0/8"),
    *("-d 10.88.0.2/32", "-p tcp", "-p tcp -m tcp --dport 80", "-p tcp --dport 79:81", "! -p udp", "-p all"),
    *("-p tcp -m multiport --dports 22,80", "-p tcp -m multiport --dports 22,79:90", "-m comment --comment 'a b'"),
    *("-m conntrack --ctstate NEW", "-m state --state NEW,ESTABLISHED", "-m conntrack --ctstate DNAT"),
    *("-m conntrack ! --ctstate ESTABLISHED", "-m conntrack --ctorigdstport 8080", "-m addrtype --dst-type UNICAST"),
    *("-m addrtype ! --dst-type LOCAL", "-m mark --mark 0x0", "-m limit --limit 1/sec", "-p tcp --syn"),
    *("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "-m conntrack --ctorigdst 198.51.100.1"),
    *("-p tcp --tcp-flags SYN,RST SYN", "-p tcp ! --tcp-flags ALL NONE", "-m policy --dir in --pol none"),
    "-m policy --dir in ! --pol ipsec",
)
OTHERS = (
    *("-i eth1", "-i br+", "-o eth0", "-s 10.0.0.0/8", "-d 10.88.0.3", "-p udp", "-p tcp --dport 8080", "! -p tcp"),
    *("-m conntrack --ctstate ESTABLISHED,RELATED", "-m conntrack --ctstate SNAT", "-m addrtype --dst-type LOCAL"),
    *("-m mark --mark 0x1/0xff", "-m conntrack ! --ctstate NEW", "-p tcp -m multiport --dports 22,443"),
    *(
        "-p tcp --tcp-flags SYN,FIN SYN,FIN",
        "-p tcp --tcp-flags ALL NONE",
        "-p tcp ! --syn",
        "-p tcp --tcp-flags ALL ALL",
    ),
    *("-p tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", "-m policy --dir in --pol ipsec --proto esp"),
)


@pytest.mark.parametrize("words", MATCHING)
def test_iptables_conditions_that_hold(words: str) -> None:
    (verdict,) = Judge(saved(f"FORWARD {words} -j DROP"), Facts()).pass_hook("forward", packet())
    assert verdict.drops and verdict.certain


@pytest.mark.parametrize("words", OTHERS)
def test_iptables_conditions_that_do_not(words: str) -> None:
    (verdict,) = Judge(saved(f"FORWARD {words} -j DROP"), Facts()).pass_hook("forward", packet())
    assert not verdict.drops


@pytest.mark.parametrize("words", ["-m set --match-set blocked src", "-m recent --rcheck", "-m bpf --bytecode x"])
def test_a_condition_that_cannot_be_told_is_no_finding(words: str) -> None:
    judge = Judge(saved(f"FORWARD {words} -j DROP"), Facts())
    (verdict,) = judge.pass_hook("forward", packet())
    assert not verdict.drops and verdict.doubts == ["drop"]
    (verdict,) = Judge(saved(f"FORWARD {words} -j ACCEPT", policy="DROP"), Facts()).pass_hook("forward", packet())
    assert verdict.drops and not verdict.certain, "dropped, unless that rule accepts it"


def test_chains_of_ones_own() -> None:
    rules = saved("FORWARD -j custom", "FORWARD -j DROP", "custom -p udp -j ACCEPT", "custom -i eth0 -j RETURN")
    (verdict,) = Judge(rules, Facts()).pass_hook("forward", packet())
    assert verdict.drops and verdict.at is not None and verdict.at.name == "FORWARD"
    rules = saved("FORWARD -g custom", "FORWARD -j DROP", "custom -p udp -j DROP")
    (verdict,) = Judge(rules, Facts()).pass_hook("forward", packet())
    assert not verdict.drops, "goto does not come back"
    rules = saved("FORWARD -j custom", "custom -j custom")
    assert not Judge(rules, Facts()).pass_hook("forward", packet())[0].drops, "a loop ends"


def test_marks_are_followed() -> None:
    rules = Ruleset()
    text = "*mangle\n:FORWARD ACCEPT\n-A FORWARD -i eth0 -j MARK --set-xmark 0x4/0xff\nCOMMIT\n"
    text += "*filter\n:FORWARD ACCEPT\n-A FORWARD -m mark --mark 0x4/0xf -j REJECT\nCOMMIT"
    for chain in read_saved(text, "ip", "iptables"):
        rules.add(chain)
    verdicts = Judge(rules, Facts()).pass_hook("forward", packet())
    assert [verdict.word for verdict in verdicts] == ["accept", "reject"]


def test_the_younger_of_two_with_one_priority_comes_first() -> None:
    rules = Ruleset()
    for number, table in ((9, "old"), (3, "new")):
        rule = Rule([{"dnat": {"addr": f"192.0.2.{number}"}}])
        rules.add(Chain("ip", table, "pre", "nat", "prerouting", -100, rules=[rule]))
    made = Packet("tcp", LAN, parse_address("198.51.100.1"), 8080).at("eth0", "")
    Judge(rules, Facts()).pass_hook("prerouting", made)
    assert str(made.daddr) == "192.0.2.3"


TCP = {"payload": {"protocol": "tcp", "field": "flags"}}
FLAGS = {  # as nft 1.0.6 prints them
    "syn": ({"op": "in", "left": TCP, "right": "syn"}, True, True),
    "== syn": ({"op": "==", "left": TCP, "right": "syn"}, True, False),
    "!= syn": ({"op": "!=", "left": TCP, "right": "syn"}, False, True),
    "! fin,rst": ({"op": "!", "left": TCP, "right": ["fin", "rst"]}, True, True),
    "syn / syn,ack": ({"op": "==", "left": {"&": [TCP, ["syn", "ack"]]}, "right": "syn"}, True, False),
    "fin,syn / fin,syn": ({"op": "==", "left": {"&": [TCP, ["fin", "syn"]]}, "right": ["fin", "syn"]}, False, False),
    "& (fin|syn) == fin|syn": (
        {"op": "==", "left": {"&": [TCP, {"|": ["fin", "syn"]}]}, "right": {"|": ["fin", "syn"]}},
        False,
        False,
    ),
    "{ syn|ack, rst }": ({"op": "==", "left": TCP, "right": {"set": [{"|": ["syn", "ack"]}, "rst"]}}, False, True),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_the_first_packet_and_of_the_answer(name: str) -> None:
    match, first, answer = FLAGS[name]
    rules = Ruleset()
    chain = Chain("inet", "fw", "f", "filter", "forward", rules=[Rule([{"match": match}, {"drop": None}])])
    rules.add(chain)
    for one, dropped in ((packet(), first), (packet().answer(), answer)):
        (verdict,) = Judge(rules, Facts()).pass_hook("forward", one)
        assert verdict.drops is dropped and not verdict.doubts


def test_a_verdict_by_flags() -> None:
    members = {"set": [["rst", {"accept": None}], [{"|": ["syn", "ack"]}, {"drop": None}]]}
    rules = Ruleset()
    rules.add(Chain("inet", "fw", "f", "filter", "forward", rules=[Rule([{"vmap": {"key": TCP, "data": members}}])]))
    found = [Judge(rules, Facts()).pass_hook("forward", one)[0].drops for one in (packet(), packet().answer())]
    assert found == [False, True]


@pytest.mark.parametrize(
    ("key", "right", "holds"),
    [
        ("iifgroup", 7, True),
        ("oifgroup", "default", True),
        ("iifgroup", 8, False),
        ("ipsec", True, False),
        ("ipsec", False, True),
    ],
)
def test_groups_of_links_and_ipsec(key: str, right: object, holds: bool) -> None:
    rules = Ruleset()
    match = {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}}
    rules.add(Chain("inet", "fw", "f", "filter", "forward", rules=[Rule([match, {"drop": None}])]))
    (verdict,) = Judge(rules, Facts()).pass_hook("forward", packet())
    assert verdict.drops is holds and not verdict.doubts


def test_devices_of_an_old_listing() -> None:
    rules = Ruleset()
    for name in ("one", "two"):
        rules.add(Chain("netdev", "w", name, "filter", "ingress"))
    add_devices(
        rules,
        "table netdev w {\n\tchain one {\n"
        '\t\ttype filter hook ingress device "d0" priority filter; policy accept;\n\t}\n'
        "\tchain two {\n\t\ttype filter hook ingress devices = { d0, d1 } priority filter; policy accept;\n\t}\n}\n",
    )
    assert [chain.devices for chain in rules.chains.values()] == [("d0",), ("d0", "d1")]


def test_a_verdict_by_the_state() -> None:
    """Any of a packet's states is one of the map, alone and beside another key."""
    states = [["established", {"accept": None}], ["new", {"drop": None}]]
    both = [[{"concat": [state, "eth0"]}, verdict] for state, verdict in states]
    state, link = {"ct": {"key": "state"}}, {"meta": {"key": "iifname"}}
    for key, elements in ((state, states), ({"concat": [state, link]}, both)):
        rule = Rule([{"vmap": {"key": key, "data": {"set": elements}}}])
        rules = Ruleset()
        rules.add(Chain("inet", "fw", "forward", "filter", "forward", rules=[rule]))
        assert Judge(rules, Facts()).pass_hook("forward", packet())[0].word == "drop"
        assert Judge(rules, Facts()).pass_hook("forward", packet().answer().at("eth0", "br0"))[0].word == "accept"
