"""The page of checklists and scenarios, and what the page of a trajectory shows beside the dialogue."""

import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dashboard.checklist_graph import dependency_graph
from dashboard.counting import Counts
from dashboard.imports import imports
from dashboard.links import SCENARIOS, TRAJECTORIES
from dashboard.token_heat import SHOWN, heat_html
from reward.checklist_edits import TriedEdit, try_edit
from reward.payments import payslip
from store import scenarios
from store.checklists import Checklist, add_checklists, checklist_history, current_checklists
from store.database import Log
from store.records import Item, ReplyMentions, Scenario
from store.runs import add_run_trajectories, start_run
from store.scenarios import add_scenarios, get_scenario, load_scenarios, read_scenarios
from store.trajectories import get_trajectory
from store.vocabulary import AdvantageLevel, RunKind, Split
from tests.annotation_examples import CALL, REPLY, RESPONSE
from tests.pages import HOSTILE, hostile_trajectory, html, ids, open_page, shown
from tests.sample_log import CHAT_ID
from tests.test_checklist_edits import a_trip


def test_scenarios_are_listed_by_the_filter_of_the_address(sample: Log) -> None:
    app = open_page(SCENARIOS, s_domain="shop", s_split="test")
    frame = app.dataframe[0].value
    assert set(frame["domain"]) == {"shop"} and set(frame["split"]) == {"test"} and len(frame) == 2
    assert set(frame["items"]) == {8} and (frame["played"] > 0).all()
    app.text_input(key="named").set_value("nothing like it").run()
    assert "No scenario matches" in html(app)
    assert "There is no such scenario" in html(open_page(SCENARIOS, opened="f00"))


def test_a_scenario_shows_its_reference_checklist_and_dependencies(sample: Log) -> None:
    scenario = a_trip()
    first = replace_checklist(scenario, (CALL, RESPONSE, REPLY))
    add_scenarios(sample, [first])
    app = open_page(SCENARIOS, opened=first.hash)
    said = html(app)
    assert first.turns[0].user in said and "find_flights" in said and CALL.question in said
    assert ("->" in app.get("graphviz_chart")[0].proto.spec) == any(item.depends_on for item in (CALL, RESPONSE, REPLY))
    app.segmented_control(key="turn").set_value("2").run()
    assert first.turns[1].user in html(app) and "no checklist yet" in html(app)


def test_the_graph_draws_what_an_item_waits_for_and_nothing_else() -> None:
    graph = dependency_graph((CALL, RESPONSE, REPLY.model_copy(update={"depends_on": (RESPONSE.id, "gone")})))
    boxes = dict(re.findall(r'  (n\d) \[label="([^\\]+)', graph))
    arrows = [(boxes[one], boxes[other]) for one, other in re.findall(r"  (n\d) -> (n\d);", graph)]
    assert arrows == [(RESPONSE.id, REPLY.id)] and set(boxes.values()) == {CALL.id, RESPONSE.id, REPLY.id}
    assert "->" not in dependency_graph((CALL, RESPONSE))


def test_a_checklist_with_dependencies_is_drawn_and_one_without_is_not(sample: Log) -> None:
    drawn = replace_checklist(a_trip("drawn"), (CALL, RESPONSE, REPLY.model_copy(update={"depends_on": (CALL.id,)})))
    plain = replace_checklist(a_trip("plain"), (CALL, RESPONSE))
    add_scenarios(sample, [drawn, plain])
    (graph,) = open_page(SCENARIOS, opened=drawn.hash).get("graphviz_chart")
    assert "n0 -> n2" in graph.proto.spec and graph.proto.spec.count("->") == 1
    assert not open_page(SCENARIOS, opened=plain.hash).get("graphviz_chart")


def test_a_link_restores_the_variant_that_was_looked_at(sample: Log) -> None:
    scenario = a_trip()
    add_scenarios(sample, [scenario])
    other = REPLY.model_copy(update={"question": "Is another variant looked at?", "depends_on": (), "weight": 1.0})
    add_checklists(sample, [Checklist(scenario.hash, 0, (other,), variant=1, author="ann")])
    assert other.question not in html(open_page(SCENARIOS, opened=scenario.hash))
    app = open_page(SCENARIOS, opened=scenario.hash, variant="1")
    assert other.question in html(app) and app.segmented_control(key="variant").value == "1"
    app.segmented_control(key="turn").set_value("2").run()
    assert not app.exception and "no checklist yet" in html(app)


