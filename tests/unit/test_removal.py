"""Waiting for links to go: the order in which children and links are looked at."""

from __future__ import annotations

import errno
import os
import posix

import pytest

from cni.kernel import deletion as removal
from cni.protocol.errors import IO_FAILURE, CniError
from nft import libnftables as library
from nft.errors import LoadError


class Child:
    """A process that ends with the status it is told."""

    def __init__(self, status: int) -> None:
        reader, self._writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writer)
            os.read(reader, 1)
            os._exit(status)
        os.close(reader)

    def end(self) -> None:
        os.close(self._writer)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)


def ending_after_the_first_look(monkeypatch: pytest.MonkeyPatch, child: Child, later: bool) -> list[object]:
    """The link is there at the first look, then the child ends, then the link is what is said."""
    looks: list[object] = []

    def link_index(name: str) -> int:
        looks.append(name)
        if len(looks) > 1:
            return later
        child.end()
        return True

    monkeypatch.setattr(removal, "link_index", link_index)
    return looks


def test_a_link_that_goes_right_after_the_look_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's removal was faster and ours ended at once: that used to be EBUSY after five seconds, unwaited."""
    child = Child(0)
    looks = ending_after_the_first_look(monkeypatch, child, False)
    removal._wait(["veth1"], child.pid)
    assert len(looks) == 2


@pytest.mark.parametrize(("status", "words"), [(0, "process that removes it has ended"), (1, "EPERM")])
def test_a_link_that_stays_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch, status: int, words: str) -> None:
    child = Child(status)
    ending_after_the_first_look(monkeypatch, child, True)
    with pytest.raises(CniError) as caught:
        removal._wait(["veth1"], child.pid)
    assert "veth1" in caught.value.msg and words in caught.value.msg + caught.value.details


def test_a_process_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of processes the kernel says EAGAIN, and nothing else says of what."""

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(posix, "fork", refuse)
    monkeypatch.setattr(removal, "link_index", lambda name: 7)
    with pytest.raises(CniError) as caught:
        removal.remove_links(["veth1"])
    assert caught.value.code == IO_FAILURE and "removes links" in caught.value.msg and "EAGAIN" in caught.value.msg
    with pytest.raises(LoadError, match="libnftables.*EAGAIN"):
        library.run_text("list ruleset")
