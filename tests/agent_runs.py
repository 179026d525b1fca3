"""An agent's run against the gateway, and whether the log has all of it: a step for every model call, ids that are the
text that was exchanged.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.renderer_choice import load_renderer
from agent.rendering import Renderer
from store.conversations import StoredStep, stored_steps
from store.records import TurnRecord
from store.tokens import context_ids
from store.trajectories import get_turns, list_trajectories
from store.versions import get_version
from tests.recording_proxy import Exchange, recording_proxy
from tests.serving import Serving


class Ran:
    """An example's run: what it printed, what went over the wire, what the log has of it."""

    def __init__(self, serving: Serving, printed: str, exchanges: list[Exchange], trajectories: list[str]) -> None:
        self.serving, self.printed, self.exchanges, self.trajectories = serving, printed, exchanges, trajectories

    def steps(self, trajectory: str) -> list[StoredStep]:
        return stored_steps(self.serving.log, trajectory)

    def turns(self, trajectory: str) -> list[TurnRecord]:
        return get_turns(self.serving.log, trajectory)

    def tool_answers(self, trajectory: str) -> list[tuple[str, str]]:
        """(call id, recorded response) of every call that has one, on whatever branch."""
        query = (
            "SELECT c.call_id, r.response FROM tool_call c JOIN tool_response r ON r.trajectory_id = c.trajectory_id "
            f"AND r.call_id = c.call_id WHERE c.trajectory_id = '{trajectory}'"
        )
        with self.serving.log.lookup() as connection:
            return [(row.call_id, row.response) for row in connection.exec_driver_sql(query)]

    def column(self, trajectory: str, name: str) -> list[Any]:
        query = f"SELECT {name} FROM step WHERE trajectory_id = '{trajectory}' ORDER BY id"
        with self.serving.log.lookup() as connection:
            return list(connection.exec_driver_sql(query).scalars())


def run_agent(serving: Serving, command: Sequence[str], base: str, folder: Path, *arguments: str) -> Ran:
    """Runs an example with its base_url at `base` of the gateway; checks what holds for every one of them."""
    before = {one.id for one in list_trajectories(serving.log, limit=None)}
    with recording_proxy(serving.url) as proxy:
        environment = {"OPENAI_BASE_URL": f"{proxy.url}{base}", "OPENAI_API_KEY": "none"}
        done = subprocess.run([*command, *arguments], env=environment, cwd=folder, capture_output=True, timeout=800)
    assert done.returncode == 0, done.stderr.decode()
    assert [exchange.status for exchange in proxy.exchanges] == [200] * len(proxy.exchanges) != []
    begun = [one.id for one in list_trajectories(serving.log, limit=None) if one.id not in before]
    ran = Ran(serving, done.stdout.decode(), proxy.exchanges, sorted(begun))
    check_captured(ran)
    return ran


def check_captured(ran: Ran) -> None:
    """There is a step for every exchange, no other, and its recorded ids are the text that was exchanged."""
    renderer = load_renderer(Path(get_version(ran.serving.log, "v0001").path))
    open_steps = {step.id: chain for name in ran.trajectories for step, chain in chains(ran.steps(name))}
    assert len(open_steps) == len(ran.exchanges), "one step for every model call"
    for exchange in ran.exchanges:
        problems = {step_id: difference(chain, exchange, renderer) for step_id, chain in open_steps.items()}
        same = [step_id for step_id, problem in problems.items() if problem is None]
        assert same, f"no step holds the ids of {exchange.request['messages']} -> {exchange.said}: {problems}"
        step_id = same[0]
        ids = [i for step in open_steps.pop(step_id) for i in (*step.delta_ids, *step.sampled_ids)]
        assert context_ids(ran.serving.log, step_id) == ids
    answered = {call_id: response for name in ran.trajectories for call_id, response in ran.tool_answers(name)}
    for exchange in ran.exchanges:
        for message in exchange.request["messages"]:
            if message["role"] == "tool":
                assert answered[message["tool_call_id"]] == text(message), "each tool's answer stands beside its call"


def chains(steps: Sequence[StoredStep]) -> list[tuple[StoredStep, list[StoredStep]]]:
    """Each step with the steps whose ids it continues, the first one first and itself last."""
    by_id = {step.id: step for step in steps}
    found = []
    for step in steps:
        chain = [step]
        while (parent := chain[0].parent_id) is not None:
            chain.insert(0, by_id[parent])
        found.append((step, chain))
    return found


def difference(chain: Sequence[StoredStep], exchange: Exchange, renderer: Renderer) -> str | None:
    """Where the decoded ids of `chain` are not what `exchange` said, or None."""
    said = [message for message in exchange.request["messages"] if message["role"] == "assistant"] + [exchange.said]
    heard: list[list[dict[str, Any]]] = [[]]
    for message in exchange.request["messages"]:
        if message["role"] == "assistant":
            heard.append([])
        else:
            heard[-1].append(message)
    if len(said) != len(chain):
        return f"{len(chain)} steps for {len(said)} assistant messages"
    for step, messages, answer in zip(chain, heard, said, strict=True):
        added = renderer.decode(step.delta_ids)
        position = 0
        for message in messages:
            content = f"<tool_response>{text(message)}<" if message["role"] == "tool" else text(message)
            frame = f"<|im_start|>{message['role']}\n{content}"
            position = added.find(frame, position)
            if position < 0:
                return f"{frame!r} is not in {added!r}"
            position += len(frame)
        own_system = not any(message["role"] == "system" for message in messages) and "system\nTools:" in added
        if added.count("<|im_start|>") != len(messages) + 1 + own_system:
            return f"{added!r} holds more than {len(messages)} messages and the beginning of an answer"
        sampled = renderer.parse(step.sampled_ids)
        if not sampled.calls and step.sampled_ids[-1:] == [renderer.call_end_id]:
            # Who asks for one call at a time has it stopped there, and vLLM leaves a stop token out of the text.
            sampled = renderer.parse(step.sampled_ids[:-1])
        calls = [(call.name, value_of(call.arguments)) for call in sampled.calls]
        if (sampled.content, calls) != (text(answer).strip(), calls_of(answer)):
            return f"sampled {sampled}, exchanged {answer}"
    return None


def text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def calls_of(message: dict[str, Any]) -> list[tuple[str, Any]]:
    functions = [call.get("function", call) for call in message.get("tool_calls") or ()]
    return [(function["name"], value_of(function["arguments"])) for function in functions]


def value_of(arguments: str) -> Any:
    """Clients write JSON again in their own way; what is no JSON they must leave as it is."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def is_one_dialogue(steps: Sequence[StoredStep]) -> bool:
    """Each step goes on from the one before it: no fork."""
    return [step.parent_id for step in steps] == [None, *(step.id for step in steps[:-1])]
