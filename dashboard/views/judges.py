"""Judges: how far they agree with people, with checks, with themselves and with each other, and what they cost.

Reads store.agreement and store.model_calls; what is measured is in reward/, as for `checkloop judge agreement`. Every
choice stands in the address.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.boundary import counted, guard, may, run_page
from dashboard.choice import choose
from dashboard.format import plural
from dashboard.job_offers import offer_job
from dashboard.judge_tables import agreement_rows, cost_rows, disagreement_rows, drift_rows, flip_rows, judge_name
from dashboard.links import JUDGES, REVIEW
from dashboard.text import advice, show, show_empty, soft
from reward.agreement import Agreement, measure_agreement, measure_by
from reward.stability import DriftLine, FlipRate, measure_drift, measure_flips
from store.agreement import (
    JudgeId,
    Pair,
    Repeat,
    anchor_verdicts,
    judges_of,
    pairs_of_judges,
    pairs_with_checks,
    pairs_with_people,
    repeated_verdicts,
)
from store.database import Log
from store.model_calls import call_totals
from store.played import words_of
from store.review_queues import any_judged
from store.review_samples import ANCHORS, review_batches
from store.settings import Settings
from store.vocabulary import AccessRole, JobKind, Outcome, Period

SEED = 1
RANDOM, REVIEWED, CHECKS = "people, random share", "people, all reviewed", "code checks"
WHOLE = "judge alone"
STRATA = {WHOLE: None, "item kind": "kind", "channel": "channel", "version": "version"}
SHOWN = 20
ALL = "all"
ANCHOR_TURNS = 50

MEANING = {
    RANDOM: "Turns drawn at random that a person has gone through item by item: these figures are unbiased.",
    REVIEWED: "All turns that people said something about: biased towards what was put up for review.",
    CHECKS: "Items that carry a check, which the LLM judged beside: `checkloop judge --calibrate`.",
}
WHAT_TO_DO = {
    RANDOM: ("No randomly drawn turn has been gone through", "checkloop judge sample"),
    REVIEWED: ("No person has judged what a judge has", "checkloop judge say TRAJECTORY TURN ITEM PASS --person NAME"),
    CHECKS: ("No LLM has judged an item that carries a check", "checkloop judge --calibrate"),
}

JOBS_TO_DO: dict[str, tuple[str, JobKind, dict[str, Any]]] = {
    RANDOM: ("Put turns up for review", JobKind.SAMPLE, {}),
    CHECKS: ("Let the LLM judge what checks decide", JobKind.JUDGE, {"calibrate": True}),
}


def show_judges(log: Log, settings: Settings) -> None:
    judges = counted(log, judges_of)
    totals = counted(log, call_totals)
    reviewed = counted(log, agreement_of, against=REVIEWED, by=None)
    if not judges and not totals and not reviewed:
        if any_judged(log):
            hint = "Code checks have decided all there is. Name an LLM judge under [judge] in checkloop.toml, then:"
            show_empty("No judge has spoken yet", hint, "checkloop judge")
        else:
            show_empty("Nothing is judged yet", "Play the demo once; code checks judge it.", "make demo")
        offer_job(log, "Judge what is logged", JobKind.JUDGE, {}, "offer-judge")
        return
    guard("Agreement", lambda: show_agreement(log))
    guard("Two judges", lambda: show_two(log, list(judges)))
    guard("Flips and drift", lambda: show_stability(log))
    st.subheader("Cost", anchor=False, help="Every call to a judge, annotator, simulator or user that the log holds.")
    if totals:
        show(cost_rows(totals))
    else:
        show(soft("No call to a model has been recorded."))


def show_agreement(log: Log) -> None:
    st.subheader("Agreement", anchor=False, help="Under each figure: its 95 % bootstrap interval over dialogues.")
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        known = next((one for one in MEANING if counted(log, agreement_of, against=one, by=None)), RANDOM)
        against = choose("Held against", list(MEANING), known, key="against", width=220)
        by = st.selectbox("By", list(STRATA), key="by", bind="query-params", width=160)
    rows = counted(log, agreement_of, against=against, by=STRATA[by])
    if not rows:
        show_empty(WHAT_TO_DO[against][0], MEANING[against], WHAT_TO_DO[against][1])
        if against in JOBS_TO_DO:
            offer_job(log, *JOBS_TO_DO[against], "offer-agreement")
        else:
            st.page_link(REVIEW.target, label="Review turns", icon=REVIEW.icon)
        return
    show(advice(MEANING[against]))
    show(agreement_rows(rows, ("judge",) if by == WHOLE else ("judge", by)))


def agreement_of(log: Log, *, against: str, by: str | None) -> dict[tuple[str, ...], Agreement]:
    """Every judge against people or checks; with `by` (a field of Pair) each of its values apart."""
    pairs = pairs_with_checks(log) if against == CHECKS else pairs_with_people(log)
    if against == RANDOM:
        pairs = [pair for pair in pairs if pair.unbiased]

    def key(pair: Pair) -> tuple[str, ...]:
        name = judge_name(JudgeId(pair.judge, pair.prompt))
        return (name,) if by is None else (name, str(getattr(pair, by)))

    return measure_by(pairs, key, SEED)


def show_two(log: Log, judges: Sequence[JudgeId]) -> None:
    st.subheader("Two judges on the same turns", anchor=False)
    if len(judges) < 2:
        show(
            advice("Only one LLM judge has spoken. `checkloop judge --beside --model NAME` lets another one speak too.")
        )
        offer_another_judge(log)
        return
    names = [judge_name(judge) for judge in judges]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = choose("One judge", names, names[0], key="first", width=330)
        second = choose("and another", names, names[1], key="second", width=330)
    if first == second:
        show(soft("Choose two different judges."))
        return
    chosen = {"first": judges[names.index(first)], "second": judges[names.index(second)]}
    agreement, differing, some = counted(log, compare_two, **chosen)
    if agreement is None:
        show(soft("They have no turn in common."))
        return
    show(agreement_rows({(second,): agreement}, (f"held against {first}",)))
    if differing:
        show(soft(f"They differ on {plural(differing, 'item')}; the newest {len(some)}:"))
        questions = {number: words.question for number, words in words_of(log, (p.item_id for p in some)).items()}
        show(disagreement_rows(some, questions, first, second))


def offer_another_judge(log: Log) -> None:
    """Another model at the judge's endpoint, beside the one that counts."""
    if not may(AccessRole.OPERATOR):
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        model = st.text_input(
            "Another model at the judge's endpoint", key="other-model", bind="query-params", max_chars=128, width=330
        )
        if model.strip():
            payload = {"beside": True, "model": model.strip(), "limit": 200}
            offer_job(log, "Let it judge 200 dialogues beside", JobKind.JUDGE, payload, "offer-beside")


