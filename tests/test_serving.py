"""The gateway on the real vLLM with the real model: what it answers, what it records, what it refuses."""

import asyncio
import json
import shutil
from pathlib import Path

import httpx
import openai
import pytest

from agent.graph import build_graph
from agent.policy import connect_policy, open_connections
from agent.renderer_choice import load_renderer
from agent.role_endpoint import RoleEndpoint
from agent.tools import make_tools
from env_sim.llm_simulator import LlmSimulator
from env_sim.simulator import Simulator
from reward.judge import Judge
from reward.panel import Panel
from store.endpoint_settings import Endpoint
from store.model_calls import call_totals
from store.records import Item, Scenario, ScenarioTurn, ToolSpec
from store.scenarios import add_scenarios
from store.tokens import token_sequences
from store.trajectories import NewTrajectory, ToolAnswer, create_trajectories, get_turns, record_tool_answers
from store.versions import add_version, get_version
from store.vocabulary import FocusOn, JudgeMode, ModelRole, Origin, Outcome, Split, ToolSource, VersionState
from tests.bounded_judge import BoundedJudge
from tests.serving import Serving

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]
WEATHER = ToolSpec(
    name="get_weather",
    description="Weather of a city",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def client(serving: Serving, session: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{serving.url}/sessions/{session}/v1", api_key="none", max_retries=0)


def test_a_session_is_recorded_token_by_token(serving: Serving) -> None:
    """Three steps by an ordinary OpenAI client; the log's ids are one unbroken sequence (invariant 1)."""
    talk = client(serving, "talk")
    messages = list(ASK)
    for said in ("And another.", "One more?", ""):
        answer = talk.chat.completions.create(model="policy", messages=messages, max_tokens=8, seed=7)  # type: ignore[arg-type]
        assert answer.model == "policy@v0001"
        messages += [{"role": "assistant", "content": answer.choices[0].message.content or ""}]
        messages += [{"role": "user", "content": said}] if said else []
    sequence = token_sequences(serving.log, ["talk"])["talk"]
    assert [step.turn_index for step in sequence.steps] == [0, 1, 2]
    renderer = load_renderer(Path(get_version(serving.log, "v0001").path))
    assert renderer.decode(sequence.prompt_ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user")
    whole = renderer.decode(sequence.prompt_ids + sequence.completion_ids)
    assert whole.count("<|im_start|>user") == 3
    assert sum(sequence.sampled) == sum(1 for p in sequence.logprobs if p != 0.0)
    assert [turn.user for turn in get_turns(serving.log, "talk")] == ["Name a colour.", "And another.", "One more?"]


def test_logged_logprobs_are_those_of_the_model_that_sampled(serving: Serving) -> None:
    """The server's own logprobs of the recorded ids, asked for afterwards, agree with the sampling logprobs."""
    client(serving, "probed").chat.completions.create(model="policy", messages=ASK, max_tokens=24, seed=3)  # type: ignore[arg-type]
    sequence = token_sequences(serving.log, ["probed"])["probed"]
    ids = sequence.prompt_ids + sequence.completion_ids
    body = {"model": "policy", "prompt": ids, "max_tokens": 1, "prompt_logprobs": 0}
    url = f"http://127.0.0.1:{serving.settings.server.port}/v1/completions"
    rows = httpx.post(url, json=body, timeout=300).json()["choices"][0]["prompt_logprobs"]
    again = [rows[i][str(ids[i])]["logprob"] for i in range(len(sequence.prompt_ids), len(ids))]
    differences = [abs(a - b) for a, b in zip(again, sequence.logprobs, strict=True)]
    assert sum(differences) / len(differences) < 0.05


def test_streamed_and_plain_answers_are_recorded_alike(serving: Serving) -> None:
    plain = client(serving, "plain").chat.completions.create(model="policy", messages=ASK, max_tokens=12, temperature=0)  # type: ignore[arg-type]
    chunks = client(serving, "streamed").chat.completions.create(
        model="policy",
        messages=ASK,  # type: ignore[arg-type]
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    parts = list(chunks)
    text = "".join(c.choices[0].delta.content or "" for c in parts if c.choices)
    assert text.strip() == plain.choices[0].message.content
    assert parts[-1].usage == plain.usage
    both = token_sequences(serving.log, ["plain", "streamed"])
    assert both["plain"].completion_ids == both["streamed"].completion_ids


def test_rewritten_history_makes_a_fork(serving: Serving) -> None:
    talk = client(serving, "forked")
    first = talk.chat.completions.create(model="policy", messages=ASK, max_tokens=6)  # type: ignore[arg-type]
    said = first.choices[0].message.content or ""
    edited = [*ASK, {"role": "assistant", "content": said + " (edited)"}, {"role": "user", "content": "Why?"}]
    talk.chat.completions.create(model="policy", messages=edited, max_tokens=6)  # type: ignore[arg-type]
    sequence = token_sequences(serving.log, ["forked"])["forked"]
    assert len(sequence.steps) == 1, "the branch starts anew: it inherits no ids that were never sampled"
    assert sum(sequence.sampled) <= 6


def test_equal_requests_are_two_samples(serving: Serving) -> None:
    talk = client(serving, "twice")
    for _ in range(2):
        talk.chat.completions.create(model="policy", messages=ASK, max_tokens=6)  # type: ignore[arg-type]
    with serving.log.lookup() as connection:
        query = "SELECT count(*) FROM step WHERE trajectory_id = 'twice'"
        assert connection.exec_driver_sql(query).scalar_one() == 2


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "policy@v0042", "messages": ASK}, 404, "v0042"),
        ({"model": "gpt-5", "messages": ASK}, 404, "gpt-5"),
        ({"model": "policy", "messages": []}, 400, "messages"),
        ({"model": "policy", "messages": ASK, "best_of": 3}, 400, "unknown parameter: best_of"),
        ({"model": "policy", "messages": [{"role": "user", "content": "word " * 3000}]}, 400, "context is 2048"),
        ({"model": "policy", "messages": ASK, "temperature": 9}, 400, "temperature"),
    ],
)
def test_bad_requests_are_refused_in_openai_form(
    serving: Serving, body: dict[str, object], status: int, said: str
) -> None:
    answer = httpx.post(f"{serving.url}/sessions/bad/v1/chat/completions", json=body, timeout=30)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_malformed_json_is_refused(serving: Serving) -> None:
    answer = httpx.post(f"{serving.url}/v1/chat/completions", content=b'{"model": ', timeout=30)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]


