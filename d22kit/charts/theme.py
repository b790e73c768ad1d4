"""One theme: its colours and its configuration, in light and in dark."""

from __future__ import annotations

import json
from typing import Any

__all__ = [
    "ACCENT",
    "DARK",
    "GREY",
    "PALETTE",
    "PAPER",
    "RAMP",
    "config",
    "darkened",
]

PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#6B2358", "#8A73FF",
    "#4A2A00", "#C2649A", "#14215C", "#7A1E3A", "#5C5C00",
)  # fmt: skip
"""For groups, the most frequent first. The first three are Okabe and Ito's (2008); each has a contrast of at
least 3:1 on white (WCAG 2.2, 1.4.11), and any two stay apart under red-green colour blindness."""

GREY = "#686C72"
"""For the pooled rest, and for what no map knows; apart from the palette under red-green colour blindness too."""

ACCENT = PALETTE[1]
"""For what should be looked at."""

RAMP = ("#EDF2F6", "#85B6D6", "#0072B2", "#00314F")
"""From few to many, by lightness alone, so that it prints."""

INK, MUTED, GRID, PAPER = "#1F2328", "#57606A", "#E3E6EA", "#FFFFFE"

DARK = {
    **dict(
        zip(
            PALETTE,
            ("#56B4E9", "#FF8A3D", "#2FC79A", "#8F78FF", "#B2432D",
             "#C2F2B0", "#8FF0E0", "#3A70C0", "#7F6F9F", "#4E8F80"),
            strict=True,
        )
    ),
    GREY: "#9CA0A6",
    RAMP[0]: "#1C2329",
    RAMP[1]: "#25516E",
    RAMP[3]: "#DDF1FF",
    INK: "#F0F2F4",
    MUTED: "#A9B1BA",
    GRID: "#2E343B",
    PAPER: "#14171A",
}  # fmt: skip
"""Each colour of the light theme, and what stands for it on a dark page."""

FONT = "'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', 'Noto Sans', sans-serif"


def config(*, dark: bool = False) -> dict[str, Any]:
    """Return the Vega-Lite configuration of the theme.

    Examples
    --------
    >>> config()["background"], config(dark=True)["background"]
    ('#FFFFFE', '#14171A')
    """
    light = {
        "background": PAPER,
        "font": FONT,
        "padding": 12,
        "axis": {
            "domainColor": GRID,
            "gridColor": GRID,
            "labelColor": MUTED,
            "labelFontSize": 11,
            "labelLimit": 260,
            "labelPadding": 5,
            "ticks": False,
            "titleColor": MUTED,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
        },
        "axisX": {"domainColor": MUTED, "grid": False},
        "axisY": {"domain": False},
        "header": {"labelColor": INK, "labelFontSize": 12, "labelFontWeight": 600, "titleColor": MUTED},
        "legend": {
            "labelColor": INK,
            "labelFontSize": 11,
            "labelLimit": 320,
            "titleColor": MUTED,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
        },
        "range": {"category": [*PALETTE, GREY]},
        "style": {
            "d22kit-note": {"color": MUTED, "fontSize": 11},
            "d22kit-label": {"color": INK, "fontSize": 11},
            "d22kit-rule": {"color": MUTED},
        },
        "title": {
            "anchor": "start",
            "color": INK,
            "fontSize": 16,
            "fontWeight": 600,
            "offset": 14,
            "subtitleColor": MUTED,
            "subtitleFontSize": 12,
            "subtitleLineHeight": 16,
            "subtitlePadding": 5,
        },
        "view": {"stroke": None},
    }
    return darkened(light) if dark else light


def darkened(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a specification of these charts with each colour as it stands on a dark page."""
    text = json.dumps(spec)
    for light, dark in DARK.items():
        text = text.replace(light, dark)
    found: dict[str, Any] = json.loads(text)
    return found
