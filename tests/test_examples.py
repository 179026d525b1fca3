"""The agents of examples/agents against the real gateway: nothing in them is ours, and everything they say is kept.

Each runs as its users would run it: a process that is told OPENAI_BASE_URL and OPENAI_API_KEY, nothing else. What the
small model samples is its own affair: what is asserted here holds for whatever it says. That there is a step for every
model call, whose recorded ids are the text that went over the wire, is checked for every run (`tests.agent_runs`).
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.vocabulary import ToolSource
from tests.agent_runs import Ran, calls_of, is_one_dialogue, run_agent, text
from tests.calling_policy import AGENTS, calling_policy_live
from tests.serving import Serving

OURS = {"checkloop", "store", "agent", "env_sim", "reward", "train", "dashboard", "tests", "benchmarks"}
RUN_HERE = {
    "two_node_graph",
    "streaming",
    "async_graph",
    "structured_output",
    "parallel_tools",
    "supervisor",
    "openai_loop",
}
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "E403", "E404")


@pytest.fixture(scope="module")
def serving(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Of a policy that has learned to call these agents' tools, so that their loops go round."""
    with calling_policy_live(serving, tmp_path_factory.mktemp("calling")):
        yield serving


def run_python(serving: Serving, name: str, base: str, folder: Path, *arguments: str) -> Ran:
    return run_agent(serving, [sys.executable, str(AGENTS / f"{name}.py")], base, folder, *arguments)


