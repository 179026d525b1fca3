"""A checklist becomes a revision after its self-test; a scenario file is looked at before it is imported."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from checkloop import app
from reward.checklist_edits import EditRefused, items_of_documents, read_items, store_edit, try_edit
from store.checklists import Checklist, add_checklists, checklist_history, current_checklists
from store.database import Log, LogError
from store.objections import ids_called_bad, objections_of, retire_item
from store.records import ReplyMentions, Scenario
from store.scenario_browsing import ScenarioFilter, count_scenarios, find_scenario, page_of_scenarios, scenario_facets
from store.scenarios import add_scenarios, item_ids, preview_scenarios
from store.vocabulary import Outcome, Split
from tests.annotation_examples import CALL, REPLY, RESPONSE, TURNS, trip

ALONE = REPLY.model_copy(update={"depends_on": ()})
WRONG = ALONE.model_copy(update={"id": "wrong", "question": "Is it F85?", "check": ReplyMentions(all_of=(("F85",),))})
ANYTHING = ALONE.model_copy(
    update={"id": "anything", "question": "Is it polite?", "check": ReplyMentions(none_of=("sorry",)), "evidence": ()}
)


def a_trip(name: str = "trip", **changes: object) -> Scenario:
    items = tuple(one.model_copy(update={"weight": 0.5}) for one in (CALL, ALONE))
    return trip(name, turns=(TURNS[0].model_copy(update={"checklist": items}), TURNS[1]), **changes)


def test_the_self_test_comes_before_anything_is_stored() -> None:
    scenario = a_trip()
    tried = try_edit(scenario, 0, [CALL, RESPONSE, REPLY])
    assert not tried.refusals and sum(item.weight for item in tried.items) == pytest.approx(1)
    assert all(test.on_reference is Outcome.PASS and test.discriminates for test in tried.tests)
    (refusal,) = try_edit(scenario, 0, [CALL, WRONG]).refusals
    assert "the reference fails item 'wrong'" in refusal
    assert any("style" in remark for remark in try_edit(scenario, 0, [CALL, ANYTHING]).remarks)
    assert "cycle" in try_edit(scenario, 0, [CALL.model_copy(update={"depends_on": (CALL.id,)})]).refusals[0]
    assert try_edit(scenario, 0, []).refusals
    odd = WRONG.model_copy(update={"check": ReplyMentions(all_of=(("F84",), ("**",)))})
    assert try_edit(scenario, 0, [CALL, odd]).refusals == (
        "item 'wrong': its check asks for '**', which has no word or number to look for",
    )
    chat = a_trip(source="chat")  # what a chat's policy did proves nothing
    assert not try_edit(chat, 0, [CALL, WRONG]).refusals


def test_what_is_no_item_is_said_field_by_field() -> None:
    items, problems = items_of_documents([CALL.model_dump(mode="json"), {"id": "x", "weight": -1}])
    assert items == (CALL,)
    assert {problem.split(":")[0] for problem in problems} == {"item 2, focus_on", "item 2, question", "item 2, weight"}
    for text in ("{", "{}", '[{"id": ""}]'):
        with pytest.raises(EditRefused):
            read_items(text)


def test_a_revision_counts_and_keeps_the_keys_of_what_stays(log: Log) -> None:
    scenario = a_trip()
    add_scenarios(log, [scenario])
    stored = store_edit(log, scenario.hash, 0, [REPLY, RESPONSE], person="ann", reason="the call is implied")
    assert stored.revision == 1 and [item.id for item in stored.items] == [REPLY.id, RESPONSE.id]
    assert current_checklists(log, [scenario])[scenario.hash][0][0] == stored
    assert [one.author for one in checklist_history(log, scenario, 0)] == ["scenario", "ann"]
    with pytest.raises(LogError, match="ann wrote revision 1 meanwhile"):
        store_edit(log, scenario.hash, 0, [CALL], person="ben", reason="late", made_of=0)
    with pytest.raises(EditRefused, match="reference fails"):
        store_edit(log, scenario.hash, 0, [WRONG], person="ben", reason="wrong", made_of=1)
    odd = ALONE.model_copy(update={"id": "odd", "check": ReplyMentions(all_of=(("**",),))})
    with pytest.raises(EditRefused, match="no word or number to look for"):
        store_edit(log, scenario.hash, 0, [odd], person="ben", reason="emphasis", made_of=1)
    with pytest.raises(EditRefused, match="author and a reason"):
        store_edit(log, scenario.hash, 0, [CALL], person="ben", reason=" ", made_of=1)
    assert len(checklist_history(log, scenario, 0)) == 2
    first = store_edit(log, scenario.hash, 1, [ALONE.model_copy(update={"check": None})], person="ann", reason="none")
    assert first.revision == 1  # the turn had no checklist


def test_who_leaves_an_item_out_objects_to_it_and_who_brings_it_back_takes_that_back(log: Log) -> None:
    """So that judged turns do not stay open: what the checklists hold and what stands called bad agree."""
    scenario = a_trip()
    add_scenarios(log, [scenario])
    reply = item_ids(log, scenario.hash)[0, ALONE.id]
    store_edit(log, scenario.hash, 0, [CALL], person="ann", reason="the call says it")
    (left_out,) = objections_of(log, [scenario.hash])[scenario.hash]
    assert (left_out.item_key, left_out.person, left_out.reason) == (ALONE.id, "ann", "the call says it")
    assert left_out.seen_in is None and ids_called_bad(log) == {reply}
    store_edit(log, scenario.hash, 0, [CALL, ALONE], person="ben", reason="it does not", made_of=1)
    assert ids_called_bad(log) == set()
    add_checklists(log, [Checklist(scenario.hash, 0, (ALONE.model_copy(update={"weight": 1.0}),), variant=1)])
    store_edit(log, scenario.hash, 0, [CALL], person="ann", reason="the other has it", made_of=2)
    assert ids_called_bad(log) == set(), "another variant has it"
    retire_item(log, scenario.hash, 0, ALONE.id, person="cy", reason="style")
    assert ids_called_bad(log) == {reply}
    store_edit(log, scenario.hash, 0, [CALL, ALONE], person="ann", reason="no style", made_of=3)
    assert ids_called_bad(log) == set(), "called bad or left out: it is back"


def test_the_commands_show_and_edit(sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_log.url)
    scenario = a_trip()
    add_scenarios(sqlite_log, [scenario])
    runner = CliRunner()
    shown = runner.invoke(app, ["checklist", "show", "trip", "0"]).output
    assert [one["id"] for one in json.loads(shown)] == [CALL.id, REPLY.id]
    file = tmp_path / "items.json"
    file.write_text(json.dumps([*json.loads(shown), RESPONSE.model_dump(mode="json")]))
    edit = ["checklist", "edit", scenario.hash[:8], "0", str(file), "--person", "ann", "--reason", "one more"]
    assert "nothing was written" in runner.invoke(app, [*edit, "--dry-run"]).output
    said = runner.invoke(app, edit).output
    assert "revision 1 of turn 0" in said and "notices every damage" in said
    assert (
        "revision 1: 3 items, ann: one more"
        in runner.invoke(app, ["checklist", "show", "trip", "0", "--history"]).output
    )
    file.write_text(json.dumps([WRONG.model_dump(mode="json")]))
    refused = runner.invoke(app, edit)
    assert refused.exit_code == 1 and len(checklist_history(sqlite_log, scenario, 0)) == 2


def test_scenarios_are_filtered_paged_and_found(log: Log) -> None:
    made = [a_trip(f"trip {n}", seed=n, split=Split.TEST if n else Split.TRAIN) for n in range(3)]
    add_scenarios(log, made)
    store_edit(log, made[1].hash, 0, [CALL], person="ann", reason="less")
    assert scenario_facets(log).splits == ("test", "train")
    listed = page_of_scenarios(log, ScenarioFilter(split="test"), limit=1, offset=0)
    assert [(row.name, row.turns, row.items, row.revisions, row.played) for row in listed] == [("trip 1", 2, 2, 1, 0)]
    assert count_scenarios(log, ScenarioFilter(named="TRIP")) == 3
    assert count_scenarios(log, ScenarioFilter(named="trip_1")) == 0  # _ is a character
    assert find_scenario(log, "trip 2") == find_scenario(log, made[2].hash[:10]) == made[2]
    with pytest.raises(LogError, match="no scenario"):
        find_scenario(log, "trip")


def test_a_file_is_previewed_with_every_bad_line(log: Log, tmp_path: Path) -> None:
    known, new = a_trip(), a_trip("new")
    add_scenarios(log, [known])
    lines = [known.canonical_json(), "{", new.canonical_json(), json.dumps({"name": "<b>"})]
    found = preview_scenarios(log, "\n".join(lines).encode(), "trips.jsonl")
    assert found.scenarios == (known, new) and found.new == 1
    assert [problem.split(":")[0] for problem in found.problems] == ["trips.jsonl, line 2", "trips.jsonl, line 4"]
    assert count_scenarios(log, ScenarioFilter()) == 1
    assert preview_scenarios(log, b"", "it").problems == ("it holds no scenario",)
