"""The start of a chat: what stands behind the agent's tools, which they are, and where it must ask first."""

import streamlit as st

from dashboard.boundary import may
from dashboard.chat_actions import OUTSIDE, SEED, forget_seed, say_text
from dashboard.chats import marked, new_seed, scenario_of, specs_of
from dashboard.text import chip, prose, show, soft
from env_sim.worlds import WORLDS
from store.chats import ChatSetup
from store.settings import Settings
from store.vocabulary import AccessRole, ChatTools

LABELS = {
    ChatTools.WORLD: "Simulated world",
    ChatTools.LLM: "LLM simulator",
    ChatTools.REAL: "Real tools",
}
MEANINGS = {
    ChatTools.WORLD: "A small world with a state of its own answers; nothing outside it happens.",
    ChatTools.LLM: "An LLM plays the tools and makes up what they answer; nothing outside happens.",
    ChatTools.REAL: "These tools do what they say.",
}


def choose_setup(settings: Settings, ready: bool) -> ChatSetup:
    """The form of a new chat; returns what it says now."""
    st.subheader("New chat", anchor=False)
    offered = [tools for tools in LABELS if tools is not ChatTools.LLM or settings.simulator is not None]
    if not may(AccessRole.OPERATOR):
        offered = [tools for tools in offered if tools not in OUTSIDE]
    chosen = st.segmented_control(
        "What answers the agent's tools",
        offered,
        default=ChatTools.WORLD,
        format_func=LABELS.__getitem__,
        key="supply",
        bind="query-params",
        required=True,
    )
    tools = ChatTools(chosen or ChatTools.WORLD)
    note = MEANINGS[tools]
    if settings.simulator is None:
        note += " To let an LLM play them, name one in checkloop.toml, section [simulator]."
    show(soft(note))
    domain = None
    if tools is not ChatTools.REAL:
        domain = st.selectbox(
            "Domain of the simulated tools",
            sorted(WORLDS),
            key="tools",
            bind="query-params",
            width=320,
        )
    seed = chosen_seed()
    specs = specs_of(ChatSetup(tools, domain), seed)
    names = [spec.name for spec in specs]
    ask_first = st.multiselect(
        "Ask me before the agent calls",
        names,
        default=list(marked(specs)),
        key=f"ask-{tools}-{domain}-{seed}",
        bind="query-params",
        placeholder="No tool: the agent calls them all by itself",
        help="The call waits until you approve it; a refusal is told to the agent with your reason.",
    )
    show('<div class="cl-label">Tools</div>', f'<div class="cl-row">{"".join(map(chip, names))}</div>')
    setup = ChatSetup(tools, domain, tuple(ask_first))
    examples = ["What is 17 * 23?"] if domain is None else [t.user for t in scenario_of(domain, seed).turns[:2]]
    show(
        '<div class="cl-label">For example</div>',
        *(f'<div class="cl-block">{prose(example)}</div>' for example in examples),
    )
    with st.container(horizontal=True):
        st.button(
            "Ask the first one",
            icon=":material/play_arrow:",
            key="suggest",
            disabled=not ready,
            on_click=say_text,
            args=(setup, examples[0]),
        )
        if domain is not None:
            st.button("Another world", icon=":material/casino:", key="another-world", on_click=forget_seed)
    return setup


def chosen_seed() -> int:
    """Of the chat that would start: the address keeps it, so that a link shows the same tools and examples."""
    said = st.query_params.get(SEED, "")
    if not (said.isascii() and said.isdigit() and len(said) < 11 and int(said) < 2**31):
        said = st.query_params[SEED] = str(new_seed())
    return int(said)
