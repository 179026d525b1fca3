"""What stands behind a chat (tools, system prompt, world), and a chat's log as a scenario; reads the log.

A chat's world follows from its setup and seed, so a promoted chat is played in the world that it was held in. The tools
of MCP servers and of other clients are not in the log: whoever promotes such a chat hands them in.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from agent.real_tools import SYSTEM, real_specs
from env_sim.recordings import recorded_turns
from env_sim.scenario_generator import SEEN_DOMAINS, generate_scenarios
from env_sim.worlds import WORLDS
from store.chats import ChatSetup, chat_steps
from store.database import Log, LogError
from store.records import Scenario, ToolSpec
from store.scenarios import add_scenarios, get_scenario
from store.trajectories import TrajectorySummary, get_trajectory, link_scenario
from store.turns import message_text
from store.vocabulary import ChatTools, Origin, Split

CHAT_SOURCE = "chat"
"""Of scenarios that were chats: their reference is what the policy did, and so no proof of what is right."""


@lru_cache(maxsize=64)
def scenario_of(domain: str, seed: int) -> Scenario:
    """Tools, system prompt and world of a chat in `domain`; its user turns are what one could ask. Not in the log."""
    return generate_scenarios(Split.TEST, 1, seed, [domain])[0]


def specs_of(setup: ChatSetup, seed: int) -> Sequence[ToolSpec]:
    """The tools that the agent has in a chat of this setup."""
    return real_specs() if setup.domain is None else scenario_of(setup.domain, seed).tools


def setup_of(summary: TrajectorySummary) -> ChatSetup | None:
    """What a chat of the log runs with; None for one that was started elsewhere, with tools that are not ours."""
    if summary.seed is None:
        return None
    if summary.chat is not None:
        setup = ChatSetup.from_dict(summary.chat)
        return setup if setup.domain is None or setup.domain in WORLDS else None
    if summary.title in WORLDS:  # chats of older logs keep their domain in the title
        return ChatSetup(ChatTools.WORLD, summary.title)
    return None


def promote_chat(log: Log, chat_id: str, tools: Sequence[ToolSpec] | None = None) -> Scenario:
    """Adds the scenario that a chat's log makes and links the chat to it; a chat that has one keeps it."""
    made = scenario_of_chat(log, chat_id, tools)
    add_scenarios(log, [made])
    link_scenario(log, chat_id, made.hash)
    return made


def scenario_of_chat(log: Log, chat_id: str, tools: Sequence[ToolSpec] | None = None) -> Scenario:
    """The scenario that a chat is linked to, or the one that its log makes, with empty checklists; writes nothing.

    `tools` replaces what the setup says. A chat in a bundled world whose tools answered for themselves keeps that
    world; otherwise equal calls get the logged answers. Its split is train, or test in a domain that training never
    plays. Raises LogError for anything but a chat, for one without a reply, and where nobody knows its tools.
    """
    summary = get_trajectory(log, chat_id)
    if summary.origin is not Origin.CHAT:
        raise LogError(f"{chat_id!r} is no chat but a trajectory of origin {summary.origin.value!r}")
    if summary.scenario_hash is not None:
        return get_scenario(log, summary.scenario_hash)
    return _made_of(log, summary, tools)


def read_tools(path: Path) -> list[ToolSpec]:
    """Tools from a JSON file: a list of tools in OpenAI's form, or of their `function` parts. Raises LogError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LogError(f"cannot read the tools in {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LogError(f"{path} is no JSON list of tools in OpenAI's form: {error}") from error
    return parse_tools(text, str(path))


def parse_tools(text: str, where: str) -> list[ToolSpec]:
    """`read_tools` of what stands in the file; `where` is what a LogError calls it."""
    try:
        listed = json.loads(text)
        parts = [entry.get("function", entry) for entry in listed]
        return [
            ToolSpec(name=part["name"], description=part.get("description", ""), parameters=part["parameters"])
            for part in parts
        ]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise LogError(f"{where} is no JSON list of tools in OpenAI's form: {error}") from error


def _made_of(log: Log, summary: TrajectorySummary, tools: Sequence[ToolSpec] | None) -> Scenario:
    setup, seed = setup_of(summary), summary.seed or 0
    if tools is None:
        if setup is None or setup.tools is ChatTools.MCP:
            raise LogError(
                f"the tools of chat {summary.id!r} are not in the log (MCP servers or another client had them): "
                "give them in a file, --tools FILE"
            )
        tools = specs_of(setup, seed)
    domain = setup.domain if setup is not None else None
    world = scenario_of(domain, seed).world if domain and setup and setup.tools is ChatTools.WORLD else None
    seen = domain is None or domain in SEEN_DOMAINS
    try:
        turns = recorded_turns(log, summary.id)
        if not turns:
            raise LogError(f"chat {summary.id!r} has no turn that ended with a reply: there is nothing to promote")
        return Scenario(
            name=f"chat {summary.id}",
            domain=domain or CHAT_SOURCE,
            source=CHAT_SOURCE,
            split=Split.TRAIN if seen else Split.TEST,
            seed=seed,
            system=_system_prompt(log, summary.id, domain, seed),
            tools=tuple(tools),
            turns=turns,
            world=world,
            seen=seen,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "scenario"
        raise LogError(f"chat {summary.id!r} makes no scenario: {where}: {problem['msg']}") from error


def _system_prompt(log: Log, chat_id: str, domain: str | None, seed: int) -> str:
    """As the policy was given it; what the setup says if the log has none."""
    for step in chat_steps(log, chat_id)[:1]:
        for message in step.new_messages:
            if message.get("role") == "system":
                return message_text(message.get("content"))
    return SYSTEM if domain is None else scenario_of(domain, seed).system
