"""A batch must fit the socket's buffers whole: they grow by force, or as far as a user namespace may make them grow."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from struct import pack

import pytest
from support.scratch import CHECKOUT

from nft import netlink
from nft.framing import NLMSG_ERROR, message
from nft.netlink import SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF, SO_SNDBUFFORCE, Netlink

LIMIT = 1 << 16
FORCED, PLAIN = (SO_SNDBUFFORCE, SO_RCVBUFFORCE), (SO_SNDBUF, SO_RCVBUF)


class Socket:
    """Takes a batch and says that all of it was done."""

    def __init__(self, refusal: int) -> None:
        self.refusal = refusal
        self.sizes: dict[int, int] = {}
        self.sent: list[bytes] = []

    def setsockopt(self, _level: int, option: int, value: int) -> None:
        if option in FORCED and self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
        self.sizes[option] = value

    def send(self, data: bytes) -> int:
        assert self.sizes.get(SO_SNDBUF, self.sizes.get(SO_SNDBUFFORCE, LIMIT)) >= len(data), "EMSGSIZE"
        self.sent.append(data)
        return len(data)

    def recv(self, _size: int) -> bytes:
        return message(NLMSG_ERROR, 0, 2, pack("=i", 0) + bytes(16))


def transact(monkeypatch: pytest.MonkeyPatch, size: int, refusal: int = 0) -> Socket:
    """A batch of that size through a socket whose forced options are refused by that errno."""
    made = Socket(refusal)
    monkeypatch.setattr(netlink, "socket", lambda *_: made)
    monkeypatch.setattr(Socket, "bind", lambda *_: None, raising=False)
    opened = Netlink()
    made.sizes.clear()
    assert opened.transact([bytes(size - 1), b"x"], range(1, 3)) == []
    assert [len(data) for data in made.sent] == [size], "in one piece"
    return made


def test_a_small_batch_leaves_the_buffers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert transact(monkeypatch, LIMIT).sizes == {}


def test_a_large_batch_has_its_buffers_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = transact(monkeypatch, LIMIT + 1).sizes
    assert set(sizes) == set(FORCED) and min(sizes.values()) > LIMIT


def test_where_force_is_refused_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPERM in a user namespace (SO_SNDBUFFORCE wants CAP_NET_ADMIN in the initial one)."""
    sizes = transact(monkeypatch, 4 * LIMIT, errno.EPERM).sizes
    assert set(sizes) == set(PLAIN) and min(sizes.values()) >= 4 * LIMIT


def test_another_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        transact(monkeypatch, 4 * LIMIT, errno.ENOMEM)


@pytest.mark.parametrize(
    ("machine", "numbers"),
    [
        ("x86_64", (32, 33, 71)),
        ("ppc64le", (32, 33, 71)),
        ("mips64", (31, 33, 71)),
        ("sparc64", (0x100A, 0x100B, 0x50)),
        ("parisc64", (0x100A, 0x100B, 0x4045)),
    ],
)
def test_sockets_options_have_the_architectures_numbers(machine: str, numbers: tuple[int, int, int]) -> None:
    """arch/*/include/uapi/asm/socket.h. Another number is another option there, not an error."""
    code = f"""
import posix, sys
sys.path.insert(0, {str(CHECKOUT)!r})
real = posix.uname()
posix.uname = lambda: posix.uname_result((*real[:4], {machine!r}))
from nft.netlink import SO_NETNS_COOKIE, SO_RCVBUFFORCE, SO_SNDBUFFORCE
print(SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_NETNS_COOKIE)
"""
    said = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True).stdout
    assert tuple(map(int, said.split())) == numbers
