"""The same examples in every run, or random ones when they are asked for."""

from __future__ import annotations

from examples import load_profile

load_profile()
