"""Trajectories: the filtered list, and one trajectory turn by turn with its verdicts (`?trajectory=ID`).

Reads store.browsing and the records of one trajectory; every filter and the opened trajectory stand in the address.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import streamlit as st

from dashboard.boundary import counted, guard, run_page
from dashboard.branch_choice import choose_branch, show_openings
from dashboard.chat_turns import rating_html
from dashboard.dialogue import checklist_html, turn_html
from dashboard.format import moment, percent, plural
from dashboard.job_actions import say_outcome
from dashboard.links import REVIEW, TRAJECTORIES, address
from dashboard.paging import captioned_offset
from dashboard.step_tokens import show_tokens
from dashboard.text import badge, chip, escape, link, show, show_code, show_empty, soft
from dashboard.trajectory_details import show_promotion, show_reward
from dashboard.trajectory_export import show_export
from dashboard.trajectory_table import (
    EVERYWHERE,
    PAGE_SIZE,
    chosen_filter,
    chosen_order,
    describe_filter,
    listing_frame,
    show_filters,
)
from reward.scoring import items_of
from store.browsing import (
    StepFigures,
    any_trajectory,
    count_trajectories,
    neighbours,
    page_of_trajectories,
    sampled_arguments,
    step_figures,
)
from store.checklists import current_checklists
from store.database import Log
from store.figures import facets
from store.ratings import ratings_of
from store.scenarios import get_scenario
from store.settings import Settings
from store.trajectories import TrajectorySummary, get_trajectory
from store.trajectory_filters import TrajectoryFilter, TrajectoryOrder
from store.turns import get_turns
from store.verdicts import Reward, Verdict, rewards_of, verdicts_of, winning
from store.vocabulary import Outcome

T = TypeVar("T")
LOOKS = ["Dialogue", REWARD := "Reward", TOKENS := "Tokens"]


def show_trajectories(log: Log, settings: Settings) -> None:
    known = counted(log, facets)
    if not known.origins:
        show_empty("No dialogue is logged yet", "Play the demo once, or chat with the agent.", "make demo")
        return
    opened = st.query_params.get("trajectory")
    if opened:
        # The filters stay, folded: they say what previous and next walk through, and keep the address whole.
        above, below = st.container(), st.container()
        with below, st.expander("Filters of the list", icon=":material/filter_list:"):
            show_filters(known)
        with above:
            show_trajectory(log, settings, opened, chosen_filter())
    else:
        show_filters(known)
        show_list(log, chosen_filter())


def show_list(log: Log, wanted: TrajectoryFilter) -> None:
    order = chosen_order()
    if wanted.text and wanted.searched is not None:
        among = looked_up(log, replace(wanted, text=None), count_trajectories, order=TrajectoryOrder.NEWEST)
        if among > wanted.searched:
            with st.container(horizontal=True, vertical_alignment="center", key="deeper"):
                show(soft(f"Looked at the newest {wanted.searched:,} of {plural(among, 'dialogue')}."))
                st.button(f"Look at all {among:,}", on_click=look_everywhere, key="look-everywhere", type="tertiary")
    if note := describe_filter(wanted):
        left, right = st.columns([6, 1], vertical_alignment="center")
        with left:
            show(soft(note))
        right.button("Clear", icon=":material/close:", on_click=clear_item_filter, key="clear-item")
    total = looked_up(log, wanted, count_trajectories, order=order)
    if not total:
        show_empty("No trajectory matches", "Widen the filters above.")
        return
    caption = f"{total:,} found, {order} first. Click a row to open it."
    offset = captioned_offset(caption, total, PAGE_SIZE, "page")
    show_export(log, wanted, order, total)
    rows = looked_up(log, wanted, page_of_trajectories, limit=PAGE_SIZE, offset=offset, order=order)
    opened = st.session_state.get("opened-count", 0)
    picked = st.dataframe(
        **listing_frame(rows),
        hide_index=True,
        height="content",
        on_select="rerun",
        selection_mode="single-cell",
        key=f"list-{opened}",
    )
    if picked.selection.cells:
        # A fresh key next time: the row must not still be selected when the list comes back.
        st.session_state["opened-count"] = opened + 1
        open_trajectory(rows[int(picked.selection.cells[0][0])].id)
        st.rerun()


def looked_up(log: Log, wanted: TrajectoryFilter, function: Callable[..., T], **arguments: Any) -> T:
    """`function(log, wanted=wanted, ...)`; beside the request where that reads the whole log, every dialogue's
    reward or every verdict on a kind of item (StillCounting)."""
    by_reward = arguments["order"].by_reward or wanted.low is not None or wanted.high is not None
    if wanted.reads_whole_log or by_reward or wanted.kind is not None:
        return counted(log, function, wanted=wanted, **arguments)
    return function(log, wanted=wanted, **arguments)


def open_trajectory(trajectory_id: str | None) -> None:
    if trajectory_id is None:
        st.query_params.pop("trajectory", None)
    else:
        st.query_params["trajectory"] = trajectory_id


def look_everywhere() -> None:
    st.session_state[EVERYWHERE] = True


def clear_item_filter() -> None:
    for name in ("item", "kind", "outcome", "run"):
        st.query_params.pop(name, None)


def show_walk(log: Log, trajectory_id: str, wanted: TrajectoryFilter) -> None:
    """To the list and to its dialogues before and after this one."""
    newer, older = looked_up(log, wanted, neighbours, trajectory_id=trajectory_id, order=chosen_order())
    with st.container(horizontal=True, vertical_alignment="center", key="walk"):
        st.button("List", icon=":material/arrow_back:", on_click=open_trajectory, args=(None,), shortcut="Escape")
        st.button(
            "Previous",
            on_click=open_trajectory,
            args=(newer,),
            disabled=newer is None,
            shortcut="Left",
            help="above in the list",
        )
        st.button(
            "Next",
            on_click=open_trajectory,
            args=(older,),
            disabled=older is None,
            shortcut="Right",
            help="below in the list",
        )


def show_trajectory(log: Log, settings: Settings, trajectory_id: str, wanted: TrajectoryFilter) -> None:
    guard("Previous and next", lambda: show_walk(log, trajectory_id, wanted))
    if not any_trajectory(log, trajectory_id):
        show_empty("There is no such trajectory", f"The log holds none with the id {trajectory_id}.")
        return None
    summary = get_trajectory(log, trajectory_id)
    said = verdicts_of(log, [trajectory_id], all_rows=True).get(trajectory_id, [])
    verdicts = winning(said)
    reward = rewards_of(log, [trajectory_id]).get(trajectory_id)
    above = st.container()
    branch = choose_branch(log, trajectory_id)
    figures = step_figures(log, trajectory_id, None if branch is None else branch.steps)
    with above:
        show_summary(summary, reward, verdicts, figures)
        say_outcome()
        show_promotion(log, summary)
    scenario = get_scenario(log, summary.scenario_hash) if summary.scenario_hash else None
    if branch is not None:
        show_openings(log, summary, scenario, branch)
    look = st.segmented_control(
        "Show", LOOKS, default=LOOKS[0], required=True, key="show", bind="query-params", label_visibility="collapsed"
    )
    if look == REWARD:
        return show_reward(log, summary)
    if look == TOKENS:
        return show_tokens(log, settings, summary, branch, figures)
    sampled = sampled_arguments(log, trajectory_id)
    judged = get_turns(log, trajectory_id)
    turns = judged if branch is None or branch.parts_at is None else get_turns(log, trajectory_id, branch.last)
    checklists = current_checklists(log, [scenario])[scenario.hash] if scenario else []
    ratings = ratings_of(log, [trajectory_id])
    times = Counter((verdict.turn_index, verdict.item_key) for verdict in said)
    for turn in turns:
        value = reward.turn_values[turn.index] if reward and turn.index < len(reward.turn_values) else None
        st.subheader(f"Turn {turn.index + 1}", anchor=f"turn-{turn.index + 1}")
        left, right = st.columns([3, 2], gap="medium")
        with left:
            show(turn_html(turn, figures, sampled))
        with right:
            if turn not in judged:
                show(soft("Verdicts and ratings speak of the newest branch, which went on otherwise here."))
                continue
            if rating := ratings.get((trajectory_id, turn.index)):
                show('<div class="cl-label">A person\'s rating</div>', rating_html(rating))
            if scenario is None or turn.index >= len(scenario.turns):
                show(soft("No checklist: this dialogue was not played from a scenario."))
                continue
            items = items_of(scenario, checklists, turn)
            of_turn = {verdict.item_key: verdict for verdict in verdicts if verdict.turn_index == turn.index}
            counts = {item.id: times[turn.index, item.id] for item in items}
            heading = checklist_heading(of_turn, value)
            if of_turn:
                heading += link("review this turn", address(REVIEW, turn=f"{trajectory_id}:{turn.index}"))
            show(heading, checklist_html(items, of_turn, counts))
    if scenario and turns is judged and len(turns) < len(scenario.turns):
        rest = plural(len(scenario.turns) - len(turns), "turn")
        show(soft(f"Not reached: {rest} of the scenario ({summary.stop_reason or 'still running'}). They count 0."))
    return None


def checklist_heading(verdicts: dict[str, Verdict], value: float | None) -> str:
    passed = sum(verdict.outcome == Outcome.PASS for verdict in verdicts.values())
    reward = f"turn reward {value:.2f}" if value is not None else "no turn reward"
    return f'<div class="cl-label">Checklist · {passed} of {len(verdicts)} passed · {reward}</div>'


def show_summary(
    summary: TrajectorySummary,
    reward: Reward | None,
    verdicts: list[Verdict],
    figures: dict[tuple[int, int], StepFigures],
) -> None:
    title = summary.scenario_name or summary.title or summary.id
    tags = [chip(summary.origin)]
    if summary.domain:
        tags.append(chip(summary.domain + ("" if summary.seen else " · unseen")))
    tags += [
        chip(f"{name} {value}")
        for name, value in (("version", summary.version), ("batch", summary.batch), ("seed", summary.seed))
        if value is not None
    ]
    if summary.group_id is not None:
        tags.append(chip(f"group {summary.group_id}, member {summary.member}"))
    tags.append(chip(f"ended: {summary.stop_reason}" if summary.stop_reason else "still running"))
    show(
        f'<div class="cl-title">{escape(title)}</div>'
        f'<div class="cl-row">{"".join(tags)}{soft(f"{summary.id} · {moment(summary.created_at)} UTC")}</div>'
    )
    if summary.error:
        st.warning("This trajectory failed and is excluded from training and figures.", icon=":material/warning:")
        show_code(summary.error)
    with st.grid(columns=4, min_column_width=170, gap="small", key="summary"):
        value = f"{reward.value:.3f}" if reward and reward.value is not None else "–"
        excluded = reward.excluded_reason if reward else None
        st.metric("Reward", value, help="Equation 4: mean of the turn rewards over the scenario's turns.", border=True)
        judged = [verdict for verdict in verdicts if verdict.outcome != Outcome.UNSCORED]
        passed = sum(verdict.outcome == Outcome.PASS for verdict in judged)
        share = f" ({percent(passed / len(judged))})" if judged else ""
        st.metric("Items passed", f"{passed} of {len(judged)}{share}", border=True)
        st.metric("Unscored", str(len(verdicts) - len(judged)), help="Nobody could decide these.", border=True)
        tokens = sum(step.sampled_tokens for step in figures.values())
        st.metric("Sampled tokens", f"{tokens:,}", help="All assistant messages, thinking included.", border=True)
    if excluded:
        show(f'<div class="cl-row">{badge(Outcome.UNSCORED)}{soft("excluded: " + excluded)}</div>')


run_page(TRAJECTORIES.title, show_trajectories)
