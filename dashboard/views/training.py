"""Training: what is running, the curves of runs, the gate's decisions, the versions and the stages of the loops.

Reads runs, metrics, versions and stages; the curves and the stages follow the log while something runs.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboard.boundary import guard, may, run_page
from dashboard.charts import CurvePoint, metric_curve, show_chart
from dashboard.choice import choose, run_again_if, was_emptied
from dashboard.format import figures, moment, percent, plural, seconds
from dashboard.job_actions import say_outcome
from dashboard.lineage import difference_table, differences, newest_alike, shared, version_tree
from dashboard.links import GATE_DECISIONS, SCENARIOS, TRAINING, TRAJECTORIES, address
from dashboard.paging import captioned_offset
from dashboard.run_curves import CURVES as KEPT
from dashboard.text import escape, escape_markdown, link, show, show_empty, soft, status_badge, table
from dashboard.version_actions import show_actions
from store.database import Log
from store.figures import VersionFigures, version_figures
from store.run_dialogues import count_run_dialogues, page_of_run_dialogues
from store.runs import RunRecord, list_runs, training_standing, used_by
from store.settings import Settings
from store.stages import StageRecord, list_loops, list_stages, running_loops
from store.traffic import pinned_versions
from store.versions import GateDecision, list_gate_decisions
from store.vocabulary import AccessRole, JobStatus, RunKind, Split

POLL = "4s"
SHOWN_RUNS = 6
PAGE_SIZE = 25
DATA = "run-data"
"""The place of the dialogues of the run that `?data=RUN` names."""
SHOWN_LOOPS = 8
# Metrics that are drawn first, with title and unit; the others follow by name.
CURVES: tuple[tuple[str, str, str], ...] = (
    ("reward_mean", "Mean reward", ""),
    ("loss", "Loss", ""),
    ("entropy", "Entropy", "nats"),
    ("mismatch_kl", "Mismatch KL, sampler to trainer", "nats"),
    ("effective_sample_share", "Effective sample size", "share"),
    ("clipped_share", "Clipped tokens", "share"),
    ("truncated_share", "Truncated importance weights", "share"),
    ("tokens_per_s", "Training speed", "tokens/s"),
)


def show_training(log: Log, settings: Settings) -> None:
    say_outcome()
    runs = list_runs(log)
    loops = list_loops(log)
    versions = version_figures(log)
    if not runs and not loops and not versions:
        show_empty("Nothing has been trained yet", "Play the demo once: cold start, rounds, gate.", "make demo")
        return
    watch(log, training_standing(log))
    if runs:
        follow(show_runs, any(run.status is JobStatus.RUNNING for run in runs), log, runs)
    show_settings_of_two(runs)
    decisions = list_gate_decisions(log)
    if versions:
        show_versions(versions, pinned_versions(log))
        if may(AccessRole.OPERATOR):
            show_actions(log, settings, decisions)
    if decisions:
        show_decisions(decisions)
    shown = [loop.name for loop in loops[-SHOWN_LOOPS:]]
    follow(show_all_stages, not running_loops(log).isdisjoint(shown), log, shown)
    if len(loops) > SHOWN_LOOPS:
        show(soft(f"{plural(len(loops) - SHOWN_LOOPS, 'older loop')} are not shown."))


@st.fragment(run_every=POLL)
def watch(log: Log, seen: tuple[int, ...]) -> None:
    """Draws the page anew when a run, a version or a stage is not as it was; asks one small query meanwhile."""

    def ask() -> None:
        if training_standing(log) != seen:
            st.rerun()

    guard(TRAINING.title, ask)


def follow(show_part: Callable[..., None], busy: bool, *arguments: Any) -> None:
    """A part of the page that is drawn again every few seconds while something in it runs, else stands still."""

    @st.fragment(run_every=POLL if busy else None)
    def draw() -> None:
        guard(TRAINING.title, lambda: show_part(*arguments))

    draw()


def show_all_stages(log: Log, loops: Sequence[str]) -> None:
    for name in loops:
        show_stages(name, list_stages(log, name))


def show_runs(log: Log, runs: Sequence[RunRecord]) -> None:
    st.subheader("Runs", anchor=False)
    newest = list(reversed(runs))
    offset = captioned_offset(f"{plural(len(runs), 'run')}, newest first", len(runs), PAGE_SIZE, "t_page")
    listed = newest[offset : offset + PAGE_SIZE]
    used = used_by(log, [run.id for run in listed])
    learnt = count_run_dialogues(log, [run.id for run in listed])
    rows = [
        (
            status_badge(run.status),
            escape(run.name),
            escape(run.kind),
            escape(run.base_version or "–"),
            _learnt(run, learnt[run.id]) if run.id in learnt else _used(run, used),
            seconds((run.ended_at - run.created_at).total_seconds()) if run.ended_at else "–",
            _settings_or_error(run),
        )
        for run in listed
    ]
    show(table(("status", "run", "kind", "from", "trained on", "took", "settings"), rows, numeric=(5,), fill=True))
    asked = st.query_params.get("data")
    for run in newest:
        if run.name == asked:
            show_data(log, run)
    names = [run.name for run in newest]
    chosen = pick_runs(names, [run.name for run in newest if run.kind == runs[-1].kind][:SHOWN_RUNS])
    show_curves({run.name: KEPT.of(log, run.id) for run in runs if run.name in chosen})


def pick_runs(names: list[str], newest: list[str]) -> list[str]:
    """The runs whose curves are drawn: the newest, also of those that start later, until someone chooses others."""
    offered, key = st.session_state.get("runs-offered"), "runs"
    follows = offered is not None and offered != newest and st.session_state.get(key) == offered
    asked = set(st.query_params.get_all(key)) & set(names)
    if key not in st.session_state and not asked:
        st.query_params[key] = newest  # as dashboard.choice does: a link shows tomorrow what it shows today
        follows = True
    if follows or was_emptied(key):
        st.session_state[key] = newest
    before = st.session_state.get(key, newest)
    st.session_state["runs-offered"] = newest
    chosen = st.multiselect("Curves of", names, key=key, bind="query-params", width=620)
    run_again_if(bool(before) and not chosen, key)  # what the reader chose stands there before the box is drawn
    return chosen


def _used(run: RunRecord, used: dict[int, tuple[int, float]]) -> str:
    if run.id not in used:
        return "–"
    count, nonzero = used[run.id]
    note = soft(f" {percent(nonzero)} with an advantage other than 0")
    return link(plural(count, "dialogue"), address(TRAJECTORIES, run=run.id)) + note


def _learnt(run: RunRecord, counts: Mapping[Split, int]) -> str:
    """What a cold start or a small judge learnt from, with the way to it."""
    noun = "scenario" if run.kind is RunKind.DISTIL else "dialogue"
    place = f"{address(TRAINING, data=run.name)}#{DATA}"
    measured = counts.get(Split.VALIDATION, 0)
    note = soft(f" and {measured:,} to measure on") if measured else ""
    return link(plural(counts.get(Split.TRAIN, 0), noun), place) + note


def show_data(log: Log, run: RunRecord) -> None:
    """The dialogues of a cold start, or the scenarios whose verdicts a small judge learnt."""
    st.subheader(f"What {escape_markdown(run.name)} learnt from", anchor=DATA)
    counts = count_run_dialogues(log, [run.id]).get(run.id, {})
    total = sum(counts.values())
    if not total:
        show(soft("No scenario of it is recorded; what a GRPO run trained on is on Trajectories."))
        return
    what = "Verdicts on dialogues of" if run.kind is RunKind.DISTIL else "The references of"
    offset = captioned_offset(f"{what} {plural(total, 'scenario')}", total, PAGE_SIZE, "d_page")
    rows = [
        (
            "trained on" if one.split is Split.TRAIN else "measured on",
            link(one.name, address(SCENARIOS, opened=one.scenario_hash)),
            escape(one.domain),
            escape(one.source),
            str(one.turns),
        )
        for one in page_of_run_dialogues(log, run.id, limit=PAGE_SIZE, offset=offset)
    ]
    show(table(("", "scenario", "domain", "source", "turns"), rows, numeric=(4,)))


def _settings_or_error(run: RunRecord) -> str:
    settings = figures(run.settings)
    shown = f'<span title="{escape(settings)}">{escape(_short(settings))}</span>'
    return f"{shown}<br><b>{escape(run.error)}</b>" if run.error else shown


def _short(text: str, length: int = 70) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def show_curves(metrics: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    present = {name for of_run in metrics.values() for name in of_run}
    if not present:
        if metrics:
            show(soft("These runs have no metrics yet: the first ones come with the first training step."))
        return
    first = [curve for curve in CURVES if curve[0] in present]
    known = {name for name, _, _ in CURVES}
    rest = [(name, name.replace("_", " ").replace("/", " · "), "") for name in sorted(present - known)]
    _draw(metrics, first or rest)
    # Drawn only for who asks for them: a closed expander's charts would be made and sent each time.
    if first and rest and st.toggle(f"{len(rest)} more curves", key="more", bind="query-params"):
        _draw(metrics, rest)


def _draw(metrics: dict[str, dict[str, list[tuple[int, float]]]], curves: Sequence[tuple[str, str, str]]) -> None:
    with st.grid(columns=4, min_column_width=250, gap="small"):
        for name, title, unit in curves:
            show_chart(metric_curve(_points(metrics, name), title, unit))


def _points(metrics: dict[str, dict[str, list[tuple[int, float]]]], name: str) -> list[CurvePoint]:
    """The runs' values one after another: each run's steps go on where those of the run before it ended."""
    points: list[CurvePoint] = []
    before = 0
    for run, of_run in metrics.items():
        points += [CurvePoint(before + step, value, run, step) for step, value in of_run.get(name, [])]
        before += max((values[-1][0] for values in of_run.values() if values), default=0)
    return points


def show_settings_of_two(runs: Sequence[RunRecord]) -> None:
    """What was set otherwise in one run than in another; the newest two of a kind until someone chooses others."""
    if len(runs) < 2:
        return
    st.subheader("Settings of two runs", anchor=False, help="Only what differs, with seed and base version.")
    names = [run.name for run in reversed(runs)]
    left, right = newest_alike(runs)
    with st.container(horizontal=True):
        left = choose("Settings of", names, left, key="run_a", width=260)
        right = choose("and of", names, right, key="run_b", width=260)
    by_name = {run.name: run for run in runs}
    before, after = by_name[left], by_name[right]
    found = differences(before, after)
    same = plural(shared(before, after), "setting")
    if found:
        show(difference_table(found, before.name, after.name), soft(f"{same} alike"))
    else:
        show(soft(f"All {same} are alike."))


def show_stages(loop: str, stages: Sequence[StageRecord]) -> None:
    if not stages:
        return
    total = sum(stage.seconds or 0.0 for stage in stages)
    done = sum(stage.status == JobStatus.DONE for stage in stages)
    running = any(stage.status == JobStatus.RUNNING for stage in stages)
    label = f"Stages of the loop “{escape_markdown(loop)}”: {done} of {len(stages)} done in {seconds(total)}"
    with st.expander(label, expanded=running):
        show(stage_table(stages))


def stage_table(stages: Sequence[StageRecord]) -> str:
    longest = max((stage.seconds or 0.0 for stage in stages), default=0.0) or 1.0
    rows = [
        (
            status_badge(stage.status),
            escape(stage.key),
            seconds(stage.seconds),
            f'<span class="cl-bar" style="width:{7 * (stage.seconds or 0.0) / longest:.2f}rem"></span>',
            escape(stage.error or _short(figures(stage.result or {}), 110)),
        )
        for stage in stages
    ]
    return table(("status", "stage", "took", "", "result"), rows, numeric=(2,), fill=True)


def show_versions(versions: Sequence[VersionFigures], pins: Mapping[str, str]) -> None:
    st.subheader("Versions", anchor=False, help="Each below the one that it was trained from.")
    show(version_tree(versions, pins, datetime.now(UTC)))


def show_decisions(decisions: Sequence[GateDecision]) -> None:
    note = "A candidate goes live only if it passes against the live one."
    st.subheader("Gate decisions", anchor=GATE_DECISIONS, help=note)
    asked = st.query_params.get("gate")
    rows = [
        (
            status_badge(decision.outcome),
            f"{'▶ ' if str(decision.id) == asked else ''}<b>{escape(decision.candidate)}</b> "
            f"against {escape(decision.live)}",
            escape(moment(decision.created_at)),
            escape(decision.reason),
            escape(figures(decision.figures)),
        )
        for decision in reversed(decisions)
    ]
    show(table(("decision", "candidate", "when (UTC)", "reason", "figures"), rows, fill=True))


run_page(TRAINING.title, show_training)
