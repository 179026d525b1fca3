"""The tokens of a trajectory's steps: what was sampled, with logprobs and advantages, and what each prompt added.

Reads the log. Ids come from it (invariant 1); a page draws `SHOWN` of them at once, whatever a step's length.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from dashboard.format import plural
from dashboard.paging import captioned_offset
from dashboard.text import escape, show, show_empty, soft, table
from dashboard.token_heat import SHOWN, TokenText, heat_html, plain_html, token_text
from store.branches import Branch
from store.browsing import StepFigures
from store.database import Log, LogError
from store.runs import RunUse, uses_of
from store.settings import Settings
from store.tokens import StepIds, TokenSequence, ids_of_steps, token_sequences
from store.trajectories import TrajectorySummary
from store.versions import get_version
from train.errors import TrainingFailed
from train.groups import level_of, load_groups_by_id, token_advantages

Advantages = Mapping[tuple[int, int], float]
"""By (turn, step)."""


def show_tokens(
    log: Log,
    settings: Settings,
    summary: TrajectorySummary,
    branch: Branch | None,
    figures: Mapping[tuple[int, int], StepFigures],
) -> None:
    """Every step's tokens as heat, with its mean logprob, time and advantage; one step is opened at a time."""
    if branch is None:
        show_empty("Nothing was sampled yet", "The dialogue has no step.")
        return
    steps = ids_of_steps(log, branch.steps)
    uses = uses_of(log, summary.id)
    advantages, whence = advantages_of(log, settings, summary, branch, uses)
    rows = []
    for step in steps:
        cost = figures.get((step.turn_index, step.step_index))
        advantage = advantages.get((step.turn_index, step.step_index))
        rows.append(
            [
                _name(step),
                escape(step.version),
                f"{len(step.delta_ids):,}",
                f"{len(step.sampled_ids):,}",
                f"{statistics.fmean(step.logprobs):.3f}" if step.logprobs else "–",
                f"{min(step.logprobs):.2f}" if step.logprobs else "–",
                f"{cost.latency_ms:,.0f}" if cost else "–",
                "–" if advantage is None else f"{advantage:+.3f}",
            ]
        )
    head = ("Step", "Version", "New in prompt", "Sampled", "Mean logprob", "Lowest", "ms", "Advantage")
    show(table(head, rows, numeric=(2, 3, 4, 5, 6, 7)))
    said = "; ".join(use_note(use, steps) for use in uses)
    show(soft(f"Advantage {whence}. Trained on by {said or 'no run'}."))
    names = [_name(step) for step in steps]
    chosen = st.selectbox("Step", names, key="step", bind="query-params", width=120)
    show_step(log, steps[names.index(chosen)] if chosen in names else steps[0])


def show_step(log: Log, step: StepIds) -> None:
    """What it sampled as heat; what its prompt added, for who asks for it."""
    text_of = _text_of(log, step.version)
    if text_of is None:
        show(soft(f"The files of {step.version} are not on this machine: tokens are shown as their ids."))

    def heat(start: int, end: int) -> str:
        return heat_html(step.sampled_ids[start:end], step.logprobs[start:end], text_of)

    _paged("sampled", len(step.sampled_ids), "s_page", heat)
    show(soft("The stronger the colour, the less likely the token was to the policy. Hover for its figures."))
    added = plural(len(step.delta_ids), "token")
    if st.toggle(f"Its prompt: {added} that are new to its context", key="prompt", bind="query-params"):
        _paged("new", len(step.delta_ids), "p_page", lambda start, end: plain_html(step.delta_ids[start:end], text_of))
        show(soft("The context before them is that of the step that it goes on from: its prompt and what it sampled."))


def _paged(what: str, count: int, key: str, draw: Callable[[int, int], str]) -> None:
    start = captioned_offset(f"{plural(count, 'token')} {what}", count, SHOWN, key) if count > SHOWN else 0
    show(draw(start, start + SHOWN))


def _name(step: StepIds) -> str:
    return f"{step.turn_index + 1}.{step.step_index + 1}"


def advantages_of(
    log: Log, settings: Settings, summary: TrajectorySummary, branch: Branch, uses: Sequence[RunUse]
) -> tuple[Advantages, str]:
    """As the newest run trained with them, else by the settings of today; and whence they are known, or why there are
    none."""
    if branch.parts_at is not None:
        return {}, "none: runs train on the newest branch"
    if (trained := trained_advantages(uses)) is not None:
        return trained
    sequence = token_sequences(log, [summary.id])[summary.id]
    return step_advantages(log, settings, summary, sequence)


def trained_advantages(uses: Sequence[RunUse]) -> tuple[Advantages, str] | None:
    """What the newest run trained each step with, and whence that is known; None if no run says so."""
    known = [use for use in uses if use.by_step is not None]
    if not known or known[-1].by_step is None:
        return None
    by_place = {(turn, step): value for turn, step, value in known[-1].by_step}
    return by_place, f"as {known[-1].run} trained with it (of its {known[-1].level})"


def use_note(use: RunUse, steps: Sequence[StepIds]) -> str:
    """The mean advantage over the tokens that a run trained on, and the dialogue's place in its group."""
    place = f"{use.advantage:+.3f} by equation 5"
    if use.by_step is None:
        return f"{use.run}: {place}, what it trained with is not recorded"
    counts = {(step.turn_index, step.step_index): len(step.sampled_ids) for step in steps}
    tokens = sum(counts.get((turn, step), 0) for turn, step, _ in use.by_step)
    if not tokens:
        return f"{use.run}: {place}, no token of it was trained on"
    mean = sum(value * counts.get((turn, step), 0) for turn, step, value in use.by_step) / tokens
    return f"{use.run}: {mean:+.3f} a token, of its {use.level} ({place})"


def step_advantages(
    log: Log, settings: Settings, summary: TrajectorySummary, sequence: TokenSequence
) -> tuple[Advantages, str]:
    """What training would pay each step with today's settings, and why there is none where there is none."""
    today = "by the settings of today"
    if summary.group_id is None:
        return {}, f"{today}: none, it was not played in a group"
    try:
        (group,) = load_groups_by_id(log, [summary.group_id], step_level=settings.grpo.advantage == "step")
        of_members = token_advantages(group, settings.grpo)
    except TrainingFailed as error:
        return {}, f"{today}: none, {error}"
    place = next(n for n, member in enumerate(group.members) if member.trajectory_id == summary.id)
    of_tokens = of_members[place]
    if of_tokens is None:
        return {}, f"{today}: none, {group.members[place].excluded_reason or 'its group gives no baseline'}"
    found: dict[tuple[int, int], float] = {}
    for ordinal, value, scored in zip(sequence.step_of_token, of_tokens, group.members[place].in_loss, strict=True):
        if ordinal >= 0 and scored:
            found[sequence.steps[ordinal][:2]] = value
    return found, f"{today} (of its {level_of(settings.grpo)})"


def _text_of(log: Log, version: str) -> TokenText | None:
    try:
        return token_text(get_version(log, version).path)
    except LogError:
        return None
