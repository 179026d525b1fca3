"""A trajectory's figures beside its dialogue: what each item pays, tokens with their logprobs, advantages, promotion.

Reads the log; a chat is promoted through `env_sim.chat_worlds.promote_chat`, as by `checkloop annotate --chat`.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard.boundary import may
from dashboard.format import plural
from dashboard.job_actions import action
from dashboard.job_offers import offer_job
from dashboard.links import SCENARIOS, address
from dashboard.text import badge, chip, escape, link, show, show_empty, soft, table
from dashboard.token_heat import TokenText, heat_html, token_text
from env_sim.chat_worlds import parse_tools, promote_chat
from reward.payments import Payslip, payslip
from store.browsing import StepFigures
from store.database import Log, LogError
from store.runs import RunUse, uses_of
from store.settings import Settings
from store.tokens import TokenSequence, token_sequences
from store.trajectories import TrajectorySummary
from store.versions import get_version
from store.vocabulary import AccessRole, JobKind, Origin
from train.errors import TrainingFailed
from train.groups import level_of, load_groups_by_id, token_advantages

TOOLS = "promote-tools"
LARGEST_TOOLS_MB = 2


@dataclass(frozen=True)
class StepTokens:
    """What one step sampled."""

    turn_index: int
    index: int
    version: str
    ids: Sequence[int]
    logprobs: Sequence[float]
    advantage: float | None
    """As the newest run trained with it; else by the settings of today, None where its group gives none."""


def show_reward(log: Log, summary: TrajectorySummary) -> None:
    """Equation 4 item by item: what it weighs, since which step it holds, what it pays, and why not."""
    slip = payslip(log, summary.id)
    if not slip.turns:
        show_empty("There is no reward to explain", slip.reward.excluded_reason or "It was not judged.")
        return
    show(soft(reward_note(slip)))
    if slip.stored is not None and slip.stored.value != slip.reward.value:
        offer_job(log, "Compute it again", JobKind.REWARD, {"trajectory": summary.id}, "offer-reward")
    rows = [
        [
            str(turn.turn_index + 1),
            escape(payment.key) + (f" {chip(f'variant {payment.variant}')}" if payment.variant else ""),
            badge(payment.outcome) if payment.outcome else chip("no verdict"),
            str(payment.step + 1) if payment.step is not None else "–",
            f"{payment.weight:.3f}",
            f"{payment.pays:.3f}",
            escape(payment.note),
        ]
        for turn in slip.turns
        for payment in turn.payments
    ]
    show(table(("Turn", "Item", "Verdict", "Since step", "Weight", "Pays", "Why not"), rows, numeric=(0, 3, 4, 5)))


def reward_note(slip: Payslip) -> str:
    turns = " + ".join("?" if turn.reward is None else f"{turn.reward:.3f}" for turn in slip.turns)
    value = "none" if slip.reward.value is None else f"{slip.reward.value:.3f}"
    note = f"Reward {value} = ({turns}) ÷ {plural(slip.turn_count, 'turn')}"
    if slip.reward.excluded_reason:
        note += f" · excluded: {slip.reward.excluded_reason}"
    if slip.stored is not None and slip.stored.value != slip.reward.value:
        note += " · the log holds an older one: `checkloop reward` computes it again"
    return note


def show_tokens(
    log: Log, settings: Settings, summary: TrajectorySummary, figures: Mapping[tuple[int, int], StepFigures]
) -> None:
    """Every step's tokens as heat, with its mean logprob, time and advantage; one step is opened at a time."""
    sequence = token_sequences(log, [summary.id]).get(summary.id)
    if sequence is None:
        show_empty("Nothing was sampled yet", "The dialogue has no step.")
        return
    uses = uses_of(log, summary.id)
    advantages, whence = trained_advantages(uses, sequence) or step_advantages(log, settings, summary, sequence)
    steps = steps_of(sequence, advantages)
    rows = []
    for step in steps:
        cost = figures.get((step.turn_index, step.index))
        rows.append(
            [
                f"{step.turn_index + 1}.{step.index + 1}",
                escape(step.version),
                f"{len(step.ids):,}",
                f"{statistics.fmean(step.logprobs):.3f}" if step.logprobs else "–",
                f"{min(step.logprobs):.2f}" if step.logprobs else "–",
                f"{cost.latency_ms:,.0f}" if cost else "–",
                "–" if step.advantage is None else f"{step.advantage:+.3f}",
            ]
        )
    head = ("Step", "Version", "Tokens", "Mean logprob", "Lowest", "ms", "Advantage")
    show(table(head, rows, numeric=(2, 3, 4, 5, 6)))
    said = "; ".join(use_note(use, steps) for use in uses)
    show(soft(f"Advantage {whence}. Trained on by {said or 'no run'}."))
    names = [f"{step.turn_index + 1}.{step.index + 1}" for step in steps]
    chosen = st.selectbox("Step", names, key="step", bind="query-params", width=120)
    step = steps[names.index(chosen)] if chosen in names else steps[0]
    text_of = _text_of(log, step.version)
    if text_of is None:
        show(soft(f"The files of {step.version} are not on this machine: tokens are shown as their ids."))
    show(heat_html(step.ids, step.logprobs, text_of))
    show(soft("The stronger the colour, the less likely the token was to the policy. Hover for its figures."))


