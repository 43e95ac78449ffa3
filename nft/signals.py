"""The C module below `signal`, with the public one as its fall-back, which costs 4 ms of a start-up that takes 8.

It is apart from `stdlib` because every start needs it, and a verb that answers at once needs nothing else.
"""

from __future__ import annotations

try:
    import _signal as signals  # type: ignore[import-not-found]

    if not callable(signals.signal) or not callable(signals.setitimer) or not callable(signals.pthread_sigmask):
        raise ImportError("_signal")
except Exception:
    import signal as signals

__all__ = ["signals"]