def test_names_in_the_list_show_what_cannot_be_seen(sample: Log) -> None:
    add_scenarios(sample, [a_trip("trip\u202e\u200b", source="file\u2066")])
    frame = open_page(SCENARIOS, named="trip").dataframe[0].value
    assert list(frame["name"]) == ["trip<U+202E><U+200B>"] and list(frame["source"]) == ["file<U+2066>"]


def replace_checklist(scenario: Scenario, items: Sequence[Item]) -> Scenario:
    weighed = tuple(item.model_copy(update={"weight": 1 / len(items)}) for item in items)
    turn = scenario.turns[0].model_copy(update={"checklist": weighed})
    return scenario.model_copy(update={"turns": (turn, *scenario.turns[1:])})


def test_a_checklist_is_edited_into_a_revision_with_its_self_test_first(sample: Log) -> None:
    scenario = a_trip()
    add_scenarios(sample, [scenario])
    app = open_page(SCENARIOS, opened=scenario.hash, edit="true", reviewer="ann")
    base = f"edit-{scenario.hash[:12]}-0-0-0"
    assert "Damages noticed" in html(app) and app.button(key=f"{base}-store").disabled
    app.text_input(key=f"{base}-reason").set_value("asks for the price too").run()
    app.text_input(key=f"{base}-1-check").set_value('{"kind": "reply_mentions", "all_of": [["F85"]]}').run()
    assert "the reference fails item" in html(app) and app.button(key=f"{base}-store").disabled
    app.text_input(key=f"{base}-1-check").set_value("{").run()
    assert "is no JSON" in html(app)
    app.text_input(key=f"{base}-1-check").set_value("")
    app.text_area(key=f"{base}-1-question").set_value("Does the reply name F84 and its price?").run()
    app.button(key=f"{base}-store").click().run()
    assert not app.error
    *_, stored = checklist_history(sample, scenario, 0)
    assert stored.revision == 1 and stored.reason == "asks for the price too"
    assert stored.items[1].question.endswith("its price?") and stored.items[1].check is None
    assert "revision 1 by" in html(app)


def test_an_item_is_added_and_one_left_out(sample: Log) -> None:
    scenario = a_trip()
    add_scenarios(sample, [scenario])
    base = f"edit-{scenario.hash[:12]}-0-0-0"
    app = open_page(SCENARIOS, opened=scenario.hash, edit="true")
    app.button(key=f"{base}-add").click().run()
    assert "item 2, question" in html(app) or "item 3, question" in html(app)
    app.text_area(key=f"{base}-2-question").set_value("Does the reply use bullet points?")
    app.checkbox(key=f"{base}-0-out").check()
    app.checkbox(key=f"{base}-2-must-not").check()
    app.text_input(key=f"{base}-reason").set_value("bullets").run()
    app.button(key=f"{base}-store").click().run()
    (current,) = current_checklists(sample, [scenario])[scenario.hash][0]
    assert [item.id for item in current.items] == [REPLY.id, "new_1"]
    assert [item.must_not for item in current.items] == [False, True]
    assert "must not" in html(open_page(SCENARIOS, opened=scenario.hash))


def test_a_file_is_imported_after_its_preview(sample: Log) -> None:
    app = open_page(SCENARIOS, look="Import")
    bad = app.get("file_uploader")[0].set_value(("trips.jsonl", b"{\n<script>", "application/json")).run()
    assert "2 bad lines" in html(bad) and bad.button(key="import").disabled and "<script>" not in html(bad)
    good = a_trip().canonical_json().encode()
    app.get("file_uploader")[0].set_value(("trips.jsonl", good, "application/json")).run()
    assert "1 sound scenario" in html(app)
    app.button(key="import").click().run()
    wait_for_import()
    app.run()
    assert a_trip() in load_scenarios(sample, source="test") and "0 of them new" in html(app)
    assert "trips\\.jsonl\\: 1 new scenario imported" in app.success[0].value


def wait_for_import() -> None:
    newest = imports().newest
    assert newest is not None and newest.over.wait(20)


