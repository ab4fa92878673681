"""The report's colours. Figures are drawn in stand-ins that become CSS variables: one drawing suits light and dark."""

from __future__ import annotations

import re

INK, MUTED, RULE, TEXT, CODE = "#010101", "#020202", "#030303", "#040404", "#050505"
LIGHT = {
    "ink": "#1d2126", "muted": "#69727d", "rule": "#dfe2e6", "paper": "#ffffff", "wash": "#f6f7f8",
    "text": "#1f5f8b", "code": "#b5651d", "better": "#1f7a6b", "worse": "#b4472e",
}  # fmt: skip
DARK = {
    "ink": "#e6e8eb", "muted": "#98a1ac", "rule": "#343a42", "paper": "#15181c", "wash": "#1d2126",
    "text": "#7fb8e0", "code": "#e2a05f", "better": "#5bbfa9", "worse": "#e58468",
}  # fmt: skip
_NAMES = {INK: "ink", MUTED: "muted", RULE: "rule", TEXT: "text", CODE: "code"}
_RAMP_LIGHT = ("#8a97a6", "#3d7ea6", "#12805c", "#b07d12", "#b5491d", "#7d1f4d")
_RAMP_DARK = ("#9aa7b6", "#6db3e0", "#4cc197", "#e0b34a", "#ee8a5c", "#d77aa8")
_RAMP_STAND_IN = "#06{:02d}00"
SERIES = len(_RAMP_LIGHT)


def series(index: int, count: int) -> str:
    """The stand-in colour of one of `count` groups in order: a ramp from grey over blue and green to red."""
    place = index if count <= SERIES else round(index * (SERIES - 1) / max(1, count - 1))
    return _RAMP_STAND_IN.format(place)


def css_variables(dark: bool) -> dict[str, str]:
    """Variable name → colour, for the style sheet."""
    ramp = _RAMP_DARK if dark else _RAMP_LIGHT
    return (DARK if dark else LIGHT) | {f"series-{index}": colour for index, colour in enumerate(ramp)}


def with_variables(svg: str) -> str:
    """The drawing with every stand-in replaced by its CSS variable."""
    return _replace(svg, {name: f"var(--{name})" for name in css_variables(dark=False)})


def with_light_colours(svg: str) -> str:
    """The drawing with every stand-in replaced by its light colour, to stand alone in a file."""
    return _replace(svg, css_variables(dark=False))


def _replace(svg: str, values: dict[str, str]) -> str:
    stand_ins = dict(_NAMES) | {_RAMP_STAND_IN.format(index): f"series-{index}" for index in range(SERIES)}
    return re.sub("|".join(stand_ins), lambda match: values[stand_ins[match.group()]], svg)
