"""Generated scenarios: their references pass, corrupted ones fail, lazy policies earn little, splits do not overlap."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import pytest
from jsonschema import Draft202012Validator

from env_sim.scenario_generator import SEEN_DOMAINS, UNSEEN_DOMAINS, generate_scenarios
from env_sim.worlds import WORLDS, build_world
from reward.checks import decide_check
from reward.rewards import ItemState, is_paid, trajectory_reward, turn_reward
from store.records import (
    Called,
    CallRecord,
    Item,
    ReplyAsks,
    ReplyMentions,
    Scenario,
    ScenarioTurn,
    StepRecord,
    TurnRecord,
)
from store.vocabulary import FocusOn, Split
from tests.turn_records import call, reference_turn, turn

SPLITS = list(Split)
CODE = re.compile(r"[A-Z]\d\d")
TIMEOUT = {"is_error": True, "response": '{"error":"timeout"}'}
LAZY_REPLIES = {
    "empty": "",
    "generic": "Done! Let me know if you need anything else.",
    "refusal": "Sorry, I can't do that.",
    "question": "Could you tell me more about what you need?",
    "every question": "Which date, time, city, room, name, number, account, amount, plan, topic or reason do you mean?",
}


@lru_cache
def scenarios(split: Split, count: int = 320, seed: int = 0) -> tuple[Scenario, ...]:
    return tuple(generate_scenarios(split, count, seed))


def states(checklist: tuple[Item, ...], played: TurnRecord) -> list[ItemState]:
    results = [(item, decide_check(item.check, played)) for item in checklist if item.check is not None]
    assert len(results) == len(checklist), "every bundled item carries a check"
    return [ItemState(item.id, item.weight, result.step_index, item.depends_on) for item, result in results]


def earned(scenario: Scenario, policy: Callable[[ScenarioTurn, int], TurnRecord]) -> float:
    """The trajectory reward of a policy; the dialogue ends at the first turn with a failed strict item."""
    rewards = []
    for index, spoken in enumerate(scenario.turns):
        items = states(spoken.checklist, policy(spoken, index))
        rewards.append(turn_reward(items))
        passed = {state.key for state in items if state.first_satisfied is not None}
        if any(item.required_for_next_turn and item.id not in passed for item in spoken.checklist):
            break
    reward = trajectory_reward(rewards, len(scenario.turns))
    assert reward is not None
    return reward


def mean_reward(policy: Callable[[ScenarioTurn, int], TurnRecord], split: Split = Split.TRAIN) -> float:
    played = [earned(scenario, policy) for scenario in scenarios(split)]
    return sum(played) / len(played)


def reference_turns(split: Split) -> Iterator[tuple[ScenarioTurn, TurnRecord]]:
    for scenario in scenarios(split):
        for index, spoken in enumerate(scenario.turns):
            yield spoken, reference_turn(spoken, index)


def fails(item: Item, played: TurnRecord) -> bool:
    assert item.check is not None
    return not decide_check(item.check, played).satisfied


def with_calls(played: TurnRecord, change: Callable[[CallRecord], CallRecord | None]) -> TurnRecord:
    steps = []
    for step in played.steps:
        calls = tuple(changed for c in step.calls if (changed := change(c)) is not None)
        if calls or step.is_reply:
            steps.append(StepRecord(**{**dict(step), "calls": calls}))
    return played.model_copy(update={"steps": tuple(steps)})


def with_reply(played: TurnRecord, reply: str) -> TurnRecord:
    last = played.steps[-1].model_copy(update={"content": reply})
    return played.model_copy(update={"steps": (*played.steps[:-1], last)})


@pytest.mark.parametrize("split", SPLITS)
def test_the_reference_earns_the_full_reward(split: Split) -> None:
    for scenario in scenarios(split):
        assert earned(scenario, reference_turn) == pytest.approx(1.0), scenario.name


@pytest.mark.parametrize("split", SPLITS)
def test_every_item_can_be_paid_and_weights_add_to_exactly_one(split: Split) -> None:
    for spoken, played in reference_turns(split):
        items = states(spoken.checklist, played)
        assert all(is_paid(item, items) for item in items)
        assert sum(round(100 * item.weight) for item in spoken.checklist) == 100
        assert 2 <= len(spoken.checklist) <= 4
        assert any(item.required_for_next_turn for item in spoken.checklist)


@pytest.mark.parametrize("split", SPLITS)
def test_replayed_calls_get_the_recorded_responses_and_obey_their_schemas(split: Split) -> None:
    for scenario in scenarios(split):
        assert scenario.world is not None
        world = build_world(scenario.world, [tool.name for tool in scenario.tools])
        schemas = {tool.name: Draft202012Validator(tool.parameters) for tool in scenario.tools}
        for recorded in (c for t in scenario.turns for step in t.reference for c in step.calls):
            schemas[recorded.name].validate(recorded.arguments)
            response = world.call(recorded.name, recorded.arguments)
            assert (response.text, response.is_error) == (recorded.response, recorded.is_error)


@pytest.mark.parametrize("split", SPLITS)
def test_evidence_points_into_the_reference(split: Split) -> None:
    for spoken, _ in reference_turns(split):
        for item in spoken.checklist:
            for evidence in item.evidence:
                step = spoken.reference[evidence.step]
                shown = {
                    FocusOn.REPLY: step.reply or "",
                    FocusOn.TOOL_CALLS: " ".join(c.name for c in step.calls),
                    FocusOn.TOOL_RESPONSE: " ".join(c.response for c in step.calls),
                }
                assert evidence.channel is item.focus_on
                assert evidence.snippet in shown[evidence.channel]
        pointed = {item.focus_on for item in spoken.checklist if item.evidence}
        assert FocusOn.REPLY in pointed


@pytest.mark.parametrize("split", SPLITS)
def test_a_dropped_or_failed_call_fails_its_item(split: Split) -> None:
    for spoken, played in reference_turns(split):
        for item in spoken.checklist:
            if isinstance(item.check, Called):
                check = item.check

                def is_meant(c: CallRecord, check: Called = check) -> bool:
                    return c.name == check.tool and check.arguments.items() <= dict(c.arguments or {}).items()

                assert fails(item, with_calls(played, lambda c: None if is_meant(c) else c))
                assert fails(item, with_calls(played, lambda c: c.model_copy(update=TIMEOUT) if is_meant(c) else c))


@pytest.mark.parametrize("split", SPLITS)
def test_a_wrong_argument_fails_the_item(split: Split) -> None:
    for spoken, played in reference_turns(split):
        for item in spoken.checklist:
            if isinstance(item.check, Called):
                for name in item.check.arguments:

                    def corrupt(c: CallRecord, name: str = name) -> CallRecord:
                        arguments = dict(c.arguments or {})
                        if name in arguments:
                            arguments[name] = "Atlantis" if isinstance(arguments[name], str) else -99
                        return c.model_copy(update={"arguments": arguments})

                    assert fails(item, with_calls(played, corrupt))


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_reply_or_one_without_the_value_fails_the_reply_items(split: Split) -> None:
    for spoken, played in reference_turns(split):
        for item in spoken.checklist:
            if item.focus_on is FocusOn.REPLY:
                assert fails(item, with_reply(played, ""))
                assert fails(item, with_reply(played, "All good, anything else?"))
            if isinstance(item.check, ReplyMentions):
                others = played.reply
                for alternatives in item.check.all_of:
                    for phrase in alternatives:
                        others = re.sub(rf"(?<!\w){re.escape(phrase)}(?!\w)", "nothing", others, flags=re.IGNORECASE)
                assert fails(item, with_reply(played, others))


def test_a_call_made_up_instead_of_asking_or_declining_fails_the_item_against_calls() -> None:
    seen = 0
    for spoken, played in reference_turns(Split.TRAIN):
        for item in spoken.checklist:
            if item.id == "no_calls":
                tools = getattr(item.check, "tools", ()) or ("get_flight",)
                made_up = turn([call(tools[0], {})], played.reply)
                assert fails(item, made_up)
                seen += 1
    assert seen > 30


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("reply", LAZY_REPLIES.values(), ids=LAZY_REPLIES.keys())
def test_a_policy_that_always_says_the_same_earns_little(reply: str, split: Split) -> None:
    assert mean_reward(lambda spoken, index: turn(reply, index=index), split) < 0.15


def test_a_policy_that_repeats_the_user_or_calls_tools_blindly_earns_little() -> None:
    assert mean_reward(lambda spoken, index: turn(spoken.user, index=index)) < 0.15
    assert mean_reward(lambda spoken, index: turn(f"Sorry, I can't. {spoken.user} Which one?", index=index)) < 0.2

    def blind(spoken: ScenarioTurn, index: int) -> TurnRecord:
        return turn([call("find_flight", {"query": "Rome"})], "Here you are.", index=index)

    assert mean_reward(blind) < 0.05


def test_the_same_seed_gives_identical_scenarios_and_a_longer_list_begins_with_the_shorter() -> None:
    hashes = [scenario.hash for scenario in generate_scenarios(Split.TRAIN, 40, 7)]
    assert hashes == [scenario.hash for scenario in generate_scenarios(Split.TRAIN, 40, 7)]
    assert hashes[:15] == [scenario.hash for scenario in generate_scenarios(Split.TRAIN, 15, 7)]
    assert not set(hashes) & {scenario.hash for scenario in generate_scenarios(Split.TRAIN, 40, 8)}


def said(scenario: Scenario) -> tuple[str, ...]:
    return tuple(spoken.user for spoken in scenario.turns)


def test_splits_share_neither_scenarios_nor_dialogues() -> None:
    hashes = Counter(scenario.hash for split in SPLITS for scenario in scenarios(split))
    assert max(hashes.values()) == 1
    spoken = {split: {said(scenario) for scenario in scenarios(split)} for split in SPLITS}
    assert not spoken[Split.TRAIN] & spoken[Split.TEST]
    assert not spoken[Split.TRAIN] & spoken[Split.VALIDATION]
    assert not spoken[Split.VALIDATION] & spoken[Split.TEST]


def values(split: Split) -> set[str]:
    return values_of(scenarios(split))


def values_of(played: Sequence[Scenario]) -> set[str]:
    """Words that users and tools use as values: no ids, no switch states, no clock times that tools compute."""
    arguments = [
        value
        for scenario in played
        for spoken in scenario.turns
        for step in spoken.reference
        for c in step.calls
        for value in c.arguments.values()
    ]
    return {v for v in arguments if isinstance(v, str) and not CODE.fullmatch(v) and v not in ("on", "off")}


def test_a_share_of_validation_and_test_has_values_that_never_occur_in_training() -> None:
    assert len(values(Split.TRAIN)) > 120
    for split in (Split.TEST, Split.VALIDATION):
        new = [scenario for scenario in scenarios(split) if scenario.world is not None and scenario.world.seed % 2]
        assert 0.2 < len(new) / len(scenarios(split)) < 0.4
        assert not values(Split.TRAIN) & values_of(new)
    assert not any(scenario.world.seed % 2 for scenario in scenarios(Split.TRAIN) if scenario.world is not None)


def test_wording_varies() -> None:
    texts = [text for scenario in scenarios(Split.TRAIN) for text in said(scenario)]
    assert len(set(texts)) > 0.95 * len(texts)
    assert not [text for text in texts if re.search(r"[.?!][.,?]|\.\s*please$", text)]
    openings = Counter(" ".join(text.split()[:2]) for text in texts)
    assert max(openings.values()) < 0.12 * len(texts)


@pytest.mark.parametrize("split", SPLITS)
def test_the_mix_of_turns_skills_and_tools_is_as_designed(split: Split) -> None:
    played = scenarios(split)
    lengths = Counter(len(scenario.turns) for scenario in played)
    assert set(lengths) == {1, 2, 3, 4}
    assert 1.2 <= sum(n * count for n, count in lengths.items()) / len(played) <= 1.85
    skills = Counter(tag for scenario in played for tag in scenario.tags)
    needed = {"chained", "parallel", "missing_parameter", "no_tool", "error_recovery", "ordered", "single_call"}
    assert needed - {"ordered"} <= set(skills) <= needed
    assert all(skills[name] >= 0.02 * len(played) for name in needed - {"ordered"})
    for scenario in played:
        assert scenario.tags and len(set(scenario.tags) - {"single_call"}) <= 2
        assert 3 <= len(scenario.tools) <= 6


def test_dialogues_stay_small() -> None:
    for scenario in scenarios(Split.TRAIN):
        for step in (step for spoken in scenario.turns for step in spoken.reference):
            assert len(step.thinking.split()) <= 12 and (step.thinking or step.reply)
            assert len((step.reply or "").split()) <= 26
            assert all(len(c.response) <= 110 for c in step.calls)
    sizes = [
        len(json.dumps([s.user + str(s.reference) for s in scenario.turns])) for scenario in scenarios(Split.TRAIN)
    ]
    assert sum(sizes) / len(sizes) < 2500


def test_parallel_means_two_calls_in_one_step_and_a_question_asks_about_what_is_missing() -> None:
    for scenario in scenarios(Split.TRAIN):
        widths = [len(step.calls) for spoken in scenario.turns for step in spoken.reference]
        assert ("parallel" in scenario.tags) == (max(widths) == 2)
        asks = any(isinstance(item.check, ReplyAsks) for spoken in scenario.turns for item in spoken.checklist)
        assert asks == ("missing_parameter" in scenario.tags)


def test_only_the_test_split_holds_unseen_domains() -> None:
    assert {scenario.domain for scenario in scenarios(Split.TRAIN)} == set(SEEN_DOMAINS)
    assert {scenario.domain for scenario in scenarios(Split.TEST)} == {*SEEN_DOMAINS, *UNSEEN_DOMAINS}
    assert all(scenario.seen == (scenario.domain in SEEN_DOMAINS) for scenario in scenarios(Split.TEST))
    unseen_tools = {tool.name for name in UNSEEN_DOMAINS for tool in WORLDS[name].tools}
    assert not unseen_tools & {tool.name for scenario in scenarios(Split.TRAIN) for tool in scenario.tools}
    with pytest.raises(ValueError, match="'library' is unseen"):
        generate_scenarios(Split.TRAIN, 1, 0, ["library"])


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown domain 'moon'"):
        generate_scenarios(Split.TRAIN, 1, 0, ["moon"])
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        generate_scenarios(Split.TRAIN, -1, 0)
    with pytest.raises(ValueError, match="no domains"):
        generate_scenarios(Split.TRAIN, 1, 0, [])


def test_two_hundred_scenarios_take_less_than_a_second_of_cpu() -> None:
    started = time.process_time()
    generate_scenarios(Split.TEST, 200, 99)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("split", SPLITS)
def test_every_argument_can_be_read_in_what_the_user_said_or_a_tool_answered(split: Split) -> None:
    for scenario in scenarios(split):
        known = ""
        for spoken in scenario.turns:
            known += f" {spoken.user.lower()}"
            for step in spoken.reference:
                for recorded in step.calls:
                    for value in recorded.arguments.values():
                        assert str(value).lower() in known, (scenario.name, recorded)
                known += " ".join(c.response.lower() for c in step.calls)


@pytest.mark.parametrize("split", SPLITS)
def test_every_tool_that_the_reference_needs_is_offered(split: Split) -> None:
    for scenario in scenarios(split):
        offered = {tool.name for tool in scenario.tools}
        for spoken in scenario.turns:
            assert {c.name for step in spoken.reference for c in step.calls} <= offered
            assert {item.check.tool for item in spoken.checklist if isinstance(item.check, Called)} <= offered
