"""A bar chart as plain SVG, readable on light and on dark."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH, ROW, TOP, LABELS, FIGURES = 760, 26, 44, 230, 60
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .peer { fill: #8c959f } .base { fill: #57606a } .ours { fill: #1a7f37 }
  .page { fill: #ffffff } line { stroke: #57606a; stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #e6edf3 }
    .peer { fill: #6e7681 } .base { fill: #b1bac4 } .ours { fill: #3fb950 }
    line { stroke: #b1bac4 }
  }
"""
TITLE = "CPU of one chat call, requests.Session.post = 1.00 (less is better)"


def drawn(ratios: Mapping[str, float]) -> str:
    """One bar for each ratio, the shortest on top."""
    ordered = sorted(ratios.items(), key=lambda item: item[1])
    unit = (WIDTH - LABELS - FIGURES) / max(ratios.values())
    height = TOP + ROW * len(ordered) + 8
    one = LABELS + unit
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{TITLE}">'
    page = f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>'
    title = f'<text class="title" x="8" y="24">{TITLE}</text>'
    mark = f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{TOP - 6}" y2="{height - 6}"/>'
    bars = [_bar(*item, unit, TOP + ROW * number) for number, item in enumerate(ordered)]
    return "\n".join([head, f"<style>{STYLE}</style>", page, title, *bars, mark, "</svg>", ""])


def _bar(name: str, ratio: float, unit: float, top: float) -> str:
    kind = "ours" if name.startswith("holyroute") else "base" if ratio == 1 else "peer"
    length = max(1.0, ratio * unit)
    middle = top + ROW * 0.65
    return (
        f'<text x="{LABELS - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{LABELS}" y="{top + 4}" width="{length:.1f}" height="{ROW - 8}" rx="2"/>'
        f'<text x="{LABELS + length + 6:.1f}" y="{middle:.1f}">{ratio:.2f}</text>'
    )
