"""A small log that looks like the demo's, written through the store's public functions: for pages and pictures.

Three versions, eight scenarios of three domains (one of them unseen), evaluations before and after, two rounds of
groups, two GRPO runs with a gate decision each, one loop with its stages, one chat. What the policy does is drawn from
`seed`; the verdicts on it are those of the real checks. `python -m tests.sample_log URL [COPIES]` writes a larger one.
"""

import json
import math
import random
import sys
from dataclasses import dataclass
from typing import Any

from reward.checks import decide_check
from reward.rewards import ItemState, trajectory_reward, turn_reward
from store.database import Log, open_log
from store.records import (
    Called,
    Item,
    ReplyMentions,
    ResponseReceived,
    Scenario,
    ScenarioTurn,
    ToolSpec,
    TurnRecord,
)
from store.runs import add_metrics, add_run_trajectories, finish_run, start_run
from store.scenarios import add_scenarios, item_ids
from store.stages import finish_stage, open_loop, start_stage
from store.trajectories import (
    NewTrajectory,
    StepToRecord,
    ToolAnswer,
    create_group,
    create_trajectories,
    end_trajectory,
    record_step,
    record_tool_answers,
)
from store.turns import get_turns
from store.verdicts import Reward, Verdict, add_rewards, add_verdicts
from store.versions import add_gate_decision, add_version, set_version_state
from store.vocabulary import (
    FocusOn,
    JobStatus,
    Origin,
    Outcome,
    RunKind,
    Split,
    StopReason,
    ToolSource,
    VerdictSource,
    VersionState,
)

SKILL = {"v0001": 0.55, "v0002": 0.72, "v0003": 0.86}
"""How likely a version is to do one thing of a turn right."""

CHAT_ID = "chat-3f9a"


@dataclass(frozen=True)
class Branch:
    """Where a dialogue stands: its last step, and how many ids stand in its context with what that step sampled."""

    step_id: int | None = None
    length: int = 0


@dataclass(frozen=True)
class Errand:
    """One user turn: what is asked, the call that serves it, what the tool answers, what the reply must say."""

    user: str
    tool: str
    arguments: dict[str, Any]
    wrong: dict[str, Any]
    response: dict[str, Any]
    reply: str
    mentions: str


@dataclass(frozen=True)
class Domain:
    name: str
    seen: bool
    parameters: dict[str, dict[str, Any]]
    errands: tuple[Errand, ...]


TEXT = {"type": "string"}
DOMAINS = (
    Domain(
        "travel",
        True,
        {"search_trains": {"origin": TEXT, "destination": TEXT, "date": TEXT}, "book_seat": {"train_id": TEXT}},
        (
            Errand(
                "Which trains run from Lisbon to Porto on 14 May?",
                "search_trains",
                {"origin": "Lisbon", "destination": "Porto", "date": "2026-05-14"},
                {"origin": "Porto", "destination": "Lisbon", "date": "2026-05-14"},
                {"trains": [{"id": "AP-131", "departs": "09:05", "price": 31.5, "currency": "EUR"}]},
                "There is one train, AP-131, leaving Lisbon at 09:05 for 31.50 EUR.",
                "AP-131",
            ),
            Errand(
                "Good, a seat on that one, please.",
                "book_seat",
                {"train_id": "AP-131"},
                {"train_id": "AP-113"},
                {"booking": "B-70412", "seat": "14A", "coach": 3},
                "Done: coach 3, seat 14A. Your booking number is B-70412.",
                "B-70412",
            ),
        ),
    ),
    Domain(
        "shop",
        True,
        {"find_order": {"order_id": TEXT}, "start_return": {"order_id": TEXT, "reason": TEXT}},
        (
            Errand(
                "Where is my order 88-1204?",
                "find_order",
                {"order_id": "88-1204"},
                {"order_id": "88-1240"},
                {"order_id": "88-1204", "status": "shipped", "carrier": "Nordpost", "expected": "2026-05-16"},
                "Order 88-1204 has been shipped with Nordpost and should arrive on 16 May.",
                "Nordpost",
            ),
            Errand(
                "The kettle in it is broken, I would like to send it back.",
                "start_return",
                {"order_id": "88-1204", "reason": "broken"},
                {"order_id": "88-1204"},
                {"return_id": "R-5531", "label": "sent by mail"},
                "I have opened return R-5531; the label is on its way to your mailbox.",
                "R-5531",
            ),
        ),
    ),
    Domain(
        "banking",
        False,
        {"get_balance": {"account": TEXT}, "transfer": {"from": TEXT, "to": TEXT, "amount": {"type": "number"}}},
        (
            Errand(
                "How much is on my savings account?",
                "get_balance",
                {"account": "savings"},
                {"account": "current"},
                {"account": "savings", "balance": 2418.07, "currency": "EUR"},
                "Your savings account holds 2,418.07 EUR.",
                "2418.07",
            ),
            Errand(
                "Move 250 of it to my current account.",
                "transfer",
                {"from": "savings", "to": "current", "amount": 250},
                {"from": "current", "to": "savings", "amount": 250},
                {"transfer": "T-902", "status": "executed"},
                "Transfer T-902 is executed: 250 EUR went to your current account.",
                "T-902",
            ),
        ),
    ),
)


