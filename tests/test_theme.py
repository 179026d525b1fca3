"""The look, as numbers: what is written can be read, also by people who see fewer colours."""

import tomllib
from itertools import combinations
from pathlib import Path

import pytest

from dashboard.theme import (
    ACCENT,
    CONTRAST,
    MARKS,
    NEUTRAL,
    STATE_COLORS,
    STATUS_MARKS,
    change_color,
    change_of_metric,
)

CONFIG = tomllib.loads((Path(__file__).parent.parent / "dashboard" / ".streamlit" / "config.toml").read_text())
THEMES = {name: CONFIG["theme"][name] for name in ("light", "dark")}
READABLE = 4.5
"""Of text; WCAG 2.2, 1.4.3."""
SEEN = 3.0
"""Of marks; WCAG 2.2, 1.4.11."""


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


def test_white_can_be_read_on_every_badge() -> None:
    badges = {outcome.value: mark.color for outcome, mark in MARKS.items()}
    badges |= {state.value: color for state, color in STATE_COLORS.items()}
    badges |= {status: color for status, (_, color) in STATUS_MARKS.items()}
    assert {name for name, color in badges.items() if contrast("#FFFFFF", color) < READABLE} == set()


def test_no_two_outcomes_share_their_symbol() -> None:
    assert len({mark.symbol for mark in MARKS.values()}) == len(MARKS)


@pytest.mark.parametrize("name", THEMES)
def test_text_can_be_read_in_both_themes(name: str) -> None:
    theme = THEMES[name]
    grounds = (theme, theme["sidebar"])
    for ground in (one[key] for one in grounds for key in ("backgroundColor", "secondaryBackgroundColor")):
        assert contrast(theme["textColor"], ground) >= READABLE
        assert contrast(theme["linkColor"], ground) >= READABLE
    for text in ("blueTextColor", "orangeTextColor"):
        # On a tile, and on the tint of the same colour that Streamlit puts under a change.
        tint = mixed(theme[text.replace("Text", "")], theme["backgroundColor"], 0.1 if name == "light" else 0.2)
        assert min(contrast(theme[text], theme["backgroundColor"]), contrast(theme[text], tint)) >= READABLE, text
    assert min(contrast(color, theme["backgroundColor"]) for color in (ACCENT, CONTRAST, NEUTRAL)) >= SEEN


def mixed(color: str, ground: str, share: float) -> str:
    parts = [(int(color[n : n + 2], 16), int(ground[n : n + 2], 16)) for n in (1, 3, 5)]
    return "#" + "".join(f"{round(share * over + (1 - share) * under):02X}" for over, under in parts)


def seen_without_red_or_green(color: str, kind: str) -> tuple[float, float, float]:
    """As a person without the red or the green cones sees it, in linear RGB.

    Source: F. Viénot, H. Brettel and J. D. Mollon, Color Research & Application 24 (1999).
    """
    parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    if kind == "protan":
        yellow = 0.11238 * red + 0.88762 * green
        return yellow, yellow, 0.00401 * red - 0.00401 * green + blue
    yellow = 0.29275 * red + 0.70725 * green
    return yellow, yellow, -0.02234 * red + 0.02234 * green + blue


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_better_worse_and_neither_stay_apart_for_colour_blind_people(kind: str) -> None:
    colors = [seen_without_red_or_green(color, kind) for color in (ACCENT, CONTRAST, NEUTRAL)]
    for one, other in combinations(colors, 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 0.15


def test_a_change_looks_alike_in_tiles_and_in_rows() -> None:
    assert (change_color(0.01, 0.2), change_color(-0.2, -0.01), change_color(-0.1, 0.1)) == (ACCENT, CONTRAST, NEUTRAL)
    assert change_of_metric(0.01, 0.2) == {"delta_color": "blue", "delta_arrow": "up"}
    assert change_of_metric(-0.2, -0.01) == {"delta_color": "orange", "delta_arrow": "down"}
    assert change_of_metric(-0.1, 0.1) == {"delta_color": "gray", "delta_arrow": "off"}
    assert THEMES["light"]["blueColor"] == ACCENT
    assert {theme["orangeColor"] for theme in THEMES.values()} == {CONTRAST}
