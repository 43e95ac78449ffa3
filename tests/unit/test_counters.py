"""Lines of the connection tracker, with and without its account."""

from __future__ import annotations

from cni.operate.counters import Traffic, parse_flow

ACCOUNT = (
    "ipv4 2 tcp 6 118 TIME_WAIT src=198.51.100.2 dst=198.51.100.1 sport=50462 dport=8080 packets=4 bytes=216 "
    "src=10.4.0.2 dst=198.51.100.2 sport=80 dport=50462 packets=5 bytes=238 [ASSURED] mark=0 zone=0 use=2"
)
KEY = ("tcp", "10.4.0.2", 80, 8080)


def test_with_account() -> None:
    assert parse_flow(ACCOUNT) == (KEY, Traffic(4, 216, 5, 238, 1))


def test_without() -> None:
    words = [word for word in ACCOUNT.split() if not word.startswith(("packets", "bytes"))]
    assert parse_flow(" ".join(words)) == (KEY, Traffic(0, 0, 0, 0, 1))


def test_ipv6_is_written_short() -> None:
    """/proc prints all digits of an address."""
    line = ACCOUNT.replace("src=10.4.0.2", "src=fd00:0000:0000:0000:0000:0000:0000:0002")
    found = parse_flow(line)
    assert found is not None and found[0][1] == "fd00::2"


def test_others_are_passed_over() -> None:
    for line in ("", "ipv4 2 icmp 1 29 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=1", "tcp src=1 dst=2", ACCOUNT[:90]):
        assert parse_flow(line) is None
