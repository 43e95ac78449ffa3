"""What was measured as a table: figure wanted, ratio measured, absolute medians. No figure is judged but in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# (what, numerator, denominator, limit, "most" or "least")
LINES = (
    ("ADD / bare interpreter", "ADD ipv4", "bare", 1.6, "most"),
    ("DEL / bare interpreter", "DEL ipv4", "bare", None, ""),
    ("STATUS / bare interpreter", "STATUS", "bare", 1.35, "most"),
    ("VERSION / bare interpreter", "VERSION", "bare", 1.05, "most"),
    ("reference chain's ADD / ADD", "ADD ref", "ADD ipv4", 6.0, "least"),
    ("reference chain's DEL / DEL", "DEL ref", "DEL ipv4", 12.0, "least"),
    ("newer reference's ADD / ADD", "ADD newer", "ADD ipv4", 6.0, "least"),
    ("newer reference's DEL / DEL", "DEL newer", "DEL ipv4", 12.0, "least"),
    ("netavark's setup / ADD", "ADD netavark", "ADD ipv4", 2.2, "least"),
    ("netavark's teardown / DEL", "DEL netavark", "DEL ipv4", 2.8, "least"),
    ("drop-in chain's ADD / four bare interpreters", "ADD dropin", "four bare", 1.35, "most"),
    ("drop-in chain's DEL / four bare interpreters", "DEL dropin", "four bare", 1.3, "most"),
    ("converted network's ADD / drop-in chain's", "ADD converted", "ADD dropin", 0.4, "most"),
    ("reference's same chain, ADD / drop-in chain's", "ADD refchain", "ADD dropin", 2.2, "least"),
    ("reference's same chain, DEL / drop-in chain's", "DEL refchain", "DEL dropin", 4.0, "least"),
    ("newer reference's same chain, ADD / drop-in's", "ADD newerchain", "ADD dropin", 3.0, "least"),
    ("newer reference's same chain, DEL / drop-in's", "DEL newerchain", "DEL dropin", 4.5, "least"),
    ("ADD, dual stack / IPv4", "ADD dual", "ADD ipv4", 1.25, "most"),
    ("DEL, dual stack / IPv4", "DEL dual", "DEL ipv4", 1.25, "most"),
    ("64 ADDs at once / one", "ADD 64 at once", "ADD single", 64 / 2 * 1.2, "most"),
    ("64 DELs at once / one", "DEL 64 at once", "DEL single", 64 / 2 * 1.5, "most"),
    ("256 DELs at once / one", "DEL 256 at once", "DEL single", 256 / 2 * 1.5, "most"),
    ("64 bare interpreters at once / one", "bare 64 at once", "bare", None, ""),
    ("GC of 1000, s", "GC 1000", "second", 0.4, "most"),
    ("repair of 1000, s", "repair 1000", "second", 0.4, "most"),
    ("GC of 250, s", "GC 250", "second", None, ""),
    ("repair of 250, s", "repair 250", "second", None, ""),
    ("ADD, 1000 tcp ports / two", "ADD tcp1000", "ADD ipv4", 2.5, "most"),
    ("ADD, 1000 udp ports / two", "ADD udp1000", "ADD ipv4", 3.0, "most"),
    ("ADD, 10 000 attachments without links / none", "ADD full10000", "ADD ipv4", 1.15, "most"),
    ("DEL, 10 000 attachments without links / none", "DEL full10000", "DEL ipv4", 1.15, "most"),
    ("ADD, 10 000 real attachments / none", "ADD real", "ADD beside", 1.15, "most"),
    ("DEL, 10 000 real attachments / none", "DEL real", "DEL beside", 1.15, "most"),
    ("STATUS, 10 000 attachments / none", "STATUS full10000", "STATUS", None, ""),
    ("peak memory of ADD / bare", "memory ADD", "memory bare", 1.25, "most"),
    ("connect, last of 10 000 / first of 10", "connect last of 10000", "connect first of 10", 1.15, "most"),
    ("reference's connect / ours, 2 ports", "connect best last of 2", "connect last of 2", 1.0, "least"),
    ("reference's connect / ours, last of 1000", "connect best last of 1000", "connect last of 1000", 1.5, "least"),
    ("reference's UDP query / ours, 2 ports", "query best last of 2", "query last of 2", 1.0, "least"),
    ("reference's UDP query / ours, last of 1000", "query best last of 1000", "query last of 1000", 1.5, "least"),
    ("the same, packet of a known flow, 2 ports", "packet best last of 2", "packet last of 2", 1.0, "least"),
    ("the same, packet of a known flow, last of 1000", "packet best last of 1000", "packet last of 1000", 1.0, "least"),
)
REMARKS = """\
ADD and DEL have two published tcp ports and IPv4 unless said; ms, but connect, query and packet in us, memory in KiB.
The bare interpreter is `python3 -IS -c pass`, as the plugin is started. The drop-in chain is bridge, portmap, firewall
and tuning, as `nerdctl network create` writes it. The reference's connect, query and packet are those of its best
backend, with that chain, which isolates networks as ours does. A query is the first packet of a flow; those of a known
flow pass no rule of a port, with nobody.
[low-high] are the quartiles, n the number of samples. Subjects alternate; the first rounds are dropped.
10 000 attachments: in 10 networks, with records, leases, 20 000 ports and all table elements, made without their links;
a sibling bridge has 1000 ports, and another table 20 000 rules."""

Figures = dict[str, dict[str, float]]


def unit(name: str) -> str:
    return "us" if name.startswith(("connect", "packet", "query")) else "KiB" if name.startswith("memory") else "ms"


def one(name: str, figure: dict[str, float]) -> str:
    places = 0 if unit(name) == "KiB" else 1
    low, high = (f"{figure[key]:.{places}f}" for key in ("low", "high"))
    return f"{figure['median']:.{places}f} [{low}-{high}] {unit(name)}, n={figure['samples']:.0f}"


def with_derived(figures: Figures) -> Figures:
    """Also four bare interpreters, one second, and of each thing the reference with the better backend."""
    figures = {**figures, "four bare": {key: 4 * value for key, value in figures["bare"].items()}}
    figures["four bare"]["samples"] = figures["bare"]["samples"]
    figures["second"] = {"median": 1000.0}
    for name in [*figures]:
        if " ref last of " in name:
            both = [figures[one] for one in (name, name.replace(" ref ", " newer ")) if one in figures]
            figures[name.replace(" ref ", " best ")] = min(both, key=lambda figure: figure["median"])
    return figures


def lines(figures: Figures) -> list[tuple[str, str, str, str, str]]:
    figures = with_derived(figures)
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
        medians = one(above, figures[above]) + ("" if below == "second" else f" / {one(below, figures[below])}")
        found.append((what, wanted, f"{ratio:.2f}", verdict, medians))
    return found


def table(results: dict[str, Any]) -> str:
    rows = [("what", "wanted", "ratio", "", "medians"), *lines(results["figures"])]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    text = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip() for row in rows]
    used = {name for _, above, below, *_ in LINES for name in (above, below)}
    rest = [f"{name}: {one(name, figure)}" for name, figure in results["figures"].items() if name not in used]
    notes = [f"{label}: {version}" for label, version in results["peers"].items()]
    notes += [f"not measured: {note}" for note in results["notes"]]
    return "\n".join([results["machine"], "", *text, "", REMARKS, *notes, "", *rest])


def machine() -> str:
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model or platform.machine()}, {os.cpu_count()} processors, Linux {platform.release()}"
