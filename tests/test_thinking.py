"""Thinking that an LLM shortened: what is taken, what stays, what a killed command asks again."""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.role_endpoint import RoleEndpoint
from store.database import Log
from store.records import RecordedCall, ReferenceStep, Scenario, ScenarioTurn
from store.scenarios import add_scenarios
from store.settings import CompressionSettings, DataSettings
from store.sft_sets import Compression, compressions_by, get_sft_set
from tests.scripted_annotator import Answer, endpoint, in_turn
from tests.store_examples import WEATHER, a_scenario
from train.compressor import Compressor
from train.dialogue_work import DialogueReport, ask_about_dialogues
from train.errors import TrainingFailed
from train.references import reference_messages
from train.scenario_filters import filter_scenarios
from train.sft_dialogues import read_dialogues
from train.sft_set import make_set, set_lines
from train.thinking import kind_of, why_untrue, with_thinking

LONG = (
    "The user wants to know about rain in Oslo, which I do not know by myself, so I should call get_weather for the "
    "city, and then, if it is below 4.50 degrees or rains more than 1,200 mm, say that an umbrella and a coat are due."
)
SHORT = "Unknown: call get_weather, then below 4.5 degrees or above 1200 mm advise umbrella and coat."
TOOLS = ("get_weather", "book")


@pytest.mark.parametrize(
    ("shorter", "why"),
    [
        (SHORT, None),
        ("", "it is empty"),
        (LONG + " Really.", "it is not shorter"),
        ("<think>" + SHORT, "it holds tags"),
        ("Ask; below 4.5 or above 1200 advise umbrella.", "a tool is not named any more: get_weather"),
        (SHORT + " Then book.", "another tool is named: book"),
        ("Call get_weather; below 4.5 advise umbrella.", "a number is lost: 1200"),
        (SHORT + " In 3 days.", "a number is invented: 3"),
    ],
)
def test_a_shorter_passage_keeps_tools_and_numbers(shorter: str, why: str | None) -> None:
    assert why_untrue(LONG, shorter, TOOLS) == why


@pytest.mark.parametrize(
    ("original", "shorter", "why"),
    [
        ("It may be as cold as -5 degrees there.", "As cold as 5 degrees.", "a number is lost: -5"),
        ("It may be as cold as 5 degrees there.", "As cold as -5 degrees.", "a number is lost: 5"),
        ("The balance was −$1,200.50 by the end of it.", "The balance: -1200.5.", None),
        ("From 3-5 on 2026-01-31, so it may be long.", "Of 2026-01-31: 3 to 5.", None),
        ("It goes from 10 to -5 and that is all.", "From 10 to (-5).", None),
    ],
)
def test_a_number_keeps_its_sign(original: str, shorter: str, why: str | None) -> None:
    assert why_untrue(original, shorter, TOOLS) == why


def test_tools_keep_their_order() -> None:
    original = "First I call get_weather to see, and only then I book the boat for the day."
    assert why_untrue(original, "get_weather, then book.", TOOLS) is None
    assert (
        kind_of(str(why_untrue(original, "book after get_weather.", TOOLS))) == "the tools are named in another order"
    )


def dialogue(name: str = "rain", thoughts: Sequence[str] = (LONG, LONG), **changes: Any) -> Scenario:
    call = RecordedCall(name="get_weather", arguments={"city": "Oslo"}, response='{"rain":true}')
    steps = (ReferenceStep(thinking=thoughts[0], calls=(call,)), ReferenceStep(thinking=thoughts[1], reply="Yes."))
    turns = (ScenarioTurn(user=f"{name}: rain?", reference=steps, checklist=a_scenario().turns[0].checklist),)
    return a_scenario(name, turns=turns, tools=(WEATHER,), **changes)


def says(**passages: str) -> str:
    """`says(p00="…")`: an answer for turn 0, step 0."""
    return json.dumps({"passages": {f"{key[1]}.{key[2]}": text for key, text in passages.items()}})


def run(
    log: Log, answer: Answer | RoleEndpoint, scenarios: Sequence[Scenario], **more: Any
) -> DialogueReport[Compression]:
    add_scenarios(log, scenarios)
    asked = answer if isinstance(answer, RoleEndpoint) else endpoint(answer, log)
    return asyncio.run(ask_about_dialogues(Compressor(log, asked, CompressionSettings()), scenarios, **more))


def asked_for(body: dict[str, Any]) -> list[str]:
    return list(body["response_format"]["json_schema"]["schema"]["properties"]["passages"]["properties"])


def test_only_what_stays_true_is_taken_and_the_rest_goes_back_once(log: Log) -> None:
    bodies: list[dict[str, Any]] = []
    answers = iter([says(p00=SHORT, p01="Umbrella."), says(p01="No idea.")])

    def answer(body: dict[str, Any]) -> str:
        bodies.append(body)
        return next(answers)

    scenario = dialogue()
    report = run(log, answer, [scenario])
    assert [asked_for(body) for body in bodies] == [["0.0", "0.1"], ["0.1"]]
    assert "0.1: a tool is not named any more: get_weather" in bodies[1]["messages"][-1]["content"]
    made = report.done[scenario.hash]
    assert made.passages == ((0, 0, SHORT),)
    assert made.problems == ((0, 1, "a tool is not named any more: get_weather"),)
    assert (report.asked, report.cost.calls) == (1, 2)
    shorter = with_thinking(scenario, {(t, s): text for t, s, text in made.passages})
    assert [step.thinking for step in shorter.turns[0].reference] == [SHORT, LONG]
    assert with_thinking(shorter, {(0, 0): LONG}) == scenario, "nothing but thinking has changed"


