"""What was measured as a table: figure wanted, ratio measured, absolute medians. No figure is judged but in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# (what, numerator, denominator, limit, "most" or "least")
LINES = (
    ("ADD / bare interpreter", "ADD ipv4", "bare", 2.2, "most"),
    ("reference chain's ADD / ADD", "ADD ref", "ADD ipv4", 5.0, "least"),
    ("reference chain's DEL / DEL", "DEL ref", "DEL ipv4", 8.0, "least"),
    ("newer reference's ADD / ADD", "ADD newer", "ADD ipv4", None, ""),
    ("newer reference's DEL / DEL", "DEL newer", "DEL ipv4", None, ""),
    ("netavark's setup / ADD", "ADD netavark", "ADD ipv4", None, ""),
    ("netavark's teardown / DEL", "DEL netavark", "DEL ipv4", None, ""),
    ("ADD, dual stack / IPv4", "ADD dual", "ADD ipv4", 1.25, "most"),
    ("DEL, dual stack / IPv4", "DEL dual", "DEL ipv4", 1.25, "most"),
    ("VERSION / bare interpreter", "VERSION", "bare", 1.2, "most"),
    ("STATUS / bare interpreter", "STATUS", "bare", 1.6, "most"),
    ("ADD, 10 000 attachments / none", "ADD full10000", "ADD ipv4", 1.3, "most"),
    ("DEL, 10 000 attachments / none", "DEL full10000", "DEL ipv4", 1.3, "most"),
    ("STATUS, 10 000 attachments / none", "STATUS full10000", "STATUS", None, ""),
    ("ADD, 1000 tcp ports / two", "ADD tcp1000", "ADD ipv4", 4.0, "most"),
    ("ADD, 1000 udp ports / two", "ADD udp1000", "ADD ipv4", 5.0, "most"),
    ("64 ADDs at once / one", "ADD 64 at once", "ADD single", 64 / 2 * 1.3, "most"),
    ("64 bare interpreters at once / one", "bare 64 at once", "bare", None, ""),
    ("connect, last of 10 000 / first of 10", "connect last of 10000", "connect first of 10", 1.15, "most"),
    ("peak memory of ADD / bare", "memory ADD", "memory bare", 2.0, "most"),
)
REMARKS = """\
ADD and DEL have two published tcp ports and IPv4 unless said; ms, but connect in us and memory in KiB.
[low-high] are the quartiles, n the number of samples. Subjects alternate; the first rounds are dropped.
10 000 attachments: in 10 networks, with records, leases, 20 000 ports and all table elements, made without their links;
a sibling bridge has 1000 ports, and another table 20 000 rules."""


def unit(name: str) -> str:
    return "us" if name.startswith("connect") else "KiB" if name.startswith("memory") else "ms"


def one(name: str, figure: dict[str, float]) -> str:
    places = 0 if unit(name) == "KiB" else 1
    low, high = (f"{figure[key]:.{places}f}" for key in ("low", "high"))
    return f"{figure['median']:.{places}f} [{low}-{high}] {unit(name)}, n={figure['samples']:.0f}"


def lines(figures: dict[str, dict[str, float]]) -> list[tuple[str, str, str, str, str]]:
    found = []
    for what, above, below, limit, sense in LINES:
        if above not in figures or below not in figures:
            if limit is not None:
                found.append((what, f"at {sense} {limit:g}", "-", "not measured", ""))
            continue
        ratio = figures[above]["median"] / figures[below]["median"]
        wanted, verdict = "none", ""
        if limit is not None:
            wanted = f"at {sense} {limit:g}"
            verdict = "reached" if (ratio <= limit if sense == "most" else ratio >= limit) else "MISSED"
        found.append(
            (what, wanted, f"{ratio:.2f}", verdict, f"{one(above, figures[above])} / {one(below, figures[below])}")
        )
    return found


def table(results: dict[str, Any]) -> str:
    rows = [("what", "wanted", "ratio", "", "medians"), *lines(results["figures"])]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    text = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip() for row in rows]
    used = {name for _, above, below, *_ in LINES for name in (above, below)}
    rest = [f"{name}: {one(name, figure)}" for name, figure in results["figures"].items() if name not in used]
    notes = [f"not measured: {note}" for note in results["notes"]]
    return "\n".join([results["machine"], "", *text, "", REMARKS, *notes, "", *rest])


def machine() -> str:
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model or platform.machine()}, {os.cpu_count()} processors, Linux {platform.release()}"
