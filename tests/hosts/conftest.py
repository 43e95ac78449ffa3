"""A LAN for each file of tests: what its hosts learn of each other is that file's subject."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lan import Lan


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    made = Lan(2)
    yield made
    made.close()
