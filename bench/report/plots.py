"""Bar charts as SVG, so that a page needs no drawing library and a plot is a few kB of text.

Must not know: what the bars stand for.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

_WIDTH: Final = 760
_LABEL: Final = 300  # px of it for names
_VALUE: Final = 90
_ROW: Final = 24
_TOP: Final = 40
_COLOURS: Final = ("#2b6cb0", "#a0aec0")
_FONT: Final = "font-family='sans-serif' font-size='13'"


def bars(title: str, rows: Sequence[tuple[str, float, str]], *, ours: frozenset[int] = frozenset()) -> str:
    """A bar for each ``(name, value, value as text)``; those numbered in ``ours`` are coloured."""
    height = _TOP + _ROW * len(rows) + 10
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    room = _WIDTH - _LABEL - _VALUE
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{height}' viewBox='0 0 {_WIDTH} {height}'>",
        f"<title>{escape(title)}</title><rect width='100%' height='100%' fill='white'/>",
        f"<text x='10' y='24' font-family='sans-serif' font-size='15' font-weight='bold'>{escape(title)}</text>",
    ]
    for number, (name, value, shown) in enumerate(rows):
        top, length = _TOP + _ROW * number, max(room * value / longest, 1.0)
        colour = _COLOURS[0 if number in ours else 1]
        lines += [
            f"<text x='{_LABEL - 8}' y='{top + 16}' text-anchor='end' {_FONT}>{escape(name)}</text>",
            f"<rect x='{_LABEL}' y='{top + 3}' width='{length:.1f}' height='{_ROW - 6}' fill='{colour}'/>",
            f"<text x='{_LABEL + length + 6:.1f}' y='{top + 16}' {_FONT}>{escape(shown)}</text>",
        ]
    return "\n".join([*lines, "</svg>\n"])
