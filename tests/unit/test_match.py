"""Matches that somebody else wrote: what is no more than a match passes, with its words as they were."""

from __future__ import annotations

import pytest

from nft.match import LIMIT, parse_match

MATCHES = [
    "ip saddr != 192.0.2.0/24",
    'iifname "eth0" ip ttl > 3',
    'iifname { "eth0", "drop" }',
    "tcp dport { 80, 8080 } ct state new",
    "ip6 saddr & ffff:ffff:: == 2001:db8::",
    "limit rate 10/second",
    "",
]


@pytest.mark.parametrize("text", MATCHES)
def test_a_match_is_kept(text: str) -> None:
    assert parse_match(text) == text
    assert parse_match(f"  {text.replace(' ', '   ')} ") == text


@pytest.mark.parametrize("word", ["accept", "drop", "goto", "dnat", "set", "vmap", "counter", "quota"])
@pytest.mark.parametrize("text", ["{}", "ip ttl 3 {}", "ip ttl vmap {{ 1:{} }}", "{} x"])
def test_a_statement_is_not(word: str, text: str) -> None:
    with pytest.raises(ValueError, match="statement"):
        parse_match(text.format(word).replace(":", " : "))


@pytest.mark.parametrize(
    "text",
    [
        *(f"ip ttl 3{character}ip ttl 4" for character in ";#'\\`$\n\r\t\0\x7f\u2028é"),
        *('iifname "eth0', 'iifname "eth0" "', "ip ttl { 3", "ip ttl 3 }", "ip ttl } 3 {", "ip ttl { { 3 } }"),
        "ip ttl 3" + " " + "1" * LIMIT,
    ],
)
def test_what_could_be_more_is_not(text: str) -> None:
    with pytest.raises(ValueError):
        parse_match(text)