async def test_the_langgraph_agent_runs_and_its_tool_answers_reach_the_policy(serving: Serving) -> None:
    """The two-node graph against the gateway: whatever SmolLM2 says, every step that it took is in the log."""
    create_trajectories(serving.log, [NewTrajectory("agent", Origin.CHAT)])

    async def answer(name: str, arguments: dict[str, object], call_id: str) -> ToolAnswer:
        given = ToolAnswer(call_id, json.dumps({"weather": "sun"}), False, ToolSource.REAL, 1.0)
        record_tool_answers(serving.log, "agent", [given])
        return given

    connections = open_connections(60.0)
    policy = connect_policy(
        serving.url, "agent", connections, model="policy", temperature=0.0, max_tokens=24, timeout_s=300.0
    )
    graph = build_graph(policy, make_tools([WEATHER], answer))
    state = await graph.ainvoke(
        {"messages": [("user", "Weather in Oslo?")]}, {"configurable": {"max_steps": 2, "seed": 1}}
    )
    await connections.aclose()
    turns = get_turns(serving.log, "agent")
    assert len(turns) == 1 and 1 <= len(turns[0].steps) <= 2
    assert len(state["messages"]) >= 2
    prompt = token_sequences(serving.log, ["agent"])["agent"].prompt_ids
    renderer = load_renderer(Path(get_version(serving.log, "v0001").path))
    assert "get_weather(city) - Weather of a city" in renderer.decode(prompt)


async def test_the_llm_judge_runs_on_the_real_server_in_every_mode(serving: Serving) -> None:
    """SmolLM2's opinion is worth nothing; that it comes back as a verdict with its reason is what counts."""
    item = Item(
        id="colour",
        focus_on=FocusOn.REPLY,
        question="Does the reply name a colour?",
        pass_condition="A colour is named.",
        weight=1.0,
    )
    scenario = Scenario(
        name="judged",
        domain="test",
        source="test",
        split=Split.TEST,
        seed=0,
        system="",
        tools=(),
        turns=(ScenarioTurn(user="Name a colour.", checklist=(item,)),),
    )
    add_scenarios(serving.log, [scenario])
    create_trajectories(serving.log, [NewTrajectory("judged", Origin.CHAT, scenario_hash=scenario.hash)])
    client(serving, "judged").chat.completions.create(
        model="policy",
        messages=[{"role": "user", "content": "Name a colour."}],
        max_tokens=200,
        temperature=0,
    )
    port = serving.settings.server.port
    endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="policy", timeout_s=400)
    turn = get_turns(serving.log, "judged")[0]

    async def judge_it(mode: JudgeMode) -> None:
        role = RoleEndpoint(ModelRole.JUDGE, endpoint, log=serving.log)
        judge = Judge(serving.log, Panel((BoundedJudge(role, mode),)))
        judged = await judge.judge_turn(scenario, turn)
        assert role.spent.failed == 0 and 1 <= role.spent.calls <= 2, "a second call asks for the quote again"
        (verdict,) = judged.verdicts
        assert verdict.outcome in set(Outcome)
        assert verdict.reason
        assert verdict.outcome is not Outcome.PASS or verdict.quote

    await asyncio.gather(*map(judge_it, (JudgeMode.TURN, JudgeMode.ITEM, JudgeMode.STEP)))
    assert sum(total.calls for total in call_totals(serving.log) if total.role is ModelRole.JUDGE) >= 3


