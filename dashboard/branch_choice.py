"""Which branch of a trajectory is shown, and what its context began with: the system's messages and the tools.

Reads the log. The branch stands in the address (`?branch=…`).
"""

import streamlit as st

from agent.conversations import tools_hash
from dashboard.text import escape, mono, prose, show, soft, tidy_json
from env_sim.chat_worlds import setup_of, specs_of
from store.branches import Branch, Opening, branches_of, openings_of
from store.database import Log
from store.records import Scenario, ToolSpec
from store.trajectories import TrajectorySummary
from store.vocabulary import ChatTools

NEWEST = "newest"


def choose_branch(log: Log, trajectory_id: str) -> Branch | None:
    """The one that the address or the reader chose, else the newest; None for a trajectory without a step."""
    branches = branches_of(log, trajectory_id)
    if len(branches) < 2:
        return branches[0] if branches else None
    named = {_name(branch): branch for branch in branches}
    with st.container(horizontal=True, vertical_alignment="bottom", key="branches"):
        chosen = st.selectbox("Branch", list(named), key="branch", bind="query-params", width=260)
        show(soft(f"of {len(branches)}: a message was said anew, or its client rewrote the history."))
    return named.get(chosen, branches[0])


def _name(branch: Branch) -> str:
    return NEWEST if branch.parts_at is None else f"to step {branch.last}, apart from turn {branch.parts_at + 1}"


def show_openings(log: Log, summary: TrajectorySummary, scenario: Scenario | None, branch: Branch) -> None:
    """Folded: the system's messages and the tools that the policy was offered."""
    with st.expander("System prompt and tools", icon=":material/build:"):
        for opening in openings_of(log, summary.id, branch.steps):
            if opening.turn_index:
                show(f'<div class="cl-label">From turn {opening.turn_index + 1}, where the history was rewritten</div>')
            show('<div class="cl-label">System prompt</div>')
            show("".join(map(prose, opening.system)) or soft("none was sent"))
            show('<div class="cl-label">Tools</div>', tools_html(opening, known_tools(summary, scenario)))


def known_tools(summary: TrajectorySummary, scenario: Scenario | None) -> tuple[ToolSpec, ...] | None:
    """Those of the scenario or of the chat's setup; None where MCP servers or another client had them."""
    if scenario is not None:
        return scenario.tools
    setup = setup_of(summary)
    if setup is None or setup.tools is ChatTools.MCP:
        return None
    return tuple(specs_of(setup, summary.seed or 0))


def tools_html(opening: Opening, known: tuple[ToolSpec, ...] | None) -> str:
    """The tools one by one, folded; the log holds their hash, which says whether they are those that were offered."""
    if known is None:
        if opening.tools_hash is None:
            return soft("none were offered")
        return soft("Their client had them. The policy read them in the first step's prompt: Tokens, Its prompt.")
    asked = tools_hash([tool.as_openai() for tool in known])
    note = ""
    if opening.tools_hash not in (None, asked):
        note = soft("The client offered others, or wrote them otherwise: the first step's prompt has them.")
    return note + "".join(_tool(tool) for tool in known)


def _tool(tool: ToolSpec) -> str:
    document = tidy_json(tool.model_dump_json(include={"parameters"}))
    head = f'<summary><span class="cl-call">{escape(tool.name)}</span></summary>'
    body = f'<div class="cl-block">{prose(tool.description)}{mono(document)}</div>'
    return f'<details class="cl-tool">{head}{body}</details>'