def steps_of(sequence: TokenSequence, advantages: Sequence[float | None]) -> list[StepTokens]:
    """The sampled tokens of each step of the main branch; `advantages` one for each."""
    places: list[list[int]] = [[] for _ in sequence.steps]
    for place, ordinal in enumerate(sequence.step_of_token):
        if ordinal >= 0:
            places[ordinal].append(place)
    return [
        StepTokens(
            turn_index=step.turn_index,
            index=step.step_index,
            version=step.version,
            ids=[sequence.completion_ids[place] for place in of_step],
            logprobs=[sequence.logprobs[place] for place in of_step],
            advantage=advantage,
        )
        for step, of_step, advantage in zip(sequence.steps, places, advantages, strict=True)
    ]


def trained_advantages(uses: Sequence[RunUse], sequence: TokenSequence) -> tuple[list[float | None], str] | None:
    """What the newest run trained each step with, and whence that is known; None if no run says so."""
    known = [use for use in uses if use.by_step is not None]
    if not known or known[-1].by_step is None:
        return None
    by_place = {(turn, step): value for turn, step, value in known[-1].by_step}
    found = [by_place.get((step.turn_index, step.step_index)) for step in sequence.steps]
    return found, f"as {known[-1].run} trained with it (of its {known[-1].level})"


def use_note(use: RunUse, steps: Sequence[StepTokens]) -> str:
    """The mean advantage over the tokens that a run trained on, and the dialogue's place in its group."""
    place = f"{use.advantage:+.3f} by equation 5"
    if use.by_step is None:
        return f"{use.run}: {place}, what it trained with is not recorded"
    counts = {(step.turn_index, step.index): len(step.ids) for step in steps}
    tokens = sum(counts.get((turn, step), 0) for turn, step, _ in use.by_step)
    if not tokens:
        return f"{use.run}: {place}, no token of it was trained on"
    mean = sum(value * counts.get((turn, step), 0) for turn, step, value in use.by_step) / tokens
    return f"{use.run}: {mean:+.3f} a token, of its {use.level} ({place})"


def step_advantages(
    log: Log, settings: Settings, summary: TrajectorySummary, sequence: TokenSequence
) -> tuple[list[float | None], str]:
    """What training would pay each step with today's settings, and why there is none where there is none."""
    today = "by the settings of today"
    nothing: list[float | None] = [None] * len(sequence.steps)
    if summary.group_id is None:
        return nothing, f"{today}: none, it was not played in a group"
    try:
        (group,) = load_groups_by_id(log, [summary.group_id], step_level=settings.grpo.advantage == "step")
        of_members = token_advantages(group, settings.grpo)
    except TrainingFailed as error:
        return nothing, f"{today}: none, {error}"
    place = next(n for n, member in enumerate(group.members) if member.trajectory_id == summary.id)
    of_tokens = of_members[place]
    if of_tokens is None:
        return nothing, f"{today}: none, {group.members[place].excluded_reason or 'its group gives no baseline'}"
    found = list(nothing)
    for ordinal, value, scored in zip(sequence.step_of_token, of_tokens, group.members[place].in_loss, strict=True):
        if ordinal >= 0 and scored:
            found[ordinal] = value
    return found, f"{today} (of its {level_of(settings.grpo)})"


def _text_of(log: Log, version: str) -> TokenText | None:
    try:
        return token_text(get_version(log, version).path)
    except LogError:
        return None


def show_promotion(log: Log, summary: TrajectorySummary) -> None:
    """A chat becomes a scenario; one that is one already is linked to it."""
    if summary.scenario_hash is not None:
        name = summary.scenario_name or summary.scenario_hash[:12]
        show(f"{soft('Scenario')} {link(name, address(SCENARIOS, opened=summary.scenario_hash))}")
        return
    if summary.origin is not Origin.CHAT or not may(AccessRole.OPERATOR):
        return
    with st.expander("Promote to a scenario", icon=":material/upgrade:"):
        show(
            soft(
                "Its tool responses become recordings; checklists are written afterwards, on the page Checklists and "
                "scenarios or by `checkloop annotate`."
            )
        )
        st.file_uploader(
            "Tools it had (JSON, OpenAI's form), where the log does not know them",
            type="json",
            key=TOOLS,
            max_upload_size=LARGEST_TOOLS_MB,
        )
        st.button("Promote", icon=":material/upgrade:", key="promote-chat", on_click=promote, args=(summary.id,))
        written = {"chat": summary.id}
        offer_job(log, "Promote and have checklists written", JobKind.ANNOTATE, written, "offer-annotate")


@action
def promote(log: Log, settings: Settings, chat_id: str) -> str:
    uploaded = st.session_state.get(TOOLS)
    tools = None
    if uploaded is not None:
        try:
            text = uploaded.getvalue().decode("utf-8")
        except UnicodeDecodeError as error:
            raise LogError(f"the file of tools is not UTF-8 at byte {error.start}") from error
        tools = parse_tools(text, "the file of tools")
    made = promote_chat(log, chat_id, tools)
    return f"The chat is a scenario of split {made.split.value}"
