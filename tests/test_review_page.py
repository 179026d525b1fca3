"""The page Review as a reviewer meets it: a queue under a filter, keys, two reviewers, undo, a reload."""

from datetime import UTC, datetime
from html import unescape

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.dialogue import call_html, step_html
from dashboard.links import REVIEW
from dashboard.quotes import Quote, marked
from dashboard.review_turn import COUNTED, progress_html
from dashboard.seat import browser_of
from dashboard.text import LONGEST
from store.database import Log
from store.jobs import list_jobs
from store.objections import objections_of
from store.ratings import rate_turn
from store.records import CallRecord, Item, StepRecord
from store.review_claims import Pace, claims_of_others
from store.review_queues import judged_items
from store.review_samples import ReviewSample, add_review_batch
from store.scenarios import get_scenario
from store.trajectories import NewTrajectory, create_trajectories, get_trajectory
from store.turns import get_turns
from store.verdicts import verdicts_of
from store.vocabulary import JobKind, Origin, Outcome, SampleReason, VerdictSource
from tests.pages import HOSTILE, hostile_trajectory, html, ids, open_page, shown


def turn_at(app: AppTest) -> tuple[str, int]:
    name, _, index = app.query_params["turn"].rpartition(":")
    return name, int(index)


def press(app: AppTest, key: str) -> None:
    app.button(key=key).click().run()
    assert not app.exception and not app.error


def by_people(log: Log) -> list[tuple[str, int, str, str, str]]:
    return [
        (v.trajectory_id, v.turn_index, v.item_key, v.outcome.value, v.judge)
        for of_one in verdicts_of(log, ids(log)).values()
        for v in of_one
        if v.source is VerdictSource.HUMAN
    ]


def test_a_log_without_verdicts_says_to_judge_first(empty: Log) -> None:
    create_trajectories(empty, [NewTrajectory(id="t1", origin=Origin.CHAT, version="v0001")])
    assert "checkloop judge" in html(open_page(REVIEW))


def test_a_turn_is_shown_with_all_that_a_reviewer_needs(sample: Log) -> None:
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    name, index = turn_at(app)
    turn, said = get_turns(sample, name)[index], html(app)
    assert turn.user in said and turn.steps[0].calls[0].name in said and "<details><summary>Thinking" in said
    assert "answered by simulated world" in said and " ms" in said
    of_turn = [v for v in verdicts_of(sample, [name])[name] if v.turn_index == index]
    assert any(v.outcome is Outcome.FAIL for v in of_turn)
    assert said.count('<div class="cl-item') == len(of_turn) and 'class="cl-item cl-now"' in said
    assert "cl-focus" in said  # the quote of the first item
    assert {button.label for button in app.button} >= {"Pass", "Fail", "Bad item", "Agree", "Previous", "Next", "Undo"}


def test_keys_say_move_on_and_undo(sample: Log) -> None:
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    name, index = turn_at(app)
    app = open_page(REVIEW, reviewer="ada", turn=f"{name}:{index}")
    first = turn_at(app)
    items = html(app).count('<div class="cl-item')
    app.text_input(key="reason").set_value("it is not so").run()
    press(app, "pass")
    ((*turn, _, outcome, judge),) = by_people(sample)
    assert (tuple(turn), outcome, judge) == (first, "PASS", "ada")
    assert turn_at(app) == first and app.text_input(key="reason").value == ""
    assert next(v for v in verdicts_of(sample, [first[0]])[first[0]] if v.judge == "ada").reason == "it is not so"
    press(app, "agree")
    assert len(by_people(sample)) == items and turn_at(app) != first
    assert "1 turn today" in html(app)
    for left in (1, 0):  # what one key said is taken back by one key
        press(app, "undo")
        assert turn_at(app) == first and len(by_people(sample)) == left
    app.button(key="undo").click().run()
    assert "nothing of yours to undo" in app.code[0].value