def build_sample_log(url: str, seed: int = 7, copies: int = 1) -> Log:
    """Writes the sample log at `url`; `copies` multiplies the scenarios that are evaluated and trained on."""
    log = open_log(url)
    rng = random.Random(seed)
    test = [scenario_of(d, 100 * n + k, Split.TEST) for n in range(copies) for d in DOMAINS for k in (1, 2)]
    train = [scenario_of(d, 900 + n, Split.TRAIN) for n in range(copies) for d in DOMAINS if d.seen]
    add_scenarios(log, [*test, *train])
    loop = open_loop(log, "demo", seed, {"rounds": 2}).name
    add_version(log, "v0001", parent=None, run_id=None, path="versions/v0001", files={}, figures={})
    set_version_state(log, "v0001", VersionState.LIVE, "the cold start")
    _stage(log, loop, "cold-start", 64.2, {"version": "v0001"})
    evaluate(log, test, "demo/before", "v0001", rng)
    _stage(log, loop, "evaluate-before", 41.8, {"batch": "demo/before"})
    for number, (base, candidate) in enumerate((("v0001", "v0002"), ("v0002", "v0003")), start=1):
        run_round(log, train, number, base, candidate, rng)
        _stage(log, loop, f"round-{number}", 131.0 + 7.5 * number, {"version": candidate})
    evaluate(log, test, "demo/after", "v0003", rng)
    _stage(log, loop, "evaluate-after", 39.4, {"batch": "demo/after"})
    _chat(log)
    return log


def scenario_of(domain: Domain, number: int, split: Split) -> Scenario:
    """A scenario of two turns with four items each."""
    tools = tuple(
        ToolSpec(
            name=name,
            description=name.replace("_", " ").capitalize(),
            parameters={"type": "object", "properties": properties, "required": sorted(properties)},
        )
        for name, properties in domain.parameters.items()
    )
    return Scenario(
        name=f"{domain.name}-{split}-{number:04d}",
        domain=domain.name,
        source="sample",
        split=split,
        seed=number,
        system="You are a helpful assistant. Use the tools.",
        tools=tools,
        turns=tuple(ScenarioTurn(user=errand.user, checklist=_checklist(errand)) for errand in domain.errands),
        seen=domain.seen,
        tags=("chained",),
    )


def _checklist(errand: Errand) -> tuple[Item, ...]:
    asked = ", ".join(f"{name} {value}" for name, value in errand.arguments.items())
    return (
        Item(
            id="call",
            focus_on=FocusOn.TOOL_CALLS,
            question=f"Did the assistant call {errand.tool} with {asked}?",
            weight=0.4,
            check=Called(tool=errand.tool, arguments=errand.arguments),
        ),
        Item(
            id="response",
            focus_on=FocusOn.TOOL_RESPONSE,
            question=f"Did {errand.tool} answer with {errand.mentions}?",
            weight=0.2,
            check=ResponseReceived(tool=errand.tool, values=(errand.mentions,)),
        ),
        Item(
            id="answer",
            focus_on=FocusOn.REPLY,
            question=f"Does the reply give {errand.mentions}?",
            required_for_next_turn=True,
            weight=0.3,
            check=ReplyMentions(all_of=((errand.mentions,),)),
        ),
        Item(
            id="no-apology",
            focus_on=FocusOn.REPLY,
            question="Does the reply refrain from saying that it failed?",
            weight=0.1,
            check=ReplyMentions(none_of=("sorry",)),
        ),
    )


def evaluate(log: Log, scenarios: list[Scenario], batch: str, version: str, rng: random.Random) -> None:
    """One greedy dialogue for each scenario, judged."""
    trajectories = [
        NewTrajectory(
            id=f"{batch.replace('/', '-')}-{number:04d}",
            origin=Origin.EVALUATION,
            scenario_hash=scenario.hash,
            batch=batch,
            version=version,
            seed=number,
            sampling={"temperature": 0.0},
        )
        for number, scenario in enumerate(scenarios)
    ]
    create_trajectories(log, trajectories)
    for trajectory, scenario in zip(trajectories, scenarios, strict=True):
        play(log, trajectory, scenario, rng)


