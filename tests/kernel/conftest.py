"""A scratch host on which nothing of nftcni, of the reference plugins and of iptables is installed."""

from __future__ import annotations

import pytest
from support.installed import FRESH
from support.scratch import Host


@pytest.fixture
def fresh(host: Host) -> Host:
    host.run("sh", "-ec", FRESH)
    return host
