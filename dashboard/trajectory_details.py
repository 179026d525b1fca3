"""A trajectory's figures beside its dialogue: what each item and each step pays; a chat's promotion.

Reads the log; a chat is promoted through `env_sim.chat_worlds.promote_chat`, as by `checkloop annotate --chat`.
"""

import streamlit as st

from dashboard.boundary import may
from dashboard.format import plural
from dashboard.job_actions import action
from dashboard.job_offers import offer_job
from dashboard.links import SCENARIOS, address
from dashboard.text import badge, chip, escape, link, show, show_empty, soft, table
from env_sim.chat_worlds import parse_tools, promote_chat
from reward.payments import Payslip, payslip
from store.database import Log, LogError
from store.settings import Settings
from store.trajectories import TrajectorySummary
from store.vocabulary import AccessRole, JobKind, Origin

TOOLS = "promote-tools"
LARGEST_TOOLS_MB = 2


def show_reward(log: Log, summary: TrajectorySummary) -> None:
    """Equation 4 step by step, and item by item: what it weighs, since which step it holds, what it pays, why not."""
    slip = payslip(log, summary.id)
    if not slip.turns:
        show_empty("There is no reward to explain", slip.reward.excluded_reason or "It was not judged.")
        return
    show(soft(reward_note(slip)))
    if slip.stored is not None and slip.stored.value != slip.reward.value:
        offer_job(log, "Compute it again", JobKind.REWARD, {"trajectory": summary.id}, "offer-reward")
    show(steps_table(slip))
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


def steps_table(slip: Payslip) -> str:
    """What each step earned, and how the reward grew by it."""
    rows = [
        [
            f"{turn.turn_index + 1}.{number}",
            _figure(step.earned),
            _figure(step.ahead),
            _figure(step.running),
            escape(", ".join(dict.fromkeys(p.key for p in turn.payments if p.pays > 0 and p.step == number - 1))),
        ]
        for turn in slip.turns
        for number, step in enumerate(turn.steps, start=1)
    ]
    note = soft("Ahead: of the items open at the step, the weighted share that still came to hold (step level).")
    return table(("Step", "Earned", "Ahead", "Reward so far", "Paid for"), rows, numeric=(1, 2, 3)) + note


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def reward_note(slip: Payslip) -> str:
    turns = " + ".join("?" if turn.reward is None else f"{turn.reward:.3f}" for turn in slip.turns)
    value = "none" if slip.reward.value is None else f"{slip.reward.value:.3f}"
    note = f"Reward {value} = ({turns}) ÷ {plural(slip.turn_count, 'turn')}"
    if slip.reward.excluded_reason:
        note += f" · excluded: {slip.reward.excluded_reason}"
    if slip.stored is not None and slip.stored.value != slip.reward.value:
        note += " · the log holds an older one: `checkloop reward` computes it again"
    return note


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
