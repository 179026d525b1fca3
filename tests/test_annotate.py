"""The annotator on a real log: what is stored, what goes back, what is handed to a person, what it costs."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from agent.role_endpoint import RoleEndpoint
from agent.role_work import ENOUGH_FAILURES
from env_sim.scenario_generator import generate_scenarios
from reward.annotation_report import report_lines
from reward.annotator import Report, annotate_scenarios
from reward.dialogue_annotator import PROMPT_FILE
from reward.llm_judge import Dialogue
from store.annotations import latest_annotations, waiting_for_person
from store.checklists import Checklist, add_checklists, current_checklists
from store.database import Log
from store.endpoint_settings import Endpoint
from store.model_calls import CallTotals, call_totals
from store.records import Item, Scenario
from store.scenarios import add_scenarios
from store.settings import AnnotationSettings, SettingsError, load_settings
from store.vocabulary import AnnotationStatus, FocusOn, ModelRole, Outcome, Split
from tests.annotation_examples import CALL, FIRST_TURN, REPLY, RESPONSE, SECOND_TURN, TURNS, item, trip
from tests.scripted_annotator import (
    USD,
    Answer,
    as_answer,
    as_text,
    asked_turns,
    bare,
    completion,
    endpoint,
    in_turn,
    perfect,
)
from tests.serving import Serving

TRIP = trip()
GOOD = as_text(as_answer(FIRST_TURN, 0), as_answer(SECOND_TURN, 1))


def run(
    log: Log, answer: Answer | RoleEndpoint, scenarios: Sequence[Scenario] = (TRIP,), *, attempts: int = 2, **more: Any
) -> Report:
    add_scenarios(log, scenarios)
    asked = answer if isinstance(answer, RoleEndpoint) else endpoint(answer, log)
    settings = more.pop("settings", AnnotationSettings(attempts=attempts))
    return asyncio.run(annotate_scenarios(log, scenarios, asked, settings=settings, **more))


def stored(log: Log, scenario: Scenario = TRIP) -> list[list[Checklist]]:
    return current_checklists(log, [scenario])[scenario.hash]


def keys(log: Log, scenario: Scenario = TRIP) -> list[list[tuple[int, list[str]]]]:
    return [[(one.variant, [item.id for item in one.items]) for one in turn] for turn in stored(log, scenario)]


def totals(log: Log) -> CallTotals:
    (found,) = call_totals(log)
    return found


def recording(*answers: Any) -> tuple[list[dict[str, Any]], Answer]:
    bodies: list[dict[str, Any]] = []
    say = in_turn(*answers)

    def answer(body: dict[str, Any]) -> Any:
        bodies.append(body)
        return say(body)

    return bodies, answer


def test_one_call_writes_a_checklist_for_every_turn(sqlite_log: Log) -> None:
    bodies, answer = recording(GOOD)
    report = run(sqlite_log, answer)
    (first,), (second,) = stored(sqlite_log)
    assert first.items == tuple(
        one.model_copy(update={"weight": weight}) for one, weight in zip(FIRST_TURN, (0.25, 0.25, 0.5), strict=True)
    )
    assert [one.weight for one in second.items] == [1.0]
    assert (first.variant, first.revision, first.author) == (0, 1, "big")
    annotation = latest_annotations(sqlite_log)[TRIP.hash, 0]
    assert (annotation.status, annotation.attempts, annotation.problems) == (AnnotationStatus.DONE, 1, ())
    assert annotation.prompt_hash == first.prompt_hash
    assert annotation.figures["checks"] == {"proposed": 3, "derived": 0, "kept": 3, "dropped": []}
    assert annotation.figures["self_test"]["tested"] == 3
    assert annotation.figures["cost"]["usd"] == pytest.approx(USD)
    (body,) = bodies
    system, user = (message["content"] for message in body["messages"])
    assert system == PROMPT_FILE.read_text(encoding="utf-8")
    said = ("find_flights", "You help.", "bullet points", "unknown city", "1,200 euro", "Thanks!", "turns: 0, 1.")
    order = [user.index(text) for text in said]
    assert order == sorted(order)
    assert body["response_format"]["json_schema"]["strict"]
    made = totals(sqlite_log)
    assert (made.role, made.calls, made.prompt_tokens, made.cached_tokens) == (ModelRole.ANNOTATOR, 1, 1000, 400)
    assert report.cost.usd == made.usd == pytest.approx(USD)
    assert f"{USD:.4f} USD, {USD:.4f} a dialogue" in report_lines(report)[-1]


def test_an_unsound_turn_goes_back_with_the_reasons_and_only_that_one(sqlite_log: Log) -> None:
    bad = as_answer(
        FIRST_TURN, 0, evidence=[{"step": 1, "channel": "assistant_tool_calls", "snippet": "Rome"}], weight=-1
    )
    bodies, answer = recording(
        as_text(bad, as_answer(SECOND_TURN, 1)), as_text(as_answer(FIRST_TURN, 0), as_answer(FIRST_TURN, 1))
    )
    run(sqlite_log, answer)
    assert keys(sqlite_log) == [[(0, ["right_call", "flight_found", "price_told"])], [(0, ["offers_booking"])]]
    first, second = bodies
    assert second["messages"][:2] == first["messages"], "the endpoint's cache can serve all of it"
    assert json.loads(second["messages"][2]["content"])["turns"]["0"]["items"] == bad["items"]
    reasons = second["messages"][3]["content"]
    assert "turn 0: item 'right_call': the snippet 'Rome' does not occur in step 1, assistant_tool_calls" in reasons
    assert "turn 0: item 'right_call': the weight is -1" in reasons and "turn 1" not in reasons
    assert (asked_turns(first), asked_turns(second)) == ([0, 1], [0])
    assert latest_annotations(sqlite_log)[TRIP.hash, 0].attempts == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("no JSON", "the answer is not JSON"),
        (httpx2.Response(200, json=completion(GOOD[:300], "length")), "the answer was cut off after 200 tokens"),
        (as_text(as_answer(SECOND_TURN, 1)), "turn 0: the answer has no checklist of this turn"),
        (as_text(as_answer((CALL, RESPONSE), 0), as_answer(SECOND_TURN, 1)), "no item looks at the reply"),
        (as_text(as_answer((CALL, CALL, REPLY), 0), as_answer(SECOND_TURN, 1)), "have the id 'right_call'"),
        (as_text(as_answer((REPLY,), 0), as_answer(SECOND_TURN, 1)), "depends on 'flight_found', which is no item"),
        (as_text(as_answer(FIRST_TURN, 0), as_answer(SECOND_TURN, 1, question="Is it polite?")), "about style"),
        (as_text(as_answer(FIRST_TURN, 0), as_answer(SECOND_TURN, 1, weight=0)), "turn 1: all weights are 0"),
    ],
)
def test_each_kind_of_unsound_answer_can_be_repaired(sqlite_log: Log, bad: Any, reason: str) -> None:
    bodies, say = recording(bad)

    def answer(body: dict[str, Any]) -> Any:
        if not bodies:
            return say(body)
        bodies.append(body)
        parts = {0: as_answer(FIRST_TURN, 0), 1: as_answer(SECOND_TURN, 1)}
        return as_text(*(parts[turn] for turn in asked_turns(body)))

    (ended,) = run(sqlite_log, answer).ended
    assert ended.status is AnnotationStatus.DONE
    assert reason in bodies[1]["messages"][-1]["content"]
    assert keys(sqlite_log) == [[(0, ["right_call", "flight_found", "price_told"])], [(0, ["offers_booking"])]]


def test_what_is_never_repaired_is_handed_to_a_person_once(sqlite_log: Log) -> None:
    hopeless = as_text(as_answer(FIRST_TURN, 0), as_answer(SECOND_TURN, 1, weight=0))
    bodies, answer = recording(*[hopeless] * 3)
    report = run(sqlite_log, answer, attempts=2)
    assert [one.status for one in report.ended] == [AnnotationStatus.NEEDS_PERSON]
    assert keys(sqlite_log) == [[], []], "nothing of the dialogue is stored"
    (waiting,) = waiting_for_person(sqlite_log)
    assert waiting.annotation.problems == ("turn 1: all weights are 0",)
    assert waiting.annotation.attempts == len(bodies) == 3
    assert "1 wait for a person" in report_lines(report)[0]
    assert run(sqlite_log, in_turn()).skipped == 1, "not asked again by itself"
    assert run(sqlite_log, in_turn(GOOD), again=True).of(AnnotationStatus.DONE)
    assert waiting_for_person(sqlite_log) == []


def test_another_annotator_may_try_what_waits_for_a_person(sqlite_log: Log) -> None:
    run(sqlite_log, in_turn("no JSON", "no JSON"), attempts=1)
    assert run(sqlite_log, endpoint(in_turn(GOOD), sqlite_log, model="bigger")).of(AnnotationStatus.DONE)
    assert stored(sqlite_log)[0][0].author == "bigger"


def scenarios_of(count: int) -> list[Scenario]:
    return list({one.turns[0].user: one for one in generate_scenarios(Split.TRAIN, count, 9)}.values())


def test_a_known_checklist_is_written_again_as_it_was(sqlite_log: Log) -> None:
    """An annotator that writes the bundled items of 40 scenarios: all are sound, no check is lost."""
    whole = scenarios_of(40)
    made = [bare(scenario) for scenario in whole]
    report = run(sqlite_log, perfect(whole), made)
    assert len(report.of(AnnotationStatus.DONE)) == len(made) == 40
    for scenario, written in zip(whole, made, strict=True):
        checks = [[item.check for item in variants[0].items] for variants in stored(sqlite_log, written)]
        assert checks == [[item.check for item in turn.checklist] for turn in scenario.turns]


def test_it_goes_on_where_a_limit_stopped_it_and_asks_nothing_twice(sqlite_log: Log) -> None:
    whole = scenarios_of(6)
    made = [bare(scenario) for scenario in whole]
    asked: list[str] = []
    good = perfect(whole)

    def answer(body: dict[str, Any]) -> Any:
        asked.append(body["messages"][1]["content"])
        return good(body)

    # Each answer costs USD, and before it is asked its prompt and the longest answer are put aside.
    limited = endpoint(answer, sqlite_log, max_usd=0.02, max_concurrency=1)
    room = AnnotationSettings(turn_tokens=500)
    report = run(sqlite_log, limited, made, settings=room)
    done = len(report.ended)
    assert 0 < done < 6 and report.left == 6 - done and "max_usd" in str(report.stopped)
    assert f"stopped with {report.left} left" in report_lines(report)[-1]
    again = run(sqlite_log, answer, made, settings=room)
    assert (len(again.ended), again.skipped, again.stopped) == (6 - done, done, None)
    assert len(set(asked)) == len(asked) == 6
    assert run(sqlite_log, in_turn(), made).skipped == 6


def test_variants_are_independent(sqlite_log: Log) -> None:
    short = (REPLY.model_copy(update={"depends_on": ()}),)
    bodies, answer = recording(GOOD, as_text(as_answer(short, 0), as_answer(SECOND_TURN, 1)), GOOD)
    report = run(
        sqlite_log,
        endpoint(answer, sqlite_log, temperature=0.7, max_concurrency=1),
        settings=AnnotationSettings(variants=3),
    )
    assert [one.work.variant for one in report.ended] == [0, 1, 2]
    assert [ids for _, ids in keys(sqlite_log)[0]] == [
        ["right_call", "flight_found", "price_told"], ["price_told"], ["right_call", "flight_found", "price_told"],
    ]  # fmt: skip
    assert len({body["seed"] for body in bodies}) == 3 and {body["temperature"] for body in bodies} == {0.7}
    assert bodies[0]["messages"] == bodies[1]["messages"], "no variant sees another one"


def test_copies_are_no_variants(sqlite_log: Log) -> None:
    with pytest.raises(SettingsError, match="at temperature 0 would write the same checklists as variants \\[0, 1\\]"):
        run(sqlite_log, in_turn(), variants=[0, 1])
    run(sqlite_log, in_turn(GOOD))
    with pytest.raises(SettingsError, match="at temperature 0"):
        run(sqlite_log, in_turn(), variants=[1])
    run(sqlite_log, endpoint(in_turn(GOOD), sqlite_log, model="bigger"), variants=[1])
    assert [variant for variant, _ in keys(sqlite_log)[0]] == [0, 1]
    named = Endpoint(base_url="http://x.test/v1", model="big")
    with pytest.raises(SettingsError, match=r"annotation.variants = 2 .* temperature 0"):
        load_settings(annotator=named, annotation={"variants": 2})


def test_a_dialogue_that_does_not_fit_is_asked_about_turn_by_turn(sqlite_log: Log) -> None:
    bodies, answer = recording(as_text(as_answer(FIRST_TURN, 0)), as_text(as_answer(SECOND_TURN, 1)))
    run(sqlite_log, answer, settings=AnnotationSettings(context_tokens=8000, turn_tokens=3000))
    one, two = (body["messages"][1]["content"] for body in bodies)
    assert [asked_turns(body) for body in bodies] == [[0], [1]]
    assert one[: one.index("# Task")] == two[: two.index("# Task")], "context first: the second call shares the prefix"
    assert {body["max_tokens"] for body in bodies} == {3000}
    assert [len(turn) for turn in keys(sqlite_log)] == [1, 1]


def test_always_turn_by_turn_if_told_so(sqlite_log: Log) -> None:
    bodies, answer = recording(as_text(as_answer(FIRST_TURN, 0)), as_text(as_answer(SECOND_TURN, 1)))
    run(sqlite_log, answer, settings=AnnotationSettings(calls="turn"))
    assert len(bodies) == 2


def test_long_messages_are_cut_and_what_never_fits_is_handed_to_a_person(sqlite_log: Log) -> None:
    long = trip("long", turns=(TURNS[0].model_copy(update={"user": "Oslo? " * 10000}), TURNS[1]))
    bodies, answer = recording(as_text(as_answer(FIRST_TURN, 0), as_answer(SECOND_TURN, 1)))
    run(sqlite_log, answer, [long], settings=AnnotationSettings(context_tokens=16000))
    assert "characters left out" in bodies[0]["messages"][1]["content"]
    (ended,) = run(sqlite_log, in_turn(), settings=AnnotationSettings(context_tokens=4000)).ended
    assert ended.status is AnnotationStatus.NEEDS_PERSON
    assert "does not fit into annotation.context_tokens = 4000" in ended.problems[0]


def test_a_conversation_that_goes_back_stays_within_the_window(sqlite_log: Log) -> None:
    bodies, answer = recording("x" * 30000, "y" * 30000, GOOD)
    room = AnnotationSettings(context_tokens=12000, turn_tokens=2000)
    assert run(sqlite_log, answer, settings=room).of(AnnotationStatus.DONE)
    for body in bodies:
        characters = sum(len(message["content"]) for message in body["messages"])
        assert characters / 2.5 + body["max_tokens"] <= 12000
    assert "not JSON" in bodies[-1]["messages"][-1]["content"]


def test_an_endpoint_that_fails_stores_nothing_and_the_rest_goes_on(sqlite_log: Log) -> None:
    whole = scenarios_of(4)
    made = [bare(scenario) for scenario in whole]
    good, broken = perfect(whole), f"\n{whole[1].turns[0].user}\n"

    def answer(body: dict[str, Any]) -> Any:
        return httpx2.Response(500, text="boom") if broken in body["messages"][1]["content"] else good(body)

    report = run(sqlite_log, answer, made)
    (failed,) = report.of(None)
    assert failed.work.scenario.name == whole[1].name and "InternalServerError" in failed.problems[0]
    assert len(report.of(AnnotationStatus.DONE)) == 3
    assert (made[1].hash, 0) not in latest_annotations(sqlite_log)
    assert totals(sqlite_log).failed == 1
    assert any("no answer" in line for line in report_lines(report))
    assert len(run(sqlite_log, good, made).ended) == 1, "what failed is tried again"


def test_an_endpoint_that_is_down_is_left_alone(sqlite_log: Log) -> None:
    made = [bare(scenario) for scenario in scenarios_of(ENOUGH_FAILURES + 10)]
    report = run(sqlite_log, endpoint(lambda _: httpx2.Response(503), sqlite_log, max_concurrency=2), made)
    assert ENOUGH_FAILURES <= len(report.ended) <= ENOUGH_FAILURES + 2
    assert report.left > 0 and "got no answer" in str(report.stopped)


def test_questions_in_flight_are_bounded(sqlite_log: Log) -> None:
    whole = scenarios_of(10)
    good = perfect(whole)
    running, most = 0, 0

    async def hold(body: dict[str, Any]) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return good(body)

    made = [bare(scenario) for scenario in whole]
    assert run(sqlite_log, endpoint(hold, sqlite_log, max_concurrency=3), made).of(AnnotationStatus.DONE)
    assert most == 3


def test_turns_that_have_a_checklist_keep_it(sqlite_log: Log) -> None:
    """The scenario brings one for turn 1; a person wrote none for turn 0 (nothing sound is left)."""
    own = trip("own", turns=(TURNS[0], TURNS[1].model_copy(update={"checklist": SECOND_TURN})))
    bodies, answer = recording(as_text(as_answer(FIRST_TURN, 0)))
    run(sqlite_log, answer, [own])
    assert asked_turns(bodies[0]) == [0]
    assert [turn[0].author for turn in stored(sqlite_log, own)] == ["big", "scenario"]
    add_checklists(sqlite_log, [Checklist(own.hash, 0, (), author="ada", reason="all items were bad")])
    assert run(sqlite_log, in_turn(), [own]).skipped == 1


async def _judge_all(outcomes: dict[str, Outcome], items: Sequence[Item]) -> list[Outcome]:
    return [outcomes.get(one.id, Outcome.PASS) for one in items]


def test_an_item_that_the_reference_fails_is_left_out(sqlite_log: Log) -> None:
    """Weights 1, 1, 2 and 4: without the last one 0.25, 0.25 and 0.5. What depends on it depends on what it did."""

    async def judge(dialogue: Dialogue, items: Sequence[Item]) -> list[Outcome]:
        said = {"really": Outcome.FAIL} if len(dialogue.turn.steps) == 3 else {}
        return await _judge_all(said, items)

    doubtful = item("really", FocusOn.TOOL_RESPONSE, 1, "F84", question="Is it said why?", weight=4.0)
    first = (CALL, RESPONSE, REPLY.model_copy(update={"depends_on": ("flight_found", "really")}), doubtful)
    report = run(sqlite_log, in_turn(as_text(as_answer(first, 0), as_answer(SECOND_TURN, 1))), judge_items=judge)
    (checklist,) = stored(sqlite_log)[0]
    assert [(one.id, one.weight) for one in checklist.items] == [
        ("right_call", 0.25), ("flight_found", 0.25), ("price_told", 0.5),
    ]  # fmt: skip
    assert checklist.items[2].depends_on == ("flight_found",)
    (ended,) = report.ended
    assert ended.problems == ("turn 0, item 'really' is left out: the reference fails it",)
    assert ended.figures["self_test"]["reference_fails"] == 1
    assert any("'really' is left out" in line for line in report_lines(report))


def test_a_checklist_of_which_nothing_would_be_left_goes_back(sqlite_log: Log) -> None:
    other = item("offers_now", FocusOn.REPLY, 0, "Shall I book", question="Does the reply offer anything?")

    async def judge(dialogue: Dialogue, items: Sequence[Item]) -> list[Outcome]:
        return await _judge_all({"offers_booking": Outcome.FAIL}, items)

    bodies, answer = recording(GOOD, as_text(as_answer((other,), 1)))
    run(sqlite_log, answer, judge_items=judge)
    assert "turn 1: the reference fails every item: offers_booking" in bodies[1]["messages"][-1]["content"]
    assert keys(sqlite_log)[1] == [(0, ["offers_now"])]


def test_a_checklist_that_loses_its_only_item_on_the_reply_goes_to_a_person(sqlite_log: Log) -> None:
    """A judge that is wrong about the reference must not leave a turn in which nothing is said of the reply."""
    told = REPLY.model_copy(update={"check": None, "question": "Is it said why the price is so?"})

    async def judge(dialogue: Dialogue, items: Sequence[Item]) -> list[Outcome]:
        return await _judge_all({"price_told": Outcome.FAIL}, items)

    answer = as_text(as_answer((CALL, RESPONSE, told), 0), as_answer(SECOND_TURN, 1))
    bodies, say = recording(answer, answer)
    (ended,) = run(sqlite_log, say, judge_items=judge, attempts=1).ended
    assert ended.status is AnnotationStatus.NEEDS_PERSON and keys(sqlite_log) == [[], []]
    assert ended.problems == (
        "turn 0: without what the reference fails (price_told): no item looks at the reply (user_visible_reply)",
    )
    assert "no item looks at the reply" in bodies[1]["messages"][-1]["content"]


def test_a_chat_proves_nothing_so_what_it_fails_is_kept(sqlite_log: Log) -> None:
    """The policy never booked; the item that asks for it stays, for the judge, and the figures say so."""
    chat = trip("chat 1", source="chat")
    books = item("books", FocusOn.REPLY, 0, "", evidence=(), question="Does the reply say that F84 is booked?")

    async def judge(dialogue: Dialogue, items: Sequence[Item]) -> list[Outcome]:
        return await _judge_all({"books": Outcome.FAIL}, items)

    bodies, answer = recording(as_text(as_answer(FIRST_TURN, 0), as_answer((books,), 1)))
    (ended,) = run(sqlite_log, answer, [chat], judge_items=judge).ended
    assert "Nobody has reviewed what the assistant did in turn 0, 1" in bodies[0]["messages"][1]["content"]
    assert keys(sqlite_log, chat)[1] == [(0, ["books"])]
    assert ended.problems == () and ended.figures["self_test"]["reference_fails"] == 1


def test_dropped_checks_are_counted_and_leave_the_item(sqlite_log: Log) -> None:
    lax = {"kind": "called", "tool": "find_flights", "arguments": [], "tolerance": 0, "at_most": None}
    unknown = {"kind": "asks_nicely"}
    text = as_text(as_answer(FIRST_TURN, 0, check=lax), as_answer(SECOND_TURN, 1, check=unknown))
    (ended,) = run(sqlite_log, in_turn(text)).ended
    checks = ended.figures["checks"]
    assert (checks["proposed"], checks["kept"], len(checks["dropped"])) == (4, 2, 2)
    assert checks["dropped"][0] == "turn 0, right_call: called: a damaged reference passes it: wrong_argument"
    assert [one.check is None for one in stored(sqlite_log)[0][0].items] == [True, False, False]


def test_a_prompt_of_ones_own_has_its_own_hash(sqlite_log: Log, tmp_path: Any) -> None:
    file = tmp_path / "mine.md"
    file.write_text("Write checklists.")
    bodies, answer = recording(GOOD)
    run(sqlite_log, answer, settings=AnnotationSettings(prompt=file))
    assert bodies[0]["messages"][0]["content"] == "Write checklists."
    (checklist,) = stored(sqlite_log)[0]
    run(sqlite_log, in_turn(GOOD), again=True)
    assert stored(sqlite_log)[0][0].prompt_hash != checklist.prompt_hash
    with pytest.raises(SettingsError, match=r"cannot read the prompt .*gone\.md"):
        run(sqlite_log, in_turn(), settings=AnnotationSettings(prompt=tmp_path / "gone.md"))


def test_a_real_model_writes_or_is_handed_over_with_reasons(serving: Serving, sqlite_log: Log, tmp_path: Any) -> None:
    """vLLM with guided JSON. The bundled model is far too small to write a sound checklist; the path is the same."""
    short = trip("short", turns=(TURNS[1],), tools=(), system="")
    file = tmp_path / "short.md"
    file.write_text("Write a checklist of one item: what must the assistant's reply do? Answer with JSON.")
    named = Endpoint(
        base_url=f"http://127.0.0.1:{serving.settings.server.port}/v1", model="policy", timeout_s=600, max_concurrency=1
    )
    small = AnnotationSettings(context_tokens=1000, turn_tokens=64, attempts=1, prompt=file)
    asked = RoleEndpoint(ModelRole.ANNOTATOR, named, log=sqlite_log)
    (ended,) = run(sqlite_log, asked, [short], settings=small).ended
    made = totals(sqlite_log)
    assert made.failed == 0 and made.prompt_tokens > 100 * made.calls and made.completion_tokens > 0
    annotation = latest_annotations(sqlite_log)[short.hash, 0]
    assert annotation.attempts == made.calls
    assert annotation.status is ended.status
    if ended.status is AnnotationStatus.DONE:
        assert stored(sqlite_log, short)[0][0].items
    else:
        assert ended.problems and stored(sqlite_log, short) == [[]]
