"""Hypothesis for the unit tests: no deadline, since the time of an example says more of the machine than the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=100, database=None, print_blob=True)
settings.load_profile("unit")
