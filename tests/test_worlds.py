"""The bundled worlds: schemas, totality, determinism, state, and how far training is kept from held-out values."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from env_sim.worlds import DOMAINS, SEEN, UNSEEN, WORLDS, build_world
from env_sim.worlds.intents import Domain
from env_sim.worlds.world import World
from store.records import ToolSpec, WorldRef

SPECS = [spec for world in WORLDS.values() for spec in world.tools]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


def valid_arguments(spec: ToolSpec) -> st.SearchStrategy[dict[str, Any]]:
    kinds = {"string": st.text() | st.from_regex(r"[A-Z][0-9]{2}", fullmatch=True), "integer": st.integers()}
    return st.fixed_dictionaries(
        {
            name: st.sampled_from(schema["enum"]) if "enum" in schema else kinds[schema["type"]]
            for name, schema in spec.parameters["properties"].items()
        }
    )


def test_there_are_six_seen_and_two_unseen_domains_with_four_to_eight_tools_each() -> None:
    assert len(SEEN) >= 6
    assert len(UNSEEN) == 2
    assert not SEEN.keys() & UNSEEN.keys()
    assert all(4 <= len(world.tools) <= 8 for world in WORLDS.values())


def test_tool_names_are_unique_over_all_worlds_and_descriptions_are_short() -> None:
    assert len({spec.name for spec in SPECS}) == len(SPECS)
    for spec in SPECS:
        Draft202012Validator.check_schema(spec.parameters)
        assert len(spec.parameters["properties"]) <= 4
        assert len(spec.description.split()) <= 8


@given(data=st.data(), seed=st.integers(0, 2**31))
def test_every_valid_call_gets_a_compact_json_answer(data: st.DataObject, seed: int) -> None:
    spec = data.draw(st.sampled_from(SPECS))
    arguments = data.draw(valid_arguments(spec))
    world = next(world for world in WORLDS.values() if spec in world.tools)(seed)
    for _ in range(2):  # a repeated call meets a changed state
        response = world.call(spec.name, arguments)
        fields = json.loads(response.text)
        assert response.is_error == ("error" in fields)


@given(name=st.sampled_from([spec.name for spec in SPECS]) | st.text(), arguments=st.dictionaries(st.text(), ANYTHING))
def test_calls_that_violate_the_schema_are_answered_with_an_error(name: str, arguments: dict[str, Any]) -> None:
    world = build_world(WorldRef(name="travel", seed=3), [spec.name for spec in SPECS])
    assert world.call(name, arguments).is_error


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ({"id": "P20"}, "count is missing"),
        ({"id": "P20", "count": "3"}, "count must be of type integer"),
        ({"id": "P20", "count": True}, "count must be of type integer"),
        ({"id": "P20", "count": 3, "gift": "yes"}, "order_product has no parameter gift"),
    ],
)
def test_the_error_names_the_parameter_at_fault(arguments: dict[str, Any], problem: str) -> None:
    response = WORLDS["shop"](0).call("order_product", arguments)
    assert (response.is_error, json.loads(response.text)) == (True, {"error": problem})


def test_answers_depend_on_seed_and_arguments_but_not_on_the_order_of_calls_or_on_case() -> None:
    calls = [("find_flight", {"query": "Rome"}), ("find_flight", {"query": "Oslo"})]
    world, other_order, shouted, other_seed = (WORLDS["travel"](seed) for seed in (8, 8, 8, 10))
    answers = [world.call(*call) for call in calls]
    assert [other_order.call(*call) for call in reversed(calls)] == answers[::-1]
    assert shouted.call("find_flight", {"query": " ROME"}) == answers[0]
    assert [other_seed.call(*call) for call in calls] != answers


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
def test_what_is_found_can_be_had_under_its_id_and_dropped_once(domain: Domain) -> None:
    world = domain.world(4)
    slots = world.draw(Random(1))
    found = world.call(domain.find.tool, {"query": slots["query"]})
    assert found.fields["id"] == slots["id"]
    value = domain.act.values.train[0]
    assert not world.call(domain.act.tool, {"id": slots["id"], domain.act.parameter: value}).is_error
    assert not world.call(domain.drop.tool, {"id": slots["id"]}).is_error
    assert world.call(domain.drop.tool, {"id": slots["id"].lower()}).is_error
    assert world.call(domain.act.tool, {"id": slots["id"], domain.act.parameter: value}).is_error


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
def test_a_suggestion_in_an_error_works(domain: Domain) -> None:
    world = domain.world(6)
    wanted = {"id": world.draw(Random(2), taken=True)["id"], domain.act.parameter: domain.act.values.train[0]}
    error = world.call(domain.act.tool, wanted)
    assert error.is_error
    assert not world.call(domain.act.tool, wanted | {"id": error.fields["try"]}).is_error


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
def test_a_name_in_the_place_of_an_id_is_answered_with_the_tool_that_finds_ids(domain: Domain) -> None:
    world = domain.world(6)
    thing = world.draw(Random(2))
    error = world.call(domain.drop.tool, {"id": thing["query"]})
    assert error.is_error and error.fields["try"] == domain.find.tool
    assert world.call(error.fields["try"], {"query": thing["query"]}).fields["id"] == thing["id"]


def test_a_scenario_can_hold_tools_of_several_worlds_and_no_others() -> None:
    world = build_world(WorldRef(name="travel", seed=2), ["get_flight", "find_device"])
    asked = {"query": "kitchen lamp"}
    assert not world.call("find_device", asked).is_error
    assert world.call("find_device", asked) == WORLDS["home"](2).call("find_device", asked)
    assert world.call("get_product", {"id": "P10"}).is_error


def test_unknown_worlds_and_tools_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown world 'moon'"):
        build_world(WorldRef(name="moon", seed=0), [])
    with pytest.raises(ValueError, match="no bundled world has the tools \\['fly'\\]"):
        build_world(WorldRef(name="travel", seed=0), ["get_flight", "fly"])


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())
def test_a_domain_covers_its_tools_and_has_several_phrasings_for_each_intent(domain: Domain) -> None:
    intents = (domain.find, *domain.on_id)
    assert {intent.tool for intent in intents} == {spec.name for spec in domain.world.tools}
    assert domain.unserved.train and domain.unserved.held_out
    for intent in intents:
        assert len(intent.requests.train) >= 3 and len(intent.requests.held_out) >= 2
        assert not set(intent.requests.train) & set(intent.requests.held_out)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
def test_odd_seeds_mean_held_out_values(world: type[World]) -> None:
    assert not world(6).held_out
    assert world(7).held_out