def test_keys_speak_of_what_the_queue_asks_for_and_lead_to_it(sample: Log) -> None:
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    name, index = turn_at(app)
    of_turn = [v for v in verdicts_of(sample, [name])[name] if v.turn_index == index]
    failed = {v.item_key for v in of_turn if v.outcome is Outcome.FAIL}
    assert 0 < len(failed) < len(of_turn) and app.query_params["focus"] in failed
    press(app, "agree")
    assert {(one[:2], one[2]) for one in by_people(sample)} == {((name, index), key) for key in failed}
    assert turn_at(app) != (name, index)
    for _ in range(3):
        of_one = {v.item_key: v for v in verdicts_of(sample, [turn_at(app)[0]])[turn_at(app)[0]]}
        assert of_one[str(app.query_params["focus"])].outcome is Outcome.FAIL
        press(app, "pass")


def test_a_key_that_comes_before_the_page_has_followed_says_nothing(sample: Log) -> None:
    app = open_page(REVIEW, reviewer="ada")
    app.button(key="pass").click()
    press(app, "fail")  # both are of the page as it was drawn for the first item
    assert len(by_people(sample)) == 1
    assert "a key came before the page had followed" in html(app)
    press(app, "pass")
    assert len(by_people(sample)) == 2


def test_the_end_of_a_queue_says_so(sample: Log) -> None:
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    name, index = turn_at(app)
    item = next(
        v.item_id
        for v in verdicts_of(sample, [name])[name]
        if v.turn_index == index and v.outcome is Outcome.FAIL and v.item_key == app.query_params["focus"]
    )
    app = open_page(REVIEW, verdict="FAIL", item=str(item), reviewer="ada")
    for _ in range(20):
        if "turn" not in app.query_params:
            break
        press(app, "agree")
    assert "This queue is done" in html(app) and "agreed with the judge on 1 item" in html(app)
    said = len(by_people(sample))
    press(app, "undo")
    assert turn_at(app) and len(by_people(sample)) == said - 1


def test_a_link_to_no_turn_leaves_the_claim_where_it_is(sample: Log) -> None:
    app = open_page(REVIEW, reviewer="ada")
    assert "There is no such turn" in html(open_page(REVIEW, turn="nobody:3", reviewer="ada"))
    (claim,) = claims_of_others(sample, "bob", datetime.now(UTC))
    assert (claim.trajectory_id, claim.turn_index) == turn_at(app)


def test_a_bad_item_needs_a_reason_and_comes_back_by_undo(sample: Log) -> None:
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    name, _ = turn_at(app)
    digest = str(get_trajectory(sample, name).scenario_hash)
    items = html(app).count('<div class="cl-item')
    app.button(key="bad").click().run()
    assert "say in the field Reason why" in app.code[0].value and not objections_of(sample, [digest])
    app.text_input(key="reason").set_value("it asks for two things").run()
    press(app, "bad")
    assert objections_of(sample, [digest])[digest][0].reason == "it asks for two things"
    assert html(app).count('<div class="cl-item') == items - 1
    press(app, "undo")
    assert html(app).count('<div class="cl-item') == items


def test_next_skips_previous_returns_and_a_link_shows_the_same(sample: Log) -> None:
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    first = turn_at(app)
    press(app, "next")
    second = turn_at(app)
    assert second != first
    again = open_page(REVIEW, **{name: str(value) for name, value in app.query_params.items()})
    assert turn_at(again) == second and again.selectbox(key="verdict").value == "FAIL"
    # The reviewer comes back without the turn in the address: they stand where they were.
    assert turn_at(open_page(REVIEW, verdict="FAIL", reviewer="ada")) == second
    press(again, "previous")
    assert turn_at(again) == first


def test_the_item_at_hand_stands_in_the_address(sample: Log) -> None:
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    name, index = turn_at(app)
    keys = [v.item_key for v in verdicts_of(sample, [name])[name] if v.turn_index == index]
    assert app.query_params["focus"] in keys
    press(app, "item-2")
    second = app.query_params["focus"]
    address = {key: str(value) for key, value in app.query_params.items()}
    again = open_page(REVIEW, **address)
    now = html(again).split("cl-item cl-now")[1].split("cl-item")[0]
    assert again.query_params["focus"] == second
    assert next(item.question for item in items_of_turn(sample, name, index) if item.id == second) in unescape(now)
    press(app, "next")
    assert turn_at(app) != (name, index) and app.query_params["focus"]
    app = open_page(REVIEW, turn=f"{name}:{index}", focus="no such item", reviewer="ada")
    assert app.query_params["focus"] in keys


