"""Prefixes as text, of which there may be thousands: their spans, which of them lie inside others, which meet.

The oracle is `ipaddress`.
"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nft.addresses import merged, span_of

V4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda item: ipaddress.IPv4Network(item, strict=False)
)
V6 = st.tuples(st.integers(1 << 64, 2**128 - 1), st.integers(0, 128)).map(
    lambda item: ipaddress.IPv6Network(item, strict=False)
)
NEAR = st.tuples(st.integers(0, 15), st.integers(26, 32)).map(
    lambda item: ipaddress.IPv4Network((0x0A000000 + item[0] * 16, item[1]), strict=False)
)
SEVERAL = st.lists(st.one_of(V4, V6, NEAR), max_size=12)


@given(st.one_of(V4, V6))
def test_spans(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    assert span_of(str(network)) == (network.version, int(network[0]), int(network[-1]))


def test_an_address_alone_is_a_prefix_of_one() -> None:
    assert span_of("10.0.0.1") == span_of("10.0.0.1/32") and span_of("::1") == span_of("::1/128")


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "::ffff:1.2.3.4/120"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        span_of(text)


@given(SEVERAL)
def test_none_lies_inside_another(networks: list[ipaddress.IPv4Network]) -> None:
    found = merged(map(str, networks))
    for version in (4, 6):
        family = [item for item in networks if item.version == version]
        outer = {item for item in family if not any(item != other and item.subnet_of(other) for other in family)}
        assert {span[1:] for span in found if span[0] == version} == {(int(item[0]), int(item[-1])) for item in outer}
