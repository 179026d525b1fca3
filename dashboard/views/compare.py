"""Compare: two policy versions on the same scenarios: which is better, where it got worse, and why.

Reads store.played through reward.comparison. The address says which versions, which scenarios and which dialogues.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.boundary import counted, run_page
from dashboard.choice import choose
from dashboard.comparing import (
    Side,
    default_versions,
    dialogue_link,
    difference_rows,
    item_change_rows,
    left_out_note,
    outcome_rows,
    pair_rows,
    paired_note,
    side_by_side,
    verdict_on,
)
from dashboard.format import percent, plural
from dashboard.links import COMPARE
from dashboard.paging import page_offset
from dashboard.text import chip, escape, show, show_empty, soft
from dashboard.theme import change_of_metric
from reward.comparison import ScenarioPair, VersionComparison, by_dialogue, compare_versions
from reward.intervals import PairedInterval
from store.browsing import sampled_arguments, step_figures
from store.database import Log
from store.figures import facets
from store.played import PlayedDialogue, outcomes_of, versions_that_played, words_of
from store.settings import Settings
from store.turns import get_turns
from store.versions import live_version, predecessors_of
from store.vocabulary import Origin, Split

ALL = "all"
PAGE_SIZE = 20
SHOWN_ITEMS = 15


def show_compare(log: Log, settings: Settings) -> None:
    before = after = ""
    split = domain = None
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        origins = [Origin.EVALUATION.value, Origin.ROLLOUT.value]
        origin = Origin(st.selectbox("Played as", origins, key="c_origin", bind="query-params", width=140))
        versions = counted(log, versions_that_played, origin=origin)
        live = live_version(log)
        before_newest = predecessors_of(log, versions[-1]) if versions else []
        pair = default_versions(versions, live.name if live else None, before_newest)
        if pair is not None:
            before = choose("Before", versions, pair[0], key="c_before", width=120)
            after = choose("After", versions, pair[1], key="c_after", width=120)
            split = _pick("Split", "c_split", [split.value for split in Split], 130)
            domain = _pick("Domain", "c_domain", list(counted(log, facets).domains), 160)
    if pair is None:
        hint = f"Two versions must have played the same scenarios ({origin}). The demo plays them before and after."
        show_empty("There are no two versions to compare yet", hint, "make demo")
        return
    found = counted(
        log,
        compare_versions,
        before=before,
        after=after,
        origin=origin,
        split=Split(split) if split else None,
        domain=domain,
    )
    asked = {"c_origin": origin.value, "c_before": before, "c_after": after}
    asked |= {name: value for name, value in (("c_split", split), ("c_domain", domain)) if value}
    chosen = next((p for p in found.pairs if p.scenario_hash == st.query_params.get("scenario")), None)
    if found.all is None:
        hint = f"Play the same scenarios with both: queue `evaluate version={before}` and `evaluate version={after}`."
        show_empty(f"{before} and {after} share no judged scenario", hint)
    elif chosen is not None:
        show_scenario(log, found, chosen)
    else:
        show_whole(found, asked)


def _pick(label: str, key: str, values: Sequence[str], width: int) -> str | None:
    value = st.selectbox(label, [ALL, *values], key=key, bind="query-params", width=width)
    return None if value == ALL else str(value)


def show_whole(found: VersionComparison, asked: dict[str, str]) -> None:
    assert found.all is not None
    whole = found.all
    show(f'<div class="cl-title">{escape(verdict_on(whole, found.before, found.after))}</div>')
    with st.grid(columns=4, min_column_width=210, gap="small", key="headline"):
        of = "Mean over {} of the difference of {}, in points of 100, with its 95 % bootstrap interval."
        scenarios = plural(whole.scenarios, "scenario")
        st.metric(
            "Paired difference",
            f"{100 * whole.difference:+.1f} points",
            ends(whole.interval),
            delta_description=f"{whole.before_mean:.3f} → {whole.after_mean:.3f}",
            help=of.format(scenarios, "their rewards (equation 4)"),
            **change(whole.interval),
        )
        st.metric(
            "Fully passed dialogues",
            percent(whole.passed_after),
            f"{100 * (whole.passed_after - whole.passed_before):+.1f} points {ends(whole.passed_interval)}",
            help=of.format(scenarios, "the shares of their dialogues in which every item of every turn passed"),
            **change(whole.passed_interval),
        )
        same = whole.scenarios - whole.better - whole.worse
        st.metric("Scenarios better · worse", f"{whole.better} · {whole.worse}", f"{same} the same", **_grey())
        gained, lost = len(found.gained), len(found.lost)
        st.metric("Items gained · lost", f"{gained} · {lost}", "of items in a scenario", **_grey())
    show(soft(paired_note(found)))
    if note := left_out_note(found.left_out, found.before, found.after):
        show(soft(note))
    st.subheader("By domain", anchor=False, help="Paired difference in points with its 95 % bootstrap interval.")
    show(difference_rows([*found.domains, whole]))
    st.subheader("Scenarios, regressions first", anchor=False)
    offset = page_offset(len(found.pairs), PAGE_SIZE, "c_page")
    shown = found.pairs[offset : offset + PAGE_SIZE]
    show(pair_rows(shown, found.before, found.after, asked))
    lists = (("Items lost", found.lost, "c_lost_page"), ("Items gained", found.gained, "c_gained_page"))
    for title, changes, key in lists:
        if changes:
            st.subheader(f"{title}: {len(changes):,}, the greatest change first", anchor=False)
            first = page_offset(len(changes), SHOWN_ITEMS, key)
            show(item_change_rows(changes[first : first + SHOWN_ITEMS], found.before, found.after, asked))


def ends(interval: PairedInterval | None) -> str:
    """ "[+1.2, +6.0]", in points."""
    if interval is None:
        return "(no interval)"  # the page says above why not
    return f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def change(interval: PairedInterval | None) -> dict[str, Any]:
    return change_of_metric(interval.low, interval.high) | {"border": True} if interval else _grey()


def _grey() -> dict[str, Any]:
    return {"delta_color": "off", "delta_arrow": "off", "border": True}


def open_scenario(scenario_hash: str | None) -> None:
    """The dialogues that were chosen of another scenario give way by themselves."""
    if scenario_hash is None:
        st.query_params.pop("scenario", None)
    else:
        st.query_params["scenario"] = scenario_hash


def show_scenario(log: Log, found: VersionComparison, pair: ScenarioPair) -> None:
    """One dialogue of each version, beside each other."""
    place = found.pairs.index(pair)
    worse = found.pairs[place - 1].scenario_hash if place else None
    better = found.pairs[place + 1].scenario_hash if place + 1 < len(found.pairs) else None
    with st.container(horizontal=True, vertical_alignment="center", key="walk"):
        st.button(
            "All scenarios", icon=":material/arrow_back:", on_click=open_scenario, args=(None,), shortcut="Escape"
        )
        _walk("Previous", worse, "Left")
        _walk("Next", better, "Right")
        st.caption(f"{place + 1} of {len(found.pairs)}, regressions first")
    show(
        f'<div class="cl-title">{escape(pair.scenario)}</div>',
        f'<div class="cl-row">{chip(pair.domain)}{soft(f"{100 * pair.difference:+.0f} points")}'
        f"{'' if pair.same_worlds else soft('played with other seeds: the worlds may differ')}</div>",
    )
    columns = st.columns(2)
    sides = (("left", found.before, pair.before), ("right", found.after, pair.after))
    chosen = []
    for column, (key, version, dialogues) in zip(columns, sides, strict=True):
        with column:
            dialogue = choose_dialogue(key, version, dialogues)
            show(dialogue_link(dialogue.trajectory_id, version, dialogue.value))
        chosen.append(dialogue.trajectory_id)
    show_turns(log, found, chosen[0], chosen[1])


def _walk(label: str, scenario_hash: str | None, key: str) -> None:
    disabled = scenario_hash is None
    st.button(label, on_click=open_scenario, args=(scenario_hash,), disabled=disabled, shortcut=key, key=f"walk-{key}")


def choose_dialogue(key: str, version: str, dialogues: Sequence[PlayedDialogue]) -> PlayedDialogue:
    """The one; where there are several, the worst first."""
    by_id = {one.trajectory_id: one for one in sorted(dialogues, key=lambda one: one.value or 0.0)}
    if len(by_id) == 1:
        return next(iter(by_id.values()))
    names = list(by_id)
    chosen = choose(
        f"Dialogue of {version}",
        names,
        names[0],
        key=key,
        named=lambda name: f"{name} · reward {by_id[name].value or 0.0:.2f}",
    )
    return by_id[chosen]


def show_turns(log: Log, found: VersionComparison, left: str, right: str) -> None:
    """Every turn that one of the dialogues reached, with the verdicts on both sides."""
    turns = [{turn.index: turn for turn in get_turns(log, name)} for name in (left, right)]
    known = [(step_figures(log, name), sampled_arguments(log, name)) for name in (left, right)]
    said = by_dialogue(outcomes_of(log, (left, right)))
    verdicts = (said.get(left, {}), said.get(right, {}))
    words = words_of(log, {item for side in verdicts for item in side})
    for index in sorted({index for side in turns for index in side}):
        st.subheader(f"Turn {index + 1}", anchor=f"turn-{index + 1}")
        show(side_by_side(*(Side(of_one.get(index), *costs) for of_one, costs in zip(turns, known, strict=True))))
        of_turn = [item for item in words.values() if item.turn_index == index]
        if of_turn:
            rows = [(item.question, verdicts[0].get(item.id), verdicts[1].get(item.id)) for item in of_turn]
            show(outcome_rows(rows, found.before, found.after))


run_page(COMPARE.title, show_compare)