def items_of_turn(log: Log, name: str, index: int) -> tuple[Item, ...]:
    return get_scenario(log, str(get_trajectory(log, name).scenario_hash)).turns[index].checklist


def test_a_queue_that_was_not_counted_to_its_end_has_no_bar() -> None:
    pace = Pace(turns_today=50, turns=50, per_hour=None)
    assert 'style="width:50.0%"' in progress_html(pace, 50, 0, None)
    many = progress_html(pace, COUNTED, 0, None)
    assert "200+ open" in many and "width:" not in many and "50 turns" in many


def test_two_reviewers_see_different_turns(sample: Log) -> None:
    ada, bob = (open_page(REVIEW, verdict="FAIL", reviewer=name) for name in ("ada", "bob"))
    assert turn_at(ada) != turn_at(bob)
    assert "1 other reviewer at work" in html(bob)
    name, index = turn_at(ada)
    bob = open_page(REVIEW, verdict="FAIL", reviewer="bob", turn=f"{name}:{index}")
    assert "has this turn until" in html(bob) and bob.button(key="pass").disabled
    press(bob, "next")
    assert turn_at(bob) != (name, index) and not bob.button(key="pass").disabled


def test_two_browsers_that_give_one_name_see_different_turns_and_are_told(
    sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(browser: str, **query: str) -> AppTest:
        monkeypatch.setattr("dashboard.review_actions.browser", lambda: browser)
        return open_page(REVIEW, verdict="FAIL", reviewer="ada", **query)

    one = at("b1")
    assert not one.warning
    other = at("b2")
    assert turn_at(other) != turn_at(one) and "in another browser, too" in other.warning[0].value
    assert turn_at(at("b1")) == turn_at(one), "a reload stays where it was"
    name, index = turn_at(one)
    linked = at("b2", turn=f"{name}:{index}")
    assert "has this turn until" in html(linked) and linked.button(key="pass").disabled
    app = at("b1")
    press(app, "pass")
    assert [judge for *_, judge in by_people(sample)] == ["ada"], "what is said is recorded under the name"


def test_a_browser_is_known_by_the_token_below_the_mask() -> None:
    def masked(token: str, mask: str) -> str:
        covered = bytes(a ^ b for a, b in zip(bytes.fromhex(token), bytes.fromhex(mask * 4), strict=True))
        return f"2|{mask}|{covered.hex()}|1764490000"

    one, other = "00112233445566778899aabbccddeeff", "ff112233445566778899aabbccddeeff"
    assert browser_of(masked(one, "0a0b0c0d")) == browser_of(masked(one, "deadbeef"))
    assert len(browser_of(masked(one, "0a0b0c0d"))) == 12
    assert browser_of(masked(one, "0a0b0c0d")) != browser_of(masked(other, "0a0b0c0d"))
    assert [browser_of(cookie) for cookie in ("", "2||", "2|zz|aa|1", "3|aa|bb|1", "nothing")] == [""] * 5


def test_only_one_item_and_what_is_written_outlive_the_browser(sample: Log) -> None:
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    app.text_input(key="reason").set_value("half a sen").run()
    assert open_page(REVIEW, verdict="FAIL", reviewer="ada").text_input(key="reason").value == "half a sen"
    press(app, "only-item")
    item = int(app.query_params["item"])
    press(app, "next")
    name, index = turn_at(app)
    assert item in {v.item_id for v in verdicts_of(sample, [name])[name] if v.turn_index == index}
    press(app, "every-item")
    assert "item" not in app.query_params


def test_a_queue_that_is_done_and_a_sample_that_was_not_drawn_say_so(sample: Log) -> None:
    assert "This queue is done" in html(open_page(REVIEW, item="999999", reviewer="ada"))
    assert "checkloop judge sample" in shown(open_page(REVIEW, why="random", reviewer="ada"))
    assert "There is no such turn" in html(open_page(REVIEW, turn="nobody:3", reviewer="ada"))


def test_a_queue_is_narrowed_to_a_domain_a_kind_and_an_item(sample: Log) -> None:
    app = open_page(REVIEW, reviewer="ada", of_kind="called")
    assert app.query_params["focus"] and not [box for box in app.selectbox if box.label == "Item"]
    domain = next(value for value in app.selectbox(key="of_domain").options if value != "any")
    app = open_page(REVIEW, reviewer="ada", of_kind="called", of_domain=domain)
    (first, *_) = judged_items(sample, domain=domain, kind="called")
    app.selectbox(key="of-item").set_value(first.id).run()
    assert app.query_params["item"] == str(first.id)
    name, index = turn_at(app)
    of_turn = [v for v in verdicts_of(sample, [name])[name] if v.turn_index == index]
    assert first.id in {v.item_id for v in of_turn} and app.query_params["focus"] == first.key
    assert get_trajectory(sample, name).domain == domain
    press(app, "every-item")
    assert app.selectbox(key="of-item").value is None and "item" not in app.query_params


def test_several_reasons_are_asked_for_at_once_and_an_empty_one_says_what_to_do(sample: Log) -> None:
    one, other = ids(sample, batch="demo/after")[:2]
    add_review_batch(sample, "b1", [ReviewSample(one, 0, SampleReason.RANDOM)])
    add_review_batch(sample, "b2", [ReviewSample(other, 0, SampleReason.ANCHOR)])
    rate_turn(sample, other, 0, -1, person="bob")
    app = open_page(REVIEW, reviewer="ada", why=["random", "anchor"])
    assert turn_at(app) == (one, 0)
    press(app, "next")
    assert turn_at(app) == (other, 0)
    assert turn_at(open_page(REVIEW, reviewer="ada", why=["random", "anchor"], thumbs="true")) == (other, 0)
    app = open_page(REVIEW, reviewer="ada", why=["disputed", "uncertain"])
    assert "No turn was put up as disputed or uncertain yet" in html(app)
    app.button(key="offer-sample").click().run()
    assert [job.kind for job in list_jobs(sample)] == [JobKind.SAMPLE]


def test_hostile_text_is_marked_as_text(sample: Log) -> None:
    hostile_trajectory(sample)
    said = html(open_page(REVIEW, turn="hostile:0", reviewer="<b>ada</b>"))
    assert "<script" not in said and "<img" not in said and "&lt;script&gt;" in said
    assert '<mark class="cl-focus">' in said
    assert "<b>ada" not in html(open_page(REVIEW, turn="hostile:0", reviewer="bob"))
    assert HOSTILE[:8] == "<script>"


def test_quotes_are_marked_where_they_stand() -> None:
    text = 'Grey  skies,\n<b> take "one".'
    quotes = [Quote("skies, <b> take", focused=True), Quote('take "one"'), Quote("sunny"), Quote("  ")]
    assert marked(text, quotes) == (
        'Grey  <mark class="cl-focus">skies,\n&lt;b&gt; </mark><mark class="cl-focus">take</mark>'
        '<mark class="cl-quoted"> &quot;one&quot;</mark>.'
    )
    assert marked("a" * (LONGEST + 7), [Quote("aa")]).endswith("… (7 more characters)")
    call = CallRecord(call_id="c", name="f", arguments={"b": 1, "a": 2}, response='{"x":  1}')
    assert "cl-block cl-focus" in call_html(call, None, [Quote('{"arguments":{"a":2,"b":1},"name":"f"}', focused=True)])
    assert '<mark class="cl-quoted">{&quot;x&quot;:  1}</mark>' in call_html(call, None, [Quote('{"x": 1}')])
    step = StepRecord(index=0, thinking="I think so", content="", calls=(), finish_reason="stop")
    assert "<details open>" in step_html(step, None, {}, [Quote("think so", focused=True)])
    assert "<details>" in step_html(step, None, {}, [Quote("think so")])
