"""What the suite counts for its one line."""

from __future__ import annotations

from collections import Counter

TALLY: Counter[str] = Counter()
