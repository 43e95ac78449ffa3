"""Which examples hypothesis tries: always the same ones, so that no run fails by luck; others in runs that are made to
find something (NFTCNI_EXAMPLES=100 for a hundred times as many, or one of the fuzz suite's own variables)."""

from __future__ import annotations

import os

from hypothesis import settings

TIMES = os.environ.get("NFTCNI_EXAMPLES", "")
RANDOM = any(map(os.environ.get, ("NFTCNI_EXAMPLES", "NFTCNI_FUZZ_EXAMPLES", "NFTCNI_FUZZ_SECONDS")))


def load_profile() -> None:
    """No deadline: the time of an example says more of the machine than of the code."""
    settings.register_profile(
        "nftcni",
        derandomize=not RANDOM,
        deadline=None,
        max_examples=100 * int(TIMES or 1),
        database=None,
        print_blob=True,
    )
    settings.load_profile("nftcni")
