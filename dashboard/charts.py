"""Charts as pure functions from plain records to Altair charts.

A rate is drawn as a point with its 95 % interval and, beside it, the number of verdicts it stands on and the share that
could not be judged.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import altair as alt
import streamlit as st
from altair.utils import schemapi

from dashboard.theme import ACCENT, NEUTRAL

# Altair would hold each object that is made against Vega-Lite's schema, which takes ten times as long as making it; the
# tests do so once for every chart.
schemapi.disable_debug_mode()


@dataclass(frozen=True)
class RatePoint:
    """A rate in [0, 1] with its interval. `judged` counts PASS and FAIL; `coverage` is their share of all verdicts."""

    label: str
    rate: float
    low: float
    high: float
    judged: int
    coverage: float
    series: str = ""
    dialogues: str = ""
    """How many of the eligible dialogues are judged, or why that is not counted."""


@dataclass(frozen=True)
class RewardPoint:
    """A mean reward in [0, 1] of one evaluation batch, with its bootstrap interval over `dialogues`."""

    label: str
    domain: str
    mean: float
    low: float
    high: float
    dialogues: int


@dataclass(frozen=True)
class CurvePoint:
    """One value of a metric. `place` counts the steps of all runs shown, `step` those of its own run, `series`."""

    place: int
    value: float
    series: str
    step: int


def show_chart(chart: alt.Chart | alt.LayerChart) -> None:
    """As `st.altair_chart`, but its rows are handed over as they are, for Altair copies them one by one.

    Under a name that says what they are, as Altair does it: with no name, or the same for other rows, the browser may
    keep the chart that it drew before they came, empty or with a version "undefined".
    """
    if isinstance(chart, alt.LayerChart):  # of few rows; handed over like the others it stays empty
        if "to_dict" not in vars(chart):
            object.__setattr__(chart, "to_dict", partial(_spec_again, cache(partial(_spec, chart))))
        st.altair_chart(chart)
        return
    rows, chart.data = chart.data["values"], alt.Undefined
    spec = chart.to_dict(validate=False)
    spec.pop("config", None)  # of Altair's own theme; Streamlit has its own
    name = hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:32]
    st.vega_lite_chart(spec | {"data": {"name": name}, "datasets": {name: rows}})


def _spec(chart: alt.LayerChart) -> dict[str, Any]:
    spec: dict[str, Any] = alt.LayerChart.to_dict(chart, validate=False)
    return spec


def _spec_again(made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Streamlit changes what it is given; the chart itself may be drawn for others."""
    return deepcopy(made())


def _rows(points: Sequence[CurvePoint]) -> alt.Data:
    return alt.Data(values=[dict(vars(point)) for point in points])


LABELLED = 12
"""Points that their rate and count are written over; over more of them the texts would lie on one another."""


def _rate_tooltip(label: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("label:N", title=label),
        alt.Tooltip("rate:Q", title="pass rate", format=".1%"),
        alt.Tooltip("low:Q", title="95 % interval from", format=".1%"),
        alt.Tooltip("high:Q", title="to", format=".1%"),
        alt.Tooltip("judged:Q", title="judged verdicts", format=","),
        alt.Tooltip("unscored:Q", title="UNSCORED", format=".1%"),
        alt.Tooltip("dialogues:N", title="eligible dialogues judged"),
    ]


@lru_cache(maxsize=32)
def rates_over_versions(points: tuple[RatePoint, ...]) -> alt.LayerChart:
    """Pass rate against version, joined by a line, with 95 % intervals. Shared: never change it."""
    order = list(dict.fromkeys(point.label for point in points))
    axis = alt.Axis(labelAngle=0 if len(order) <= LABELLED else -45, labelOverlap=True, grid=False)
    return _rates(points, alt.X("label:N", sort=order, title=None, axis=axis), "version")


@lru_cache(maxsize=32)
def rates_over_days(points: tuple[RatePoint, ...]) -> alt.LayerChart:
    """Pass rate against the day on which dialogues began, in UTC, each at its place in time. Labels: "2026-05-14".
    Shared: never change it."""
    axis = alt.Axis(format="%d %b %Y", labelOverlap=True, tickCount=8, grid=False)
    return _rates(points, alt.X("day:T", title=None, axis=axis, scale=alt.Scale(type="utc", padding=12)), "day (UTC)")


def _rates(points: Sequence[RatePoint], place: alt.X, label: str) -> alt.LayerChart:
    rows = [vars(point) | {"unscored": 1 - point.coverage, "day": point.label} for point in points]
    base = alt.Chart(alt.Data(values=rows)).encode(x=place, tooltip=_rate_tooltip(label))
    rate = alt.Y(
        "rate:Q",
        title=None,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(tickCount=5, grid=True, labelExpr="format(100 * datum.value, '.0f') + ' %'"),
    )
    few = len(points) <= LABELLED
    line = base.mark_line(color=ACCENT, opacity=0.35, strokeWidth=2).encode(y=rate)
    bars = base.mark_rule(color=ACCENT, strokeWidth=3 if few else 1.5, opacity=0.55).encode(
        y=alt.Y("low:Q"), y2=alt.Y2("high:Q")
    )
    dots = base.mark_point(color=ACCENT, filled=True, size=95 if few else 40, opacity=1).encode(y=rate)
    layers: list[alt.Chart] = [line, bars, dots]
    if few:
        notes = base.transform_calculate(
            rate_note="format(100 * datum.rate, '.0f') + ' %'",
            count_note="'of ' + format(datum.judged, ',')"
            " + (datum.coverage < 1 ? ' · ' + format(100 - 100 * datum.coverage, '.1f') + ' % unscored' : '')",
        )
        bold = notes.mark_text(dy=-21, fontSize=13, fontWeight=600, color=NEUTRAL)
        small = notes.mark_text(dy=-8, fontSize=11, color=NEUTRAL)
        for texts, what in ((bold, "rate_note:N"), (small, "count_note:N")):
            layers.append(texts.encode(y=alt.Y("high:Q"), text=alt.Text(what)))
    return alt.layer(*layers).properties(height=360)


def metric_curve(points: Sequence[CurvePoint], title: str, unit: str = "") -> alt.Chart:
    """A metric over the training steps of one or more runs; several are told apart by colour and by dashes."""
    runs = list(dict.fromkeys(point.series for point in points))
    legend = alt.Legend(title=None, orient="bottom", columns=1, labelLimit=190, symbolSize=120)
    several = len(runs) > 1
    color = alt.Color("series:N", sort=runs, legend=legend) if several else alt.value(ACCENT)
    dash = alt.StrokeDash("series:N", sort=runs, legend=legend) if several else alt.value([1, 0])
    return (
        alt.Chart(_rows(points), title=alt.TitleParams(title, anchor="start", fontSize=13, fontWeight=600))
        .mark_line(point=alt.OverlayMarkDef(size=28, filled=True), strokeWidth=2)
        .encode(
            x=alt.X(
                "place:Q", title="training step", axis=alt.Axis(tickMinStep=1, format="d", grid=False, titleFontSize=11)
            ),
            y=alt.Y("value:Q", title=unit or None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4)),
            color=color,
            strokeDash=dash,
            tooltip=[
                alt.Tooltip("series:N", title="run"),
                alt.Tooltip("step:Q", title="step"),
                alt.Tooltip("value:Q", title=title, format=".4g"),
            ],
        )
        # The height is the plot's: of a whole chart that has to fit, title, axis and legend leave it none.
        .properties(height=120, autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
    )
