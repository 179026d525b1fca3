"""Which reference dialogues are learnt from: each filter, its setting, and that our own worlds pass them all."""

from typing import Any

import pytest

from env_sim.scenario_generator import generate_scenarios
from store.checklists import Checklist
from store.records import RecordedCall, ReferenceStep, Scenario, ScenarioTurn
from store.settings import DataSettings
from store.vocabulary import Split
from tests.store_examples import WEATHER, a_scenario
from train.dialogue_filters import fingerprint, why_unfit

CALL = RecordedCall(name="get_weather", arguments={"city": "Oslo"}, response='{"rain":true}')


def dialogue(
    *, call: RecordedCall = CALL, thinking: str = "Ask.", reply: str = "It rains.", **changes: Any
) -> Scenario:
    steps = (ReferenceStep(thinking=thinking, calls=(call,)), ReferenceStep(thinking="Tell.", reply=reply))
    checklist = a_scenario().turns[0].checklist
    return a_scenario(turns=(ScenarioTurn(user="Rain in Oslo?", reference=steps, checklist=checklist),), **changes)


def reason(scenario: Scenario, **wanted: Any) -> str | None:
    checklists = [[Checklist(scenario.hash, n, turn.checklist)] for n, turn in enumerate(scenario.turns)]
    return why_unfit(scenario, checklists, DataSettings(**wanted))


def changed(**fields: Any) -> RecordedCall:
    return CALL.model_copy(update=fields)


def test_the_bundled_worlds_are_fit_to_learn_from() -> None:
    scenarios = generate_scenarios(Split.TRAIN, 48, 7)
    assert {reason(scenario) for scenario in scenarios} == {None}
    assert len({fingerprint(scenario) for scenario in scenarios}) == len(scenarios)


@pytest.mark.parametrize(
    ("scenario", "setting"),
    [
        (dialogue(call=changed(name="rain_now")), "unknown_tools"),
        (dialogue(call=changed(arguments={"town": "Oslo"})), "invalid_arguments"),
        (dialogue(call=changed(response=" ")), "empty_content"),
        (dialogue(reply="  "), "empty_content"),
        (dialogue(reply="<tool_call>{}</tool_call>"), "markup"),
        (dialogue(thinking="So. </think> And on."), "markup"),
        (dialogue(tools=(WEATHER, WEATHER.model_copy(update={"name": "weather_of"}))), "duplicate_tools"),
        (dialogue(call=changed(arguments={"city": "Rome"})), "self_test"),
    ],
)
def test_each_filter_names_its_setting_which_turns_it_off(scenario: Scenario, setting: str) -> None:
    others = {"self_test": False} if setting != "self_test" else {}
    found = reason(scenario, **others)
    assert found is not None and f"data.{setting}" in found
    assert reason(scenario, **others | {setting: False}) is None


def test_filters_that_are_off_and_lengths() -> None:
    good = dialogue()
    assert reason(good) is None
    assert (
        reason(dialogue(call=changed(arguments={}, response='{"error":"no city"}', is_error=True)), self_test=False)
        is None
    )
    assert reason(dialogue(thinking="")) is None
    assert "data.missing_thinking" in str(reason(dialogue(thinking=""), missing_thinking=True))
    assert "data.min_turns = 2" in str(reason(good, min_turns=2))
    assert reason(good, max_turns=1) is None
    assert reason(a_scenario()) == "a turn has no reference"
    bare = good.model_copy(update={"turns": (good.turns[0].model_copy(update={"checklist": ()}),)})
    assert reason(bare) is None
    assert "data.needs_checklist" in str(reason(bare, needs_checklist=True))
    broken = WEATHER.model_copy(update={"parameters": {"type": "objekt"}})
    assert reason(dialogue(tools=(broken,))) == "a tool's parameters are no JSON Schema"