def test_what_was_asked_is_not_asked_again_and_short_thinking_never(log: Log) -> None:
    first, second, short = dialogue("a"), dialogue("b"), dialogue("c", ("Ask.", "Tell."))
    good = says(p00=SHORT, p01=SHORT)
    both = run(log, in_turn(good, "no JSON", "{}"), [first, second, short])
    assert (both.asked, both.skipped) == (2, 1)
    assert compressions_by(log, "big", next(iter(both.done.values())).prompt_hash) == both.done
    assert sorted(len(one.passages) for one in both.done.values()) == [0, 2]
    again = run(log, in_turn(), [first, second, short])
    assert (again.asked, again.skipped, again.done) == (0, 3, both.done)


def test_no_answer_is_asked_for_the_next_time_and_a_limit_stops_cleanly(sqlite_log: Log) -> None:
    import httpx2

    scenario = dialogue()
    failed = run(sqlite_log, lambda body: httpx2.Response(500, json={}), [scenario])
    assert len(failed.failed) == 1 and failed.done == {}
    limited = run(sqlite_log, endpoint(in_turn(), sqlite_log, max_usd=1e-6), [scenario])
    assert limited.stopped is not None and limited.left == 1
    done = run(sqlite_log, lambda body: says(p00=SHORT, p01=SHORT), [scenario])
    assert len(done.done) == 1


def test_sets_made_at_the_same_time_keep_a_file_each(log: Log, tmp_path: Path) -> None:
    scenarios = [dialogue(f"s{n}", (f"{LONG} Number {n}.", LONG)) for n in range(4)]
    add_scenarios(log, scenarios)
    filtered = filter_scenarios(log, DataSettings(self_test=False, duplicate_dialogues=False))

    def make(n: int) -> str:
        ours = replace(filtered, kept=tuple(one for one in filtered.kept if one.name == f"s{n}"))
        return make_set(log, tmp_path, ours, {}, DataSettings(), lambda _: 1).set.name

    with ThreadPoolExecutor(4) as several:
        names = list(several.map(make, range(4)))
    assert sorted(names) == ["data-0001", "data-0002", "data-0003", "data-0004"]
    for n, name in enumerate(names):
        (only,) = read_dialogues(get_sft_set(log, name))
        assert only.name == f"s{n}"
    assert not list((tmp_path / "data").glob(".*")), "nothing half-made is left"


def test_a_set_holds_what_was_kept_and_is_made_once(log: Log, tmp_path: Path) -> None:
    train, same, held_out = dialogue("a"), dialogue("b"), dialogue("c", split="validation")
    same = same.model_copy(update={"turns": train.turns})
    test, unfit = dialogue("t", split="test"), a_scenario("u")
    add_scenarios(log, [train, same, held_out, test, unfit])
    report = run(log, lambda body: says(p00=SHORT), [train])
    wanted = DataSettings(self_test=False)

    def words(scenario: Scenario) -> int:
        return sum(len(str(message.get("reasoning_content", "")).split()) for message in reference_messages(scenario))

    filtered = filter_scenarios(log, wanted)
    made = make_set(log, tmp_path, filtered, report.done, wanted, words)
    assert made.is_new and made.set.name == "data-0001"
    assert set_lines(made.set) == [
        "data-0001: 2 dialogues (1 of split train, 1 of split validation) of 4 scenarios, "
        f"in {tmp_path}/data/data-0001.jsonl",
        "  left out: 1: the same dialogue as an earlier scenario's (data.duplicate_dialogues)",
        "  left out: 1: a turn has no reference",
        f"{4 * len(LONG.split())} tokens before, {3 * len(LONG.split()) + len(SHORT.split())} after (-17 %); "
        "1 passages shortened",
        "  the original stays: 1: the answer has no such passage",
    ]
    stored = get_sft_set(log)
    assert (stored.name, stored.sha256, stored.figures) == ("data-0001", made.set.sha256, made.set.figures)
    first, second = read_dialogues(stored)
    assert (first.scenario, second.scenario, second.split) == (train.hash, held_out.hash, "validation")
    assert [m.get("reasoning_content") for m in first.messages] == [None, None, SHORT, None, LONG]
    assert not make_set(log, tmp_path, filtered, report.done, wanted, words).is_new
    assert make_set(log, tmp_path, filtered, {}, wanted, words).set.name == "data-0002"
    with pytest.raises(TrainingFailed, match=r"no dialogue of split train.*max_tokens = 3"):
        make_set(log, tmp_path, filtered, {}, wanted.model_copy(update={"max_tokens": 3}), words)
    Path(stored.path).write_text("{}")
    with pytest.raises(TrainingFailed, match="was changed since it was written"):
        read_dialogues(stored)
