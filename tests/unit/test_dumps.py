"""Listings: whole ones or an error. A fake socket says what a kernel may say; a real one is asked while somebody
changes what is listed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from struct import pack

import pytest
from support.scratch import Host

from cni.kernel import rtnetlink
from cni.kernel.dumps import read_addresses
from cni.kernel.links import get_link
from nft import expressions, messages, netlink
from nft.addresses import parse_prefix
from nft.errors import KernelError
from nft.framing import NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, attr_name, message
from nft.netlink import DUMP_TRIES, NETLINK_NETFILTER, Netlink

ITEM = 77
FINE, INTERRUPTED = 0, NLM_F_DUMP_INTR


class Socket:
    """Answers the n-th request with the n-th script, the last one again and again; a datagram for each entry."""

    def __init__(self, *scripts: list[tuple[int, int, bytes]]) -> None:
        self.scripts = [*scripts]
        self.asked = 0
        self.left: list[bytes] = []

    def setsockopt(self, *_: int) -> None: ...

    def bind(self, _: object) -> None: ...

    def send(self, data: bytes) -> int:
        assert self.left == [], "the socket still lists: the kernel would say EBUSY"
        self.asked += 1
        sequence = int.from_bytes(data[8:12], sys.byteorder)
        script = self.scripts[min(self.asked, len(self.scripts)) - 1]
        self.left = [message(kind, flags, sequence, body) for kind, flags, body in script]
        return len(data)

    def recv(self, _size: int) -> bytes:
        return self.left.pop(0)


def listing(flags: int = FINE, number: int = 0, *items: bytes) -> list[tuple[int, int, bytes]]:
    return [*((ITEM, flags, item) for item in items), (NLMSG_DONE, flags, pack("=i", -number))]


def opened(monkeypatch: pytest.MonkeyPatch, *scripts: list[tuple[int, int, bytes]]) -> tuple[Netlink, Socket]:
    made = Socket(*scripts)
    monkeypatch.setattr(netlink, "socket", lambda *_: made)
    return Netlink(), made


def test_an_interrupted_listing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    half = [(ITEM, FINE, b"one1"), (ITEM, INTERRUPTED, b"two2"), (NLMSG_DONE, FINE, pack("=i", 0))]
    at_its_end = [(ITEM, FINE, b"one1"), (NLMSG_DONE, INTERRUPTED, pack("=i", 0))]
    asking, made = opened(monkeypatch, half, at_its_end, listing(FINE, 0, b"one1", b"two2", b"six6"))
    assert asking.dump(ITEM, b"") == [b"one1", b"two2", b"six6"]
    assert made.asked == 3 and made.left == []


def test_an_interruption_in_a_datagram_that_is_passed_over_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    half = [(ITEM, INTERRUPTED, b"one1"), (ITEM, FINE, b"two2"), (NLMSG_DONE, FINE, pack("=i", 0))]
    asking, made = opened(monkeypatch, half, listing(FINE, 0, b"one1", b"two2", b"six6"))
    assert asking.dump(ITEM, b"", (b"wo",)) == [b"two2"]
    assert made.asked == 2 and made.left == []


def test_an_errno_after_datagrams_that_were_passed_over_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    asking, _made = opened(monkeypatch, listing(FINE, errno.ENOENT, b"one1"))
    with pytest.raises(KernelError) as caught:
        asking.dump(ITEM, b"", (b"wo",))
    assert caught.value.errno == errno.ENOENT


def test_one_that_never_comes_to_rest_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asking, made = opened(monkeypatch, listing(INTERRUPTED, 0, b"one1"))
    with pytest.raises(KernelError) as caught:
        asking.dump(ITEM, b"")
    assert caught.value.errno == errno.EAGAIN and made.asked == DUMP_TRIES


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINTR, errno.ENOMEM])
def test_an_errno_at_the_end_is_raised(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    asking, made = opened(monkeypatch, listing(FINE, number, b"one1"), listing())
    with pytest.raises(KernelError) as caught:
        asking.dump(ITEM, b"")
    assert caught.value.errno == number
    assert asking.dump(ITEM, b"") == [] and made.asked == 2, "the socket is free for the next one"


def test_a_refused_listing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    asking, _made = opened(monkeypatch, [(NLMSG_ERROR, 0, pack("=i", -errno.EPERM) + bytes(16))])
    with pytest.raises(KernelError) as caught:
        asking.dump(ITEM, b"")
    assert caught.value.errno == errno.EPERM


# The kernel itself


def test_addresses_that_are_there_all_the_time_are_in_every_listing(host: Host) -> None:
    """42 of 44 listings lacked some while others went."""
    many = [f"10.1.{number // 250}.{number % 250 + 1}/32" for number in range(1500)]
    lines = "link add v type veth peer name w\nlink set v up\n" + "".join(f"addr add {text} dev v\n" for text in many)
    subprocess.run(["nsenter", f"--net=/proc/{host.pid}/ns/net", "ip", "-b", "-"], input=lines, text=True, check=True)
    with host.entered():
        reader, writer = Netlink(), Netlink()
    link = get_link(reader, "v")
    assert link is not None
    stay = {parse_prefix(text) for text in many[750:]}
    done = threading.Event()

    def change() -> None:
        for text in many[:750]:
            writer.ask(rtnetlink.RTM_DELADDR, rtnetlink.address(link.index, parse_prefix(text)))
            done.wait(0.001)
        done.set()

    thread = threading.Thread(target=change)
    thread.start()
    listings = 0
    while not done.is_set():
        assert stay <= set(read_addresses(reader, link.index))
        listings += 1
    thread.join()
    assert listings and set(read_addresses(reader, link.index)) == stay


def test_a_set_that_goes_while_it_is_listed_is_no_whole_listing(host: Host) -> None:
    """The kernel ends it with an errno inside NLMSG_DONE: 20 000 elements, of which the first datagrams have some."""
    numbers = ", ".join(map(str, range(1, 20001)))
    host.nft(f"table inet aaa {{\n set numbers {{\n type mark;\n elements = {{ {numbers} }}\n }}\n}}\n")
    with host.entered():
        asking = Netlink(NETLINK_NETFILTER)
    receive = asking._receive
    gone: list[int] = []

    def meanwhile(_containing: object) -> object:
        for answer in receive():
            if not gone:
                gone.append(1)
                host.run("nft", "delete", "table", "inet", "aaa")
            yield answer

    asking._receive = meanwhile  # type: ignore[method-assign, assignment]
    with pytest.raises(KernelError) as caught:
        asking.dump(messages.GETSETELEM, messages.list_elements("numbers", "aaa"))
    assert caught.value.errno == errno.ENOENT, os.strerror(caught.value.errno or 0)


def test_a_listing_of_what_contains_something_has_just_that(host: Host) -> None:
    """One base chain among thousands of others, in its datagram and in others."""
    many = "".join(f" chain plain{n} {{\n }}\n" for n in range(2000))
    base = " chain base {\n type filter hook forward priority 0;\n }\n"
    host.nft(f"table inet aaa {{\n{many}{base}}}\ntable inet bbb {{\n{many}}}\n")
    with host.entered():
        asking = Netlink(NETLINK_NETFILTER)
    wanted = attr_name(expressions.NFTA_CHAIN_TYPE, "filter")
    found = asking.dump(messages.GETCHAIN, messages.nfgen(0), (wanted,))
    assert [expressions.read_chain(payload).name for payload in found] == ["base"]
    assert len(asking.dump(messages.GETCHAIN, messages.nfgen(0))) == 4001