def run_round(log: Log, scenarios: list[Scenario], number: int, base: str, candidate: str, rng: random.Random) -> None:
    """Groups of four, a GRPO run on them with its metrics, a candidate version, the gate's decision, the swap."""
    batch = f"demo/round-{number}/train"
    rewards: dict[str, float] = {}
    for index, scenario in enumerate(scenarios):
        group = create_group(log, scenario.hash, batch, base, seed=index)
        members = [
            NewTrajectory(
                id=f"round-{number}-{index:03d}-{member}",
                origin=Origin.ROLLOUT,
                scenario_hash=scenario.hash,
                group_id=group,
                batch=batch,
                member=member,
                version=base,
                seed=10 * index + member,
                sampling={"temperature": 1.0},
            )
            for member in range(4)
        ]
        create_trajectories(log, members)
        played = {member.id: play(log, member, scenario, rng) for member in members}
        known = [value for value in played.values() if value is not None]
        mean = sum(known) / len(known) if known else 0.0
        rewards |= {key: value - mean for key, value in played.items() if value is not None}
    run = start_run(
        log, f"demo-round-{number}", RunKind.GRPO, base, 7, {"learning_rate": 2e-5, "advantage": "trajectory"}
    )
    add_run_trajectories(log, run, rewards)
    for step in range(1, 13):
        progress = (step + 12 * (number - 1)) / 24
        wobble = rng.uniform(-1, 1)
        add_metrics(
            log,
            run,
            step,
            {
                "reward_mean": 0.38 + 0.4 * progress + 0.03 * wobble,
                "loss": 0.02 * wobble,
                "entropy": 0.9 * math.exp(-progress) + 0.02 * wobble,
                "mismatch_kl": 0.0008 + 0.0002 * wobble,
                "effective_sample_share": 0.97 - 0.05 * progress + 0.004 * wobble,
                "clipped_share": 0.02 + 0.01 * progress + 0.003 * wobble,
                "tokens_per_s": 540 + 12 * wobble,
            },
        )
    finish_run(log, run, JobStatus.DONE)
    add_version(log, candidate, parent=base, run_id=run, path=f"versions/{candidate}", files={}, figures={})
    gain = SKILL[candidate] - SKILL[base]
    reason = f"mean validation reward rose by {gain:.2f}, interval above 0"
    figures = {"pairs": 24, "difference": gain, "low": gain - 0.08, "high": gain + 0.08}
    figures |= {"candidate": SKILL[candidate], "live": SKILL[base]}
    add_gate_decision(log, candidate, base, True, figures, reason)
    set_version_state(log, candidate, VersionState.LIVE, reason)


def play(log: Log, trajectory: NewTrajectory, scenario: Scenario, rng: random.Random) -> float | None:
    """Plays and judges one dialogue; returns its reward, None where it could not be judged."""
    skill = SKILL[str(trajectory.version)]
    domain = next(d for d in DOMAINS if d.name == scenario.domain)
    if rng.random() < 0.02:
        end_trajectory(log, trajectory.id, StopReason.FAILED, "the tool simulator did not answer within 60 s")
        add_rewards(log, [Reward(trajectory.id, None, (), None, 0, "the dialogue failed")])
        return None
    branch = Branch()
    turn_values: list[float | None] = []
    verdicts: list[Verdict] = []
    stop = StopReason.COMPLETED
    keys = item_ids(log, scenario.hash)
    for turn_index, errand in enumerate(domain.errands):
        branch = _play_turn(log, trajectory, turn_index, errand, branch, skill, rng)
        turn = get_turns(log, trajectory.id)[turn_index]
        states, judged, strict_ok = _judge(scenario, turn, keys, rng)
        turn_values.append(turn_reward(states))
        verdicts += judged
        if not strict_ok:
            stop = StopReason.STRICT_ITEM
            break
    end_trajectory(log, trajectory.id, stop)
    add_verdicts(log, verdicts)
    value = trajectory_reward(turn_values, len(scenario.turns))
    unscored = sum(v.outcome == Outcome.UNSCORED for v in verdicts)
    passed = None if value is None else value > 1 - 1e-9
    excluded = f"{unscored} items could not be judged" if unscored else None
    add_rewards(log, [Reward(trajectory.id, value, tuple(turn_values), passed, unscored, excluded)])
    return value


