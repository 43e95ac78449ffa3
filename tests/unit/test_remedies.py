"""Commands for somebody else's firewall: published and outgoing traffic, nothing else, in each owner's words."""

from __future__ import annotations

import pytest

from cni.operate.walk import remedy
from cni.operate.walk.packet import Packet
from cni.operate.walk.remedy import Traffic, let_through
from cni.operate.walk.ruleset import Chain, Ruleset
from nft.addresses import parse_address, parse_prefix

TRAFFIC = Traffic(("br0", "br1"), (parse_prefix("10.88.0.0/24"),), (), ("eth0",))
PACKET = Packet("tcp", parse_address("198.51.100.2"), parse_address("10.88.0.2"), 80)


def commands(chain: Chain, traffic: Traffic = TRAFFIC, *others: Chain) -> list[str]:
    rules = Ruleset()
    for one in (chain, *others):
        rules.add(one)
    return list(let_through(rules, chain, PACKET, traffic))


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    found: set[str] = set()
    monkeypatch.setattr(remedy, "has_program", lambda name: name in found)
    monkeypatch.setattr(remedy, "firewalld_runs", lambda: "firewall-cmd" in found)
    return found


def forward(family: str, table: str, name: str) -> Chain:
    return Chain(family, table, name, "filter", "forward", 0, "drop")


def test_nftables_conf(programs: set[str]) -> None:
    assert commands(forward("inet", "filter", "forward")) == [
        """nft 'insert rule inet filter forward iifname { "br0", "br1" } accept'""",
        """nft 'insert rule inet filter forward oifname { "br0", "br1" } ct state established,related accept'""",
        """nft 'insert rule inet filter forward oifname { "br0", "br1" } ct status dnat accept'""",
    ]


def test_firewalld_has_a_zone_of_ours(programs: set[str]) -> None:
    """`trusted` would open every port."""
    programs.add("firewall-cmd")
    said = commands(forward("inet", "firewalld", "filter_FORWARD"))
    assert "firewall-cmd --permanent --zone=nftcni --add-interface=br1" in said and said[-1] == "firewall-cmd --reload"
    assert not any("trusted" in line for line in said)
    assert any("--policy=nftcni-out --set-target=ACCEPT" in line for line in said)


def test_ufw(programs: set[str]) -> None:
    """`ufw route allow out on br0` would open every port."""
    programs.add("ufw")
    said = commands(forward("ip", "filter", "FORWARD"), TRAFFIC, Chain("ip", "filter", "ufw-before-forward"))
    assert said[0] == "ufw route allow in on br0" and said[-1] == "ufw reload"
    assert not any("allow out" in line for line in said)
    assert sum("--ctstate DNAT" in line and "/etc/ufw/before.rules" in line for line in said) == 2
    six = commands(forward("ip6", "filter", "FORWARD"), TRAFFIC, Chain("ip6", "filter", "ufw6-before-forward"))
    assert any("/etc/ufw/before6.rules" in line for line in six)


def test_docker(programs: set[str]) -> None:
    """What Docker's own networks keep apart stays apart."""
    programs.update(("iptables", "iptables-nft"))
    traffic = Traffic(("br0",), TRAFFIC.subnets, ("docker0", "br-0123"), ("eth0", "wg0"))
    said = commands(forward("ip", "filter", "FORWARD"), traffic, Chain("ip", "filter", "DOCKER-USER"))
    assert said == [
        "iptables-nft -I DOCKER-USER -i br0 -o eth0 -j ACCEPT",
        "iptables-nft -I DOCKER-USER -i br0 -o wg0 -j ACCEPT",
        "iptables-nft -I DOCKER-USER -o br0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "iptables-nft -I DOCKER-USER -o br0 -m conntrack --ctstate DNAT -j ACCEPT",
    ]


def test_a_table_with_an_owner_takes_no_rule(programs: set[str]) -> None:
    rules = Ruleset()
    chain = forward("inet", "theirs", "fc")
    rules.add(chain)
    rules.owned.add(("inet", "theirs"))
    (said,) = let_through(rules, chain, PACKET, TRAFFIC)
    assert said.startswith("#") and "owner" in said