def compare_two(log: Log, *, first: JudgeId, second: JudgeId) -> tuple[Agreement | None, int, list[Pair]]:
    """The second judge held against the first: agreement (None: no turn in common), on how many items they differ, and
    the newest of those. The pairs themselves are not kept: on a large log there are hundreds of thousands."""
    pairs = pairs_of_judges(log, first, second)
    differing = [pair for pair in pairs if {pair.reference, pair.judged} == {Outcome.PASS, Outcome.FAIL}]
    return measure_agreement(pairs, SEED) if pairs else None, len(differing), differing[-SHOWN:][::-1]


def show_stability(log: Log) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Flips", anchor=False, help="How often a judge that is asked the same again says something else.")
        flips = counted(log, flips_of)
        if flips:
            show(flip_rows(flips))
        else:
            show(soft("No LLM judge has been asked the same twice: set judging.draws above 1."))
            again = {"beside": True, "draws": 3, "limit": 50}
            hint = "What it says then does not count."
            offer_job(log, "Ask three times, in the newest 50 dialogues", JobKind.JUDGE, again, "offer-flips", hint)
    with right:
        st.subheader("Drift", anchor=False, help="A judge over time on the anchor set, a fixed set of turns.")
        periods = [period.value for period in Period]
        per = st.segmented_control(
            "Per", periods, default=Period.WEEK.value, required=True, key="per", bind="query-params"
        )
        lines = counted(log, drift_of, per=Period(per))
        if lines:
            show(drift_rows(lines))
        else:
            show(advice("No judge has judged the anchor set twice: `checkloop judge sample --anchors 50` fixes one."))
        if ANCHORS in {batch.name for batch in review_batches(log)}:
            once_more = {"beside": True, "anchors": True, "fresh": True}
            hint = "What it says then does not count."
            offer_job(log, "Judge the anchor set again", JobKind.JUDGE, once_more, "offer-anchors", hint)
        else:
            hint = "Once: the turns stay the same from then on."
            offer_job(log, "Fix the anchor set", JobKind.SAMPLE, {"anchors": ANCHOR_TURNS}, "offer-anchors", hint)


def flips_of(log: Log) -> dict[str, FlipRate]:
    """By judge."""
    by_judge: dict[str, list[Repeat]] = {}
    for repeat in repeated_verdicts(log):
        by_judge.setdefault(judge_name(JudgeId(repeat.judge, repeat.prompt)), []).append(repeat)
    return {name: measure_flips(by_judge[name], SEED) for name in sorted(by_judge)}


def drift_of(log: Log, *, per: Period) -> list[DriftLine]:
    return measure_drift(anchor_verdicts(log), per, SEED)


run_page(JUDGES.title, show_judges)
