"""The C module below `signal`, with the public one as its fall-back: that costs 4 ms of a start-up that takes 8.

Apart from `stdlib`, as every start needs it, and one that answers at once needs nothing else.
"""

from __future__ import annotations

try:
    import _signal as signals  # type: ignore[import-not-found]

    if not callable(signals.signal) or not callable(signals.setitimer) or not callable(signals.pthread_sigmask):
        raise ImportError("_signal")
except Exception:
    import signal as signals

__all__ = ["signals"]
