"""Which attachments count as ended."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from cni.kernel import links, netns
from cni.operate.ended import why_ended
from cni.protocol.errors import INVALID_NETNS, IO_FAILURE, CniError


@pytest.mark.parametrize("code", [INVALID_NETNS, IO_FAILURE])
def test_a_namespace_that_cannot_be_opened_for_lack_of_something_is_not_gone(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Without descriptors or rights, gc freed containers that live."""
    monkeypatch.setattr(links, "get_link", Mock(return_value=None))
    monkeypatch.setattr(netns, "open_netns", Mock(side_effect=CniError(code, "it cannot be opened")))
    item = Mock(sandbox="/run/netns/c1")
    if code == INVALID_NETNS:
        assert why_ended(Mock(), item) == "its namespace /run/netns/c1 is gone"
    else:
        with pytest.raises(CniError, match="cannot be opened"):
            why_ended(Mock(), item)
