"""Two charts in one SVG, for the README: ADD and DEL by attachments present, a new connection by published ports.

Plain text, written by hand: axes are logarithmic, as hosts and ports grow that way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 1180, 470
INK, FAINT, GRID = "#1f2933", "#52606d", "#e4e7eb"
COLOURS = {"nftcni": "#0b6e4f", "ref": "#c8553d", "newer": "#a23e8c", "netavark": "#2f6690"}
LABELS = {
    "nftcni": "nftcni",
    "ref": "reference (iptables)",
    "newer": "reference (nftables)",
    "netavark": "netavark",
}
Figures = dict[str, dict[str, float]]


@dataclass
class Line:
    label: str
    colour: str
    points: list[tuple[float, float]]
    dashed: bool = False


@dataclass
class Panel:
    """One chart; `left` and `top` are the corner of the plotted area."""

    title: str
    across: str
    up: str
    lines: list[Line]
    left: float
    top: float = 92
    width: float = 470
    height: float = 300

    def draw(self) -> list[str]:
        points = [point for line in self.lines for point in line.points]
        if not points:
            return []
        self.x_range = self._decades([x for x, _ in points])
        self.y_range = self._around([y for _, y in points])
        parts = [text(self.left, self.top - 44, self.title, 17, weight="600")]
        parts += [text(self.left, self.top - 22, self.up, 12.5, FAINT)]
        parts += self._grid()
        for line in self.lines:
            parts += self._line(line)
        return parts + self._names()

    @staticmethod
    def _decades(values: list[float]) -> tuple[float, float]:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return low, max(high, low + 1)

    @staticmethod
    def _around(values: list[float]) -> tuple[float, float]:
        return math.log10(min(values) / 1.6), math.log10(max(values) * 1.6)

    def _x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + 12 + (math.log10(value) - low) / (high - low) * (self.width - 24)

    def _y(self, value: float) -> float:
        low, high = self.y_range
        return self.top + self.height - (math.log10(value) - low) / (high - low) * self.height

    def _grid(self) -> list[str]:
        bottom = self.top + self.height
        parts = [f'<rect x="{self.left}" y="{self.top}" width="{self.width}" height="{self.height}" fill="#fff"/>']
        low, high = self.y_range
        for exponent in range(math.floor(low), math.ceil(high) + 1):
            for digit in (1, 2, 5):
                value = digit * 10.0**exponent
                if not low <= math.log10(value) <= high:
                    continue
                y = self._y(value)
                parts.append(stroke(self.left, y, self.left + self.width, y, GRID))
                parts.append(text(self.left - 8, y + 4, f"{value:g}", 12.5, FAINT, "end"))
        for exponent in range(int(self.x_range[0]), int(self.x_range[1]) + 1):
            x = self._x(10.0**exponent)
            parts.append(stroke(x, self.top, x, bottom, GRID))
            parts.append(text(x, bottom + 20, f"{10**exponent:,}".replace(",", " "), 12.5, FAINT, "middle"))
        parts.append(stroke(self.left, bottom, self.left + self.width, bottom, INK))
        return [*parts, text(self.left + self.width / 2, bottom + 44, self.across, 13, INK, "middle")]

    def _line(self, line: Line) -> list[str]:
        spots = [(self._x(x), self._y(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        dash = ' stroke-dasharray="7 5"' if line.dashed else ""
        style = f'fill="none" stroke="{line.colour}" stroke-width="2.5" stroke-linejoin="round"{dash}'
        fill = "#fff" if line.dashed else line.colour
        dots = [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{line.colour}" stroke-width="2"/>'
            for x, y in spots
        ]
        return [f'<polyline points="{path}" {style}/>', *dots]

    def _names(self) -> list[str]:
        """Beside each line's last point, pushed apart where they would overlap."""
        parts = []
        lowest = self.top - 10
        for line in sorted(self.lines, key=lambda item: -item.points[-1][1]):
            x, value = line.points[-1]
            at_edge = self._x(x) > self.left + self.width * 0.75
            y = self._y(value) + (-9 if at_edge else 4)
            if y < lowest + 15:
                y = max(self._y(value) + (19 if at_edge else 4), lowest + 15)
            lowest = y
            number = f"{value:.0f}" if value >= 100 else f"{value:.1f}"
            place, anchor = (self._x(x), "end") if at_edge else (self._x(x) + 11, "start")
            parts.append(text(place, y, f"{line.label}  {number}", 12.5, line.colour, anchor, "600"))
        return parts


def stroke(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def text(
    x: float, y: float, words: str, size: float, colour: str = INK, anchor: str = "start", weight: str = "400"
) -> str:
    style = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def sized(figures: Figures, first: str, prefix: str) -> list[tuple[float, float]]:
    """The figure for an otherwise empty host, which has one container, and those whose names end with a number."""
    found = [(1.0, figures[first]["median"])] if first in figures else []
    for name, figure in figures.items():
        number = name[len(prefix) :].strip()
        if name.startswith(prefix) and number.isdigit():
            found.append((float(number), figure["median"]))
    return sorted(found)


def calls(figures: Figures) -> list[Line]:
    lines = []
    for who in COLOURS:
        for verb in ("ADD", "DEL"):
            own = who == "nftcni"
            points = sized(figures, f"{verb} {'ipv4' if own else who}", f"{verb} {'full' if own else who + ' '}")
            if points:
                lines.append(Line(f"{LABELS[who]} {verb}", COLOURS[who], points, dashed=verb == "DEL"))
    return lines


def connections(figures: Figures) -> list[Line]:
    lines = []
    for who, prefix in (
        ("nftcni", "connect last of "),
        *((who, f"connect {who} last of ") for who in ("ref", "newer")),
    ):
        points = sized(figures, "", prefix)
        if points:
            lines.append(Line(LABELS[who], COLOURS[who], points))
    return lines


def draw(figures: Figures) -> str:
    left = Panel("Whole ADD and DEL", "containers on the host", "milliseconds, two ports each", calls(figures), 62)
    title = "New connection through the last published port"
    right = Panel(title, "published ports", "microseconds, TCP connect", connections(figures), 660)
    font = "font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {font}>',
            "<title>Latency of nftcni and its peers by number of containers and of published ports</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fafbfc"/>',
            *left.draw(),
            *right.draw(),
            "</svg>",
            "",
        ]
    )
