"""A proposed check is kept only if it passes on the reference and fails on every damaged one that concerns its item."""

import pytest

from env_sim.recordings import played_reference
from env_sim.scenario_generator import generate_scenarios
from reward.annotation_form import read_answer
from reward.checklist_proposals import derive_check, settle_check
from store.records import (
    Called,
    CallOrder,
    Check,
    Evidence,
    Item,
    NotCalled,
    ReplyAsks,
    ReplyMentions,
    ReplyRepeats,
    ResponseReceived,
)
from store.vocabulary import Split
from tests.annotation_examples import CALL, OFFER, REPLY, RESPONSE, TOOLS, TURNS
from tests.scripted_annotator import as_answer, as_text
from tests.turn_records import call, turn

TOOL_SPECS = {tool.name: tool for tool in TOOLS}


def without(item: Item) -> Item:
    return item.model_copy(update={"check": None})


def settle(item: Item, proposal: Check | None, index: int = 0) -> tuple[Check | None, str | None]:
    settled = settle_check(without(item), proposal, played_reference(TURNS[index], index), TOOL_SPECS)
    return settled.item.check, settled.dropped


@pytest.mark.parametrize("item", [CALL, RESPONSE, REPLY])
def test_a_sound_proposal_is_kept(item: Item) -> None:
    assert settle(item, item.check) == (item.check, None)


def test_a_proposal_that_refers_to_a_response_or_counts_is_read_and_kept() -> None:
    """As the annotator writes them."""
    repeats = {"kind": "reply_repeats", "tool": "find_flights", "fields": ["price"]}
    bounds = {"tolerance": 0, "at_least": 1, "at_most": 1}
    given = [{"name": "origin", "value": "Oslo"}, {"name": "seats", "value": "2"}]
    counts = {"kind": "called", "tool": "find_flights", "arguments": given, **bounds}
    entry = as_answer((CALL, RESPONSE, REPLY))
    entry["items"][0]["check"], entry["items"][2]["check"] = counts, repeats
    draft = read_answer(as_text(entry), [0], TOOL_SPECS)[0]
    assert draft.problems == []
    call_, _, reply = [settle(one.item, one.proposal) for one in draft.drafts]
    exactly = Called(tool="find_flights", arguments={"origin": "Oslo", "seats": 2}, at_least=1, at_most=1)
    assert call_ == (exactly, None)
    assert reply == (ReplyRepeats(tool="find_flights", fields=("price",)), None)


@pytest.mark.parametrize(
    ("item", "proposal", "reason"),
    [
        (CALL, Called(tool="find_flights", arguments={"origin": "Rome"}), "the reference fails it: no call to"),
        (CALL, Called(tool="find_flights"), "a damaged reference passes it: wrong_argument"),
        (CALL, Called(tool="find_flights", arguments={"origin": "Oslo"}), "passes it: wrong_argument"),
        (CALL, Called(tool="fly"), "there is no tool 'fly'"),
        (CALL, NotCalled(tools=("book_flight", "pay")), "there is no tool 'pay'"),
        (CALL, CallOrder(first="book_flight", then="find_flights"), "the reference fails it"),
        (REPLY, Called(tool="find_flights"), "another channel than its item (user_visible_reply)"),
        (REPLY, ReplyMentions(all_of=(("Oslo",),)), "a damaged reference passes it: wrong_value"),
        (REPLY, ReplyMentions(all_of=(("**",),)), "no word or number"),
        (REPLY, ReplyRepeats(tool="fly", fields=("price",)), "there is no tool 'fly'"),
        (REPLY, ReplyRepeats(tool="find_flights", fields=("seats",)), "has nothing to mention at 'seats'"),
        (RESPONSE, ResponseReceived(tool="find_flights"), "a damaged reference passes it: wrong_response"),
        (RESPONSE, ResponseReceived(tool="find_flights", values=("F85",)), "lacks 'F85'"),
    ],
)
def test_a_proposal_that_does_not_prove_itself_is_dropped(item: Item, proposal: Check, reason: str) -> None:
    check, dropped = settle(item, proposal)
    assert check is None and dropped is not None
    assert dropped.startswith(proposal.kind) and reason in dropped


def test_a_failed_attempt_of_the_reference_proves_nothing() -> None:
    check, dropped = settle(CALL, Called(tool="find_flights", arguments={"origin": "Osl"}))
    assert check is None and "the call to find_flights failed" in str(dropped)


def test_checks_are_derived_from_what_the_words_name() -> None:
    assert settle(CALL, None) == (CALL.check, None)
    assert settle(RESPONSE, None) == (RESPONSE.check, None)
    check, _ = settle(REPLY, None)
    assert isinstance(check, ReplyMentions) and len(check.all_of) == 1


@pytest.mark.parametrize(
    "question",
    [
        "Did the assistant call find_flights with origin Oslo only after the user agreed?",
        "Did the assistant not call find_flights with origin Oslo?",
        "Did the assistant call find_flights with origin Oslo twice?",
        "Did the assistant look for flights from Oslo?",
        "Did the assistant call find_flights?",
    ],
)
def test_nothing_is_derived_where_the_words_say_more_or_less(question: str) -> None:
    item = without(CALL).model_copy(update={"question": question})
    assert derive_check(item, played_reference(TURNS[0], 0)) is None


def test_a_tool_that_was_made_up_without_a_word_does_no_harm() -> None:
    """A chat's policy may call anything."""
    played = turn([call("**", {"origin": "Oslo"})], "Done.")
    odd = without(CALL).model_copy(update={"evidence": (Evidence(step=0, channel=CALL.focus_on, snippet="Oslo"),)})
    assert derive_check(odd, played) is None


def test_nothing_is_derived_for_an_offer_but_the_annotator_may_propose() -> None:
    assert settle(OFFER, None, 1) == (None, None)
    asks = ReplyAsks(about=("book",))
    assert settle(OFFER, asks, 1) == (asks, None)


def test_bundled_checks_are_found_again_from_words_and_evidence_alone() -> None:
    """Nine of ten of the calls, responses and values of 100 bundled scenarios; every one proves itself."""
    found, wanted = 0, 0
    for scenario in generate_scenarios(Split.TRAIN, 100, 5):
        tools = {tool.name: tool for tool in scenario.tools}
        for index, spoken in enumerate(scenario.turns):
            for item in spoken.checklist:
                settled = settle_check(without(item), None, played_reference(spoken, index), tools)
                if isinstance(item.check, Called | ResponseReceived):
                    wanted += 1
                    found += settled.item.check is not None and settled.item.check.kind == item.check.kind
    assert found >= 0.9 * wanted > 200