def test_the_page_answers_while_a_file_is_imported(sample: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    written = threading.Event()

    def slow(log: Log, scenarios: Sequence[Scenario]) -> int:
        written.wait(20)
        return add_scenarios(log, scenarios)

    monkeypatch.setattr("dashboard.imports.add_scenarios", slow)
    content = (a_trip("slow").canonical_json() + "\n").encode()
    app = open_page(SCENARIOS, look="Import")
    app.get("file_uploader")[0].set_value(("slow.jsonl", content, "application/json")).run()
    app.button(key="import").click().run()
    assert "slow.jsonl is being imported" in html(app)
    app.button(key="import").click().run()
    assert "wait until that has ended" in app.error[0].value
    written.set()
    wait_for_import()
    assert a_trip("slow") in load_scenarios(sample, source="test")


def test_a_checklist_that_is_edited_is_tested_once_for_each_content(
    sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[int] = []

    def counting(scenario: Scenario, turn: int, items: Sequence[Item]) -> TriedEdit:
        tested.append(turn)
        return try_edit(scenario, turn, items)

    monkeypatch.setattr("dashboard.checklist_editor.try_edit", counting)
    scenario = a_trip("edited often")
    add_scenarios(sample, [scenario])
    app = open_page(SCENARIOS, opened=scenario.hash, edit="true")
    app.text_input(key=f"edit-{scenario.hash[:12]}-0-0-0-reason").set_value("why").run()
    app.run()
    assert tested == [0]
    app.text_area(key=f"edit-{scenario.hash[:12]}-0-0-0-0-question").set_value("Is it so?").run()
    assert tested == [0, 0]


def test_a_file_with_a_check_that_its_reference_fails_waits(sample: Log) -> None:
    wrong = REPLY.model_copy(
        update={"check": ReplyMentions(all_of=(("1300",),)), "depends_on": (), "weight": 1.0, "id": "wrong"}
    )
    turns = (a_trip().turns[0].model_copy(update={"checklist": (wrong,)}), *a_trip().turns[1:])
    broken = a_trip().model_copy(update={"turns": turns, "name": "broken"})
    app = open_page(SCENARIOS, look="Import")
    file = ("trips.jsonl", broken.canonical_json().encode(), "application/json")
    app.get("file_uploader")[0].set_value(file).run()
    assert "1 bad check" in html(app) and "does not mention" in html(app) and "self-test: " in html(app)
    assert app.button(key="import").disabled


def test_what_the_filters_leave_out_is_counted_when_asked_for(sample: Log) -> None:
    app = open_page(SCENARIOS, look="Filters")
    assert not app.metric
    app.toggle(key="filtered").set_value(True).run()
    looked_at = len(load_scenarios(sample, split="train"))
    assert app.metric[0].value == f"0 of {looked_at}" and "a turn has no reference" in html(app)


def test_hostile_scenarios_stay_text(sample: Log) -> None:
    name = hostile_trajectory(sample)
    digest = str(get_trajectory(sample, name).scenario_hash)
    app = open_page(SCENARIOS, opened=digest, edit="true")
    assert "&lt;script&gt;" in html(app) and "<script" not in html(app)
    evil = CALL.model_copy(update={"id": 'a"]; b [URL="http://evil.test"]\n\\" <i>'})
    graph = dependency_graph([evil])
    assert re.sub(r'"(?:\\.|[^"\\])*"', "", graph).count("evil") == 0  # it stays within its quotes
    heat = heat_html([1, 2], [-0.1, float("nan")], lambda token: HOSTILE)
    assert "<script" not in heat and "<img" not in heat and "no logprob" in heat


def test_a_trajectory_s_reward_is_explained_item_by_item(sample: Log) -> None:
    name = next(one for one in ids(sample, batch="demo/before") if payslip(sample, one).reward.value not in (None, 1.0))
    said = html(open_page(TRAJECTORIES, trajectory=name, show="Reward"))
    slip = payslip(sample, name)
    assert f"Reward {slip.reward.value:.3f} = (" in said
    last = [step.running for turn in slip.turns for step in turn.steps][-1]
    assert last == pytest.approx(slip.reward.value) and f">{last:.3f}</td>" in said
    for turn in slip.turns:
        assert sum(step.earned or 0.0 for step in turn.steps) == pytest.approx(turn.reward)
        assert all(f">{turn.turn_index + 1}.{n + 1}</td>" in said for n in range(len(turn.steps)))
    for payment in slip.turns[0].payments:
        assert payment.key in said and f"{payment.pays:.3f}" in said


def test_a_trajectory_s_tokens_advantage_and_runs_are_shown(sample: Log) -> None:
    name = ids(sample, batch="demo/round-1/train")[0]
    app = open_page(TRAJECTORIES, trajectory=name, show="Tokens", step="1.2")
    said = html(app)
    assert said.count("<i title=") == 24 and "logprob -0.300 · 74.1 %" in said
    assert "demo-round-1: " in said and "are not on this machine" in said
    alone = html(open_page(TRAJECTORIES, trajectory=ids(sample, batch="demo/after")[0], show="Tokens"))
    assert "it was not played in a group" in alone and "Trained on by no run" in alone


def test_the_advantages_shown_are_those_that_a_run_trained_with(sample: Log) -> None:
    """Not what the settings of today would give, nor equation 5 where the run trained with something else."""
    name = ids(sample, batch="demo/round-1/train")[0]
    run = start_run(sample, "by-step", RunKind.GRPO, "v0001", 1, {})
    add_run_trajectories(sample, run, {name: 0.125}, {name: [(0, 0, -0.875), (0, 1, 0.625)]}, AdvantageLevel.STEP)
    said = html(open_page(TRAJECTORIES, trajectory=name, show="Tokens"))
    assert "Advantage as by-step trained with it (of its step)" in said
    assert ">-0.875<" in said and ">+0.625<" in said
    assert "a token, of its step (+0.125 by equation 5)" in said
    assert "what it trained with is not recorded" in said, "of the run from before it was stored"


def test_only_so_many_tokens_are_drawn() -> None:
    assert "3 more tokens" in heat_html([1] * (SHOWN + 3), [-1.0] * (SHOWN + 3), None)


def test_a_chat_is_promoted_from_its_page(sample: Log) -> None:
    app = open_page(TRAJECTORIES, trajectory=CHAT_ID)
    app.button(key="promote-chat").click().run()
    assert "tools of chat" in shown(app)  # another client had them: they are asked for
    tools = b'[{"name": "search_trains", "parameters": {"type": "object"}}]'
    app.get("file_uploader")[0].set_value(("tools.json", tools, "application/json")).run()
    app.button(key="promote-chat").click().run()
    digest = get_trajectory(sample, CHAT_ID).scenario_hash
    assert digest is not None and get_scenario(sample, digest).tools[0].name == "search_trains"
    assert f"scenarios?opened={digest}" in html(app)


@pytest.mark.parametrize(
    ("query", "beside"),
    [
        ({"reward": ["0.25", "0.75"]}, True),
        ({"kind": "called", "outcome": "FAIL"}, True),
        ({"tool": "find_order"}, False),
    ],
)
def test_what_reads_every_reward_or_verdict_of_a_large_log_is_counted_beside_the_request(
    query: dict[str, Any], beside: bool, sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []

    class Listening(Counts):
        def get(self, key: Any, state: Any, count: Any) -> Any:
            counted.append(key[0])
            return super().get(key, state, count)

    monkeypatch.setattr("dashboard.boundary.COUNTS", Listening())
    app = open_page(TRAJECTORIES, **query)
    looked_up = {"store.browsing.count_trajectories", "store.browsing.page_of_trajectories"}
    assert (looked_up <= set(counted)) is beside and not app.dataframe[0].value.empty


def test_the_list_is_searched_and_ordered_from_the_address(sample: Log) -> None:
    app = open_page(TRAJECTORIES, text="nordpost", tool="find_order", order="lowest reward", origin="evaluation")
    frame = app.dataframe[0].value
    assert set(frame["domain"]) == {"shop"} and list(frame["reward"]) == sorted(frame["reward"])
    app.text_input(key="text").set_value("no such words").run()
    assert "No trajectory matches" in html(app)
    assert "No trajectory matches" in html(
        open_page(TRAJECTORIES, since=f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}")
    )


def test_an_uploaded_file_is_read_once_however_often_the_page_is_drawn(
    sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counting(data: bytes, where: str = "the file") -> scenarios.ReadScenarios:
        read.append(len(data))
        return read_scenarios(data, where)

    monkeypatch.setattr("dashboard.scenario_import.read_scenarios", counting)
    content = (a_trip("counted once").canonical_json() + "\n").encode()
    app = open_page(SCENARIOS, look="Import")
    app.get("file_uploader")[0].set_value(("trips.jsonl", content, "application/json")).run()
    app.run()
    assert "1 sound scenario" in html(app) and "1 of them new" in html(app)
    app.button(key="import").click().run()
    wait_for_import()
    app.run()
    assert "0 of them new" in html(app) and read == [len(content)]


def test_filters_are_counted_beside_the_page_and_again_when_the_log_changes(sample: Log) -> None:
    app = open_page(SCENARIOS, look="Filters")
    assert not app.metric
    app.toggle(key="filtered").set_value(True).run()
    before = app.metric[0].value
    looked_at = len(load_scenarios(sample, split=Split.TRAIN)) + len(load_scenarios(sample, split=Split.VALIDATION))
    assert before.endswith(f"of {looked_at:,}")
