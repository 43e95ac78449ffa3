"""flannel's lease: what flanneld writes, what is wrong with it, and the configuration that it stands for.

The texts are those that flanneld 0.28.10 wrote; what the meta plugin `flannel` made of them is the oracle of the keys.
"""

from __future__ import annotations

from typing import Any

import pytest
from asking import request
from hypothesis import given
from hypothesis import strategies as st

from cni.model.config import Network, parse_network
from cni.model.flannel import configured, parse_subnet_env
from cni.protocol.errors import INVALID_CONFIG, CniError

BOTH = """FLANNEL_NETWORK=10.245.0.0/16
FLANNEL_SUBNET=10.245.14.1/24
FLANNEL_IPV6_NETWORK=fd00:245::/48
FLANNEL_IPV6_SUBNET=fd00:245:0:19::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


def network(text: str = BOTH, **keys: Any) -> Network:
    document = {"ipam": {"type": "flannel"}, **keys}
    return parse_network(request(configured(document, parse_subnet_env(text))))


def test_a_lease_of_both_families() -> None:
    found = network()
    assert [str(item.subnet) for [item] in found.ipam.range_sets] == ["10.245.14.0/24", "fd00:245:0:19::/64"]
    assert [str(item.gateway) for [item] in found.ipam.range_sets] == ["10.245.14.1", "fd00:245:0:19::1"]
    assert [str(item) for item in found.direct] == ["10.245.0.0/16", "fd00:245::/48"]
    assert (found.mtu, found.ip_masq, found.mode4, found.mode6, found.isolation) == (1450, False, "open", "open", False)
    assert found.is_default_gateway


@pytest.mark.parametrize("family", ["IPV6_", ""])
def test_a_lease_of_one_family(family: str) -> None:
    text = "\n".join(line for line in BOTH.splitlines() if family or "IPV6" not in line)
    text = "\n".join(line for line in text.splitlines() if not family or "IPV6" in line or "NET" not in line.upper())
    [[only]] = network(text).ipam.range_sets
    assert only.subnet.version == (6 if family else 4)


def test_flanneld_that_does_not_masquerade_leaves_it_to_us() -> None:
    assert network(BOTH.replace("=true", "=false")).ip_masq


def test_what_a_person_has_said_stands() -> None:
    found = network(MTU=1400, ipMasq=True, gatewayModeIPv4="routed", nonMasqueradeCIDRs=["192.0.2.0/24"])
    assert (found.mtu, found.ip_masq, found.mode4) == (1400, True, "routed")
    assert "192.0.2.0/24" in map(str, found.direct) and "10.245.0.0/16" in map(str, found.direct)


def test_several_networks() -> None:
    found = network(BOTH.replace("10.245.0.0/16", "10.245.0.0/16,10.9.0.0/16"))
    assert sorted(map(str, found.direct)) == ["10.245.0.0/16", "10.9.0.0/16", "fd00:245::/48"]


def test_a_null_is_nothing() -> None:
    assert network(mtu=None, nonMasqueradeCIDRs=None).mtu == 1450


def test_a_wrong_list_is_refused_by_its_own_name() -> None:
    with pytest.raises(CniError) as caught:
        network(nonMasqueradeCIDRs="10.0.0.0/8")
    assert caught.value.code == INVALID_CONFIG and "nonMasqueradeCIDRs" in caught.value.msg


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "FLANNEL_SUBNET and FLANNEL_IPV6_SUBNET are missing"),
        (BOTH.replace("FLANNEL_NETWORK", "#"), "FLANNEL_NETWORK is missing"),
        (BOTH.replace("10.245.14.1/24", "10.245.14.1"), "FLANNEL_SUBNET=10.245.14.1: "),
        (BOTH.replace("10.245.14.1/24", "fd00::1/64"), "is not IPv4"),
        (BOTH.replace("1450", ""), "FLANNEL_MTU="),
        (BOTH.replace("1450", "99999"), "FLANNEL_MTU=99999"),
        (BOTH.replace("true", "yes"), "FLANNEL_IPMASQ=yes"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="FLANNEL") as caught:
        parse_subnet_env(text)
    assert words in str(caught.value)


LINES = st.sampled_from([*BOTH.splitlines(), "FLANNEL_SUBNET=x", "=", "FLANNEL_NETWORK=,", ""])


@given(st.one_of(st.text(), st.lists(LINES).map("\n".join)))
def test_any_text_is_a_lease_or_a_value_error(text: str) -> None:
    try:
        lease = parse_subnet_env(text)
    except ValueError:
        return
    assert lease.subnets and lease.networks
