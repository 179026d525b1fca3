"""Which reference dialogues an LLM finds unfit: rising effort, the first flag decides, nothing is asked twice."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.role_endpoint import RoleEndpoint
from store.database import Log
from store.records import Scenario
from store.scenarios import add_scenarios
from store.settings import DataSettings, FilteringSettings, SettingsError, load_settings
from store.sft_sets import Criticism
from tests.scripted_annotator import Answer, endpoint, in_turn
from tests.test_thinking import dialogue
from train.dialogue_critic import DialogueCritic, unfit_reasons
from train.dialogue_work import DialogueReport, ask_about_dialogues
from train.scenario_filters import filter_scenarios, leave_out
from train.sft_set import make_set

FIT, UNFIT = json.dumps({"problem": "", "unfit": False}), json.dumps({"problem": "turn 1: no call", "unfit": True})
USUAL = FilteringSettings()


def run(
    log: Log, answer: Answer, scenarios: Sequence[Scenario], settings: FilteringSettings = USUAL, **more: Any
) -> DialogueReport[Criticism]:
    add_scenarios(log, scenarios)
    return asyncio.run(ask_about_dialogues(DialogueCritic(log, endpoint(answer, log), settings), scenarios, **more))


def test_effort_rises_and_the_first_flag_decides(log: Log) -> None:
    asked: list[tuple[str, str | None, int]] = []

    def answer(body: dict[str, Any]) -> str:
        shown = body["messages"][1]["content"]
        name = "rain" if "rain: rain?" in shown else "snow"
        asked.append((name, body.get("reasoning_effort"), body["seed"]))
        assert shown.startswith("<data-") and shown.count("<data-") == 1 and "call: get_weather" in shown
        return UNFIT if (name, body.get("reasoning_effort")) == ("rain", "medium") else FIT

    report = run(log, answer, [dialogue("rain"), dialogue("snow")])
    efforts = {name: [effort for one, effort, _ in asked if one == name] for name in ("rain", "snow")}
    assert efforts == {
        "rain": ["low", "low", "medium"],
        "snow": ["low", "low", "medium", "medium", "high", "high"],
    }
    assert sorted(seed for name, _, seed in asked if name == "snow") == [1, 2, 3, 4, 5, 6], "no draw repeats another"
    found = {(one.problem, one.effort, one.questions) for one in report.done.values()}
    assert found == {("turn 1: no call", "medium", 3), ("", "high", 6)}
    assert (report.asked, report.cost.calls, report.left, report.failed) == (2, 9, 0, [])
    again = run(log, answer, [dialogue("rain"), dialogue("snow"), dialogue("rain")])
    assert (again.asked, again.done) == (0, report.done) and len(asked) == 9
    other = run(log, answer, [dialogue("rain")], FilteringSettings(efforts=("",), draws=1))
    assert other.asked == 1 and asked[-1][1] is None, "another procedure decides anew, and may tell no effort"
    assert run(log, answer, [dialogue("rain")], again=True).asked == 1


@pytest.mark.parametrize("said", ["no idea", '{"unfit": "yes"}', "[]", '{"problem": "cut of'])
def test_an_answer_that_does_not_say_decides_nothing(sqlite_log: Log, said: str) -> None:
    report = run(sqlite_log, in_turn(FIT, said), [dialogue()])
    assert report.done == {} and "no usable answer" in report.failed[0]
    (reason,) = unfit_reasons(report, [dialogue()]).values()
    assert reason == "the LLM gave no answer ([filter])"
    assert run(sqlite_log, in_turn(*[FIT] * 6), [dialogue()]).asked == 1, "it is asked about the next time"


def test_the_set_is_without_them_and_says_so(sqlite_log: Log, tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        return UNFIT if "snow: rain?" in body["messages"][1]["content"] else FIT

    report = run(sqlite_log, answer, [dialogue("rain"), dialogue("snow")])
    wanted = DataSettings(self_test=False)
    filtered = filter_scenarios(sqlite_log, wanted)
    kept = leave_out(filtered, unfit_reasons(report, filtered.kept))
    assert [scenario.name for scenario in kept.kept] == ["rain"] and kept.looked_at == 2
    made = make_set(sqlite_log, tmp_path, kept, {}, wanted, lambda _: 1).set
    assert made.dialogues == 1
    assert made.figures["left_out"] == {"unfit by the LLM at effort low ([filter])": 1}


def test_what_it_may_cost_is_that_of_dialogues_without_a_flag(sqlite_log: Log) -> None:
    critic = DialogueCritic(sqlite_log, endpoint(in_turn(), sqlite_log), USUAL)
    estimate = critic.estimate(dialogue())
    assert (estimate.calls, estimate.completion_tokens) == (6, 2 * (3 * 200 + 1000 + 4000 + 16000))
    assert estimate.prompt_tokens > 6 * 300


def test_draws_that_would_repeat_each_other_are_refused() -> None:
    said = {"base_url": "http://127.0.0.1:1/v1", "model": "big"}
    with pytest.raises(SettingsError, match="set its temperature above 0, or draws to 1"):
        load_settings(filter=said)
    assert load_settings(filter=said | {"temperature": 0.7}).filter is not None
    assert load_settings(filter=said, filtering={"draws": 1}).filtering.efforts == ("low", "medium", "high")
    with pytest.raises(SettingsError, match="efforts"):
        load_settings(filtering={"efforts": []})


def test_a_prompt_that_cannot_be_read_is_named(sqlite_log: Log, tmp_path: Path) -> None:
    asked: RoleEndpoint = endpoint(in_turn(), sqlite_log)
    with pytest.raises(SettingsError, match=r"cannot read the prompt .*gone\.md \(filtering\.prompt\)"):
        DialogueCritic(sqlite_log, asked, FilteringSettings(prompt=tmp_path / "gone.md"))