def test_no_example_imports_anything_of_ours() -> None:
    """All that a user's agent has of checkloop is its base_url."""
    files = sorted(AGENTS.glob("*.py"))
    assert {file.stem for file in files} == RUN_HERE, "every example is run by a test of its own"
    for file in files:
        tree = ast.parse(file.read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = {alias.name for node in imports for alias in node.names} | {node.module or "." for node in froms}
        assert not {name.partition(".")[0] for name in names} & (OURS | {""}), file.name
        assert "checkloop" not in file.read_text()
    assert re.findall(r'^import .* from "(.*)"', (AGENTS / "openai_loop.mjs").read_text(), re.M) == [
        "node:crypto",
        "openai",
    ]


def test_two_node_graph(serving: Serving, tmp_path: Path) -> None:
    """Two questions to one thread are two turns of one trajectory, in one unbroken sequence of ids."""
    ran = run_python(
        serving, "two_node_graph", "/sessions/fruit/v1", tmp_path, "Do you have plums?", "What do ten cost?"
    )
    assert ran.trajectories == ["fruit"]
    turns = ran.turns("fruit")
    assert [turn.user for turn in turns] == ["Do you have plums?", "What do ten cost?"]
    asked = [sum(m["role"] == "user" for m in exchange.request["messages"]) for exchange in ran.exchanges]
    assert [len(turn.steps) for turn in turns] == [asked.count(1), asked.count(2)]
    assert is_one_dialogue(ran.steps("fruit"))
    assert ran.exchanges[-1].said["content"].strip() in ran.printed


def test_streaming(serving: Serving, tmp_path: Path) -> None:
    """What is printed while it is sampled is what is recorded."""
    ran = run_python(serving, "streaming", "/sessions/clock/v1", tmp_path, "What time is it in Oslo?")
    assert all(exchange.request["stream"] for exchange in ran.exchanges)
    assert ran.trajectories == ["clock"]
    [turn] = ran.turns("clock")
    assert len(turn.steps) == len(ran.exchanges)
    assert is_one_dialogue(ran.steps("clock"))
    for step in turn.steps:
        assert step.content in ran.printed


def test_async_graph(serving: Serving, tmp_path: Path) -> None:
    """Three people at once at a base_url without a session: three dialogues of two turns each, none mixed up."""
    questions = ["Where is Emma?", "Where is Dracula?", "Where is Ulysses?"]
    ran = run_python(serving, "async_graph", "/v1", tmp_path, *questions)
    assert len(ran.trajectories) == 3
    users = [[turn.user for turn in ran.turns(name)] for name in ran.trajectories]
    assert sorted(users) == sorted([question, "Is it the only copy?"] for question in questions)
    assert all(is_one_dialogue(ran.steps(name)) for name in ran.trajectories)


def test_structured_output(serving: Serving, tmp_path: Path) -> None:
    """Both methods give values of the schema, whatever the model would rather say; neither step is trained on."""
    ran = run_python(serving, "structured_output", "/v1", tmp_path, "My parcel has been lost for two weeks!")
    by_schema, by_function = ran.exchanges
    assert by_schema.request["response_format"]["type"] == "json_schema"
    assert by_function.request["tool_choice"] == {"type": "function", "function": {"name": "Callback"}}
    triage, callback = (json.loads(line) for line in ran.printed.splitlines())
    assert triage == json.loads(by_schema.said["content"])
    assert triage["topic"] in ("billing", "delivery", "other") and triage["urgent"] in (True, False)
    assert calls_of(by_function.said) == [("Callback", callback)]
    assert len(ran.trajectories) == 2
    reasons = [reason for name in ran.trajectories for reason in ran.column(name, "untrainable_reason")]
    assert reasons == ["sampled under a grammar"] * 2


def test_supervisor(serving: Serving, tmp_path: Path) -> None:
    """Supervisor and worker are two agents of one session: a trajectory each, and no call in the wrong one."""
    ran = run_python(serving, "supervisor", "/sessions/desk/v1", tmp_path, "Where is my order 1001?")
    assert ran.trajectories == ["desk", "desk.worker"]
    agents = [exchange.agent for exchange in ran.exchanges]
    worked = agents.count("worker")
    assert len(ran.steps("desk.worker")) == worked >= 1, "the supervisor has to delegate"
    assert len(ran.steps("desk")) == agents.count(None) == len(agents) - worked >= 2
    assert [turn.user for turn in ran.turns("desk")] == ["Where is my order 1001?"]
    assert is_one_dialogue(ran.steps("desk"))
    delegated = [calls_of(exchange.said) for exchange in ran.exchanges if exchange.agent is None]
    assert delegated[0][0][0] == "delegate"
    orders = {arguments.get("order") for calls in delegated for _, arguments in calls if isinstance(arguments, dict)}
    asked = {text(exchange.request["messages"][1]) for exchange in ran.exchanges if exchange.agent == "worker"}
    assert asked <= {f"What about order {order}?" for order in orders}
    assert ran.exchanges[-1].said["content"].strip() in ran.printed


def test_parallel_tools(serving: Serving, tmp_path: Path) -> None:
    """Several calls in one answer run at the same time, and are one step with one answer for each. The policy was
    taught to make two here; it samples, so it is given eight tries."""
    for session in [f"trip-{n}" for n in range(1, 9)]:
        ran = run_python(serving, "parallel_tools", f"/sessions/{session}/v1", tmp_path, "Compare Oslo and Rome.")
        assert ran.trajectories == [session]
        assert is_one_dialogue(ran.steps(session))
        sampled = ran.turns(session)[0].steps[0].calls
        # LangGraph's tool node is not shown a call whose arguments are no JSON, so nobody answers that one.
        calls = [call for call in sampled if call.arguments is not None]
        if len(calls) >= 2:
            assert len({call.call_id for call in calls}) == len(calls)
            assert {call.source for call in calls} == {ToolSource.CLIENT}
            assert all(call.response for call in calls)
            return
    pytest.fail("two calls in one answer were not sampled in eight tries")


def test_openai_loop(serving: Serving, tmp_path: Path) -> None:
    ran = run_python(serving, "openai_loop", "/sessions/sums/v1", tmp_path, "What is 12 + 30?")
    check_small_loop(ran, "sums", "What is 12 + 30?")


def test_openai_loop_in_javascript(serving: Serving, tmp_path: Path) -> None:
    node = node_with_openai(tmp_path)
    ran = run_agent(
        serving, [node, str(tmp_path / "openai_loop.mjs")], "/sessions/dice/v1", tmp_path, "Roll two dice for me."
    )
    check_small_loop(ran, "dice", "Roll two dice for me.")


def check_small_loop(ran: Ran, session: str, question: str) -> None:
    assert ran.trajectories == [session]
    [turn] = ran.turns(session)
    assert turn.user == question
    assert len(turn.steps) == len(ran.exchanges)
    assert is_one_dialogue(ran.steps(session))
    assert ran.exchanges[-1].said["content"].strip() in ran.printed


def node_with_openai(folder: Path) -> str:
    """The path of node, with the JavaScript example and its package in `folder`; skips where there is none."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node or npm is not installed")
    for name in ("package.json", "package-lock.json", "openai_loop.mjs"):
        shutil.copy(AGENTS / name, folder)
    command = [npm, "ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    unreachable = [line for line in done.stderr.splitlines() if any(code in line for code in NO_NETWORK)]
    if done.returncode and unreachable:
        pytest.skip(f"npm cannot fetch the openai package: {unreachable[0]}")
    assert done.returncode == 0, done.stderr
    return node