async def test_the_llm_simulator_answers_through_the_real_server(serving: Serving) -> None:
    """No recording, no world: the model answers in the tool's response schema, and equal calls get one answer."""
    schema = {
        "type": "object",
        "properties": {"weather": {"enum": ["sun", "rain"]}},
        "required": ["weather"],
        "additionalProperties": False,
    }
    tool = WEATHER.model_copy(update={"response_schema": schema})
    scenario = Scenario(
        name="simulated",
        domain="test",
        source="test",
        split=Split.TEST,
        seed=0,
        system="",
        tools=(tool,),
        turns=(ScenarioTurn(user="Weather in Oslo?", checklist=()),),
    )
    port = serving.settings.server.port
    endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="policy", timeout_s=400)
    simulator = Simulator(scenario, 1, LlmSimulator(RoleEndpoint(ModelRole.SIMULATOR, endpoint)))
    first = await simulator.answer("get_weather", {"city": "Oslo"}, "c1")
    again = await simulator.answer("get_weather", {"city": "oslo "}, "c2")
    assert first.source is ToolSource.LLM and not first.is_error
    assert json.loads(first.response)["weather"] in ("sun", "rain")
    assert (again.response, again.source) == (first.response, ToolSource.LLM)
    refused = await simulator.answer("get_weather", {"town": "Oslo"}, "c3")
    assert refused.is_error and refused.source is ToolSource.VALIDATION


def test_a_swap_loads_other_weights_and_a_false_proof_is_refused(serving: Serving, tmp_path: Path) -> None:
    """v0002 has other weights: a gate that borrows the server sees them, and `policy` is told to wait. v0003 claims
    logprobs that its weights do not have: the proof fails, the old version stays."""
    from safetensors.torch import load_file, save_file

    first = Path(get_version(serving.log, "v0001").path)
    second = tmp_path / "v0002"
    shutil.copytree(first, second)
    weights = load_file(second / "model.safetensors")
    for layer in range(0, 30, 5):
        weights[f"model.layers.{layer}.mlp.down_proj.weight"] *= -1
    save_file(weights, second / "model.safetensors", metadata={"format": "pt"})
    third = tmp_path / "v0003"
    shutil.copytree(second, third)
    probe = {"ids": [[1, 9690, 198, 2683]], "logprobs": [[-0.001, -0.001, -0.001]]}
    (third / "probe.json").write_text(json.dumps(probe))
    for version, path in (("v0002", second), ("v0003", third)):
        add_version(serving.log, version, parent="v0001", path=str(path), files={})

    def greedy(model: str, session: str) -> str:
        answer = client(serving, session).chat.completions.create(
            model=model,
            messages=ASK,  # type: ignore[arg-type]
            max_tokens=16,
            temperature=0,
        )
        return answer.choices[0].message.content or ""

    before = greedy("policy", "old")
    assert serving.gateway.stage("v0002")["accepted"]
    assert greedy("policy@v0002", "new") != before
    with pytest.raises(openai.InternalServerError, match="looking at a candidate") as busy:
        greedy("policy", "meanwhile")
    assert busy.value.response.headers["Retry-After"]
    assert serving.gateway.stage("v0001")["accepted"]
    figures = serving.gateway.promote("v0003", "test")
    assert not figures["accepted"]
    assert "nats a token away" in figures["proof"]["reason"]
    assert get_version(serving.log, "v0003").state is VersionState.REFUSED
    assert get_version(serving.log, "v0001").state is VersionState.LIVE
    assert greedy("policy", "kept") == before
