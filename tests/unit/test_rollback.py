"""A failed ADD takes back what it did, by code that it loads only then."""

from __future__ import annotations

import sys
from unittest.mock import Mock

import pytest

from cni.host import Transaction
from cni.protocol.errors import IO_FAILURE, CniError
from cni.verbs import attach


def test_what_failed_is_told_though_an_upgrade_took_the_code_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an installation without an archive the folder is gone: the ImportError was told in place of the reason."""
    monkeypatch.setattr(attach, "apply", Mock(side_effect=CniError(IO_FAILURE, "the kernel refused it")))
    monkeypatch.setitem(sys.modules, "cni.verbs.delete", None)
    host = Mock()
    with pytest.raises(CniError, match="the kernel refused it"):
        attach.attach(host, Mock(ident="net0/c1/eth0"), netns=0)
    host.store.update.assert_not_called()


def test_a_transaction_that_does_not_begin_gives_up_the_lock() -> None:
    """The lock is taken before an earlier change is finished. If that failed, `watch`, which lives on, kept it, and
    every verb waited in vain."""
    host = Mock()
    host.lock.side_effect = CniError(IO_FAILURE, "no space is left for the interrupted change")
    with pytest.raises(CniError, match="no space"), Transaction(host, "mending", ()):
        raise AssertionError("the transaction has begun")
    host.unlock.assert_called_once_with()
