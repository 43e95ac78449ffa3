"""One step of a packet's way: what happens there, whether the packet goes on, why, and what to do.

`explain` prints all steps, `doctor` those that are findings. Nothing here looks at the host.
"""

from __future__ import annotations

from nft.value import Value

OK, NOTE, WARN, STOP = "ok", "note", "warn", "stop"
FINDINGS = (WARN, STOP)


class Step(Value):
    """A step. `kind` is a stable word for programs; `remedy` holds commands to paste, in their order."""

    verdict: str
    kind: str
    what: str
    because: str = ""
    remedy: tuple[str, ...] = ()

    @property
    def is_finding(self) -> bool:
        return self.verdict in FINDINGS


def ok(kind: str, what: str) -> Step:
    return Step(OK, kind, what)


def note(kind: str, what: str, because: str = "") -> Step:
    return Step(NOTE, kind, what, because)


def warn(kind: str, what: str, because: str = "", *remedy: str) -> Step:
    return Step(WARN, kind, what, because, remedy)


def stop(kind: str, what: str, because: str = "", *remedy: str) -> Step:
    return Step(STOP, kind, what, because, remedy)


def findings(steps: list[Step]) -> list[Step]:
    """The findings, each once; those that stop a packet come first."""
    found = list(dict.fromkeys(step for step in steps if step.is_finding))
    return sorted(found, key=lambda step: step.verdict != STOP)