def _play_turn(
    log: Log,
    trajectory: NewTrajectory,
    turn_index: int,
    errand: Errand,
    branch: Branch,
    skill: float,
    rng: random.Random,
) -> Branch:
    right_call, right_reply, broken = rng.random() < skill, rng.random() < skill, rng.random() < 0.05
    call_id = f"call-{turn_index}-0"
    arguments = json.dumps(errand.arguments if right_call else errand.wrong)
    if broken:
        arguments = arguments[:-1]
    new_ids = 60 if branch.step_id else 180
    context = branch.length + new_ids
    step = StepToRecord(
        trajectory_id=trajectory.id,
        turn_index=turn_index,
        index=0,
        parent_id=branch.step_id,
        user=errand.user,
        version=str(trajectory.version),
        new_messages=[{"role": "user", "content": errand.user}],
        tools_hash=None,
        message={
            "content": "",
            "reasoning": f"The user needs {errand.tool}. I have every argument it asks for.",
            "tool_calls": [{"id": call_id, "name": errand.tool, "arguments": arguments}],
        },
        delta_ids=list(range(new_ids)),
        sampled_ids=list(range(38)),
        logprobs=[-0.2] * 38,
        context_tokens=context,
        finish_reason="tool_calls",
        latency_ms=rng.uniform(180, 420),
        sampling=trajectory.sampling or {},
        trainable=True,
        untrainable_reason=None,
    )
    first = record_step(log, step)
    if broken:
        source, response, is_error = ToolSource.VALIDATION, {"error": "the arguments are not valid JSON"}, True
    elif right_call:
        source, response, is_error = ToolSource.RECORDED, errand.response, False
    else:
        source, response, is_error = ToolSource.WORLD, {"error": "nothing found"}, True
    answer = ToolAnswer(call_id, json.dumps(response), is_error, source, rng.uniform(1, 6))
    record_tool_answers(log, trajectory.id, [answer])
    good = right_call and right_reply and not broken
    reply = (
        errand.reply if good else "I am sorry, I could not find that." if not right_reply else "That is taken care of."
    )
    last = record_step(
        log,
        StepToRecord(
            trajectory_id=trajectory.id,
            turn_index=turn_index,
            index=1,
            parent_id=first,
            user=errand.user,
            version=str(trajectory.version),
            new_messages=[{"role": "tool", "tool_call_id": call_id, "content": json.dumps(response)}],
            tools_hash=None,
            message={"content": reply, "reasoning": "The tool has answered; I tell the user.", "tool_calls": []},
            delta_ids=list(range(30)),
            sampled_ids=list(range(24)),
            logprobs=[-0.3] * 24,
            context_tokens=context + 38 + 30,
            finish_reason="stop",
            latency_ms=rng.uniform(120, 300),
            sampling=trajectory.sampling or {},
            trainable=True,
            untrainable_reason=None,
        ),
    )
    return Branch(last, context + 38 + 30 + 24)


def _judge(
    scenario: Scenario, turn: TurnRecord, keys: dict[tuple[int, str], int], rng: random.Random
) -> tuple[list[ItemState], list[Verdict], bool]:
    states, verdicts, strict_ok = [], [], True
    for item in scenario.turns[turn.index].checklist:
        assert item.check is not None
        result = decide_check(item.check, turn)
        scored = rng.random() > 0.01
        outcome = Outcome.UNSCORED if not scored else Outcome.PASS if result.satisfied else Outcome.FAIL
        first = result.step_index if outcome == Outcome.PASS else None
        verdicts.append(
            Verdict(
                trajectory_id=turn.trajectory_id,
                turn_index=turn.index,
                item_id=keys[turn.index, item.id],
                item_key=item.id,
                outcome=outcome,
                step_index=first,
                source=VerdictSource.CODE,
                judge=f"check:{item.check.kind}",
                prompt_hash=None,
                reason=result.reason if scored else "the judge did not answer within 60 s",
                quote=result.quote if scored else "",
            )
        )
        states.append(ItemState(item.id, item.weight, first, item.depends_on, scored))
        strict_ok = strict_ok and not (item.required_for_next_turn and outcome == Outcome.FAIL)
    return states, verdicts, strict_ok


def _stage(log: Log, loop: str, key: str, seconds: float, result: dict[str, Any]) -> None:
    start_stage(log, loop, key)
    finish_stage(log, loop, key, result, seconds)


def _chat(log: Log) -> None:
    title = "Trains to Porto"
    create_trajectories(log, [NewTrajectory(id=CHAT_ID, origin=Origin.CHAT, version="v0003", title=title)])
    chat = NewTrajectory(id=CHAT_ID, origin=Origin.CHAT, version="v0003")
    _play_turn(log, chat, 0, DOMAINS[0].errands[0], Branch(), 1.0, random.Random(1))


if __name__ == "__main__":
    build_sample_log(sys.argv[1], copies=int(sys.argv[2]) if len(sys.argv) > 2 else 1)
