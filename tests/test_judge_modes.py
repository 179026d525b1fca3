"""Turn, item, step and paper: how many questions each mode asks, and from which step an item holds."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from reward.judge_modes import count_questions, judge_in_mode
from reward.llm_judge import Answers, Dialogue
from store.records import Item, TurnRecord
from store.vocabulary import FocusOn, JudgeMode, Outcome
from tests.judged_log import Answer, asked_ids, endpoint_judge, item, say
from tests.turn_records import call, turn

ITEMS = (
    item("searched", FocusOn.TOOL_CALLS),
    item("booked", FocusOn.TOOL_CALLS, depends_on=("searched",)),
    item("polite", FocusOn.REPLY),
)
HAPPENED = turn(
    [call("find", {"city": "Rome"})], [call("find", {"city": "Paris"})], [call("book", {"id": 7})], "Done, my pleasure."
)


class Script:
    """Answers by what is shown; remembers the questions."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []

    def __call__(self, request: dict[str, Any]) -> Any:
        self.requests.append(request)
        return self.answer(request)

    @property
    def asked(self) -> list[list[str]]:
        return [asked_ids(request) for request in self.requests]


def judge(
    script: Script,
    mode: JudgeMode,
    items: Sequence[Item] = ITEMS,
    happened: TurnRecord = HAPPENED,
    held: Mapping[str, int] | None = None,
    **settings: Any,
) -> Answers:
    llm = endpoint_judge(script, mode, **settings)
    return asyncio.run(judge_in_mode(llm, Dialogue(happened, (), "s"), items, held or {}))


def outcomes(answers: Answers) -> dict[str, tuple[Outcome, int | None]]:
    return {verdict.key: (verdict.outcome, verdict.step_index) for verdict in answers.verdicts}


def what_happened(request: dict[str, Any]) -> str:
    """Passes an item as soon as what proves it is shown."""
    shown = request["messages"][1]["content"]
    proofs = {"searched": ("Paris", 1), "booked": ('"id":7', 2), "polite": ("my pleasure", 3)}
    seen = {key: (quote, step) for key, (quote, step) in proofs.items() if quote in shown.split("# Items")[0]}
    return say(request, **{key: proof for key, proof in seen.items() if key in asked_ids(request)})


ALL_HOLD = {"searched": (Outcome.PASS, 1), "booked": (Outcome.PASS, 2), "polite": (Outcome.PASS, 3)}


def test_turn_asks_once() -> None:
    script = Script(what_happened)
    assert outcomes(judge(script, JudgeMode.TURN)) == ALL_HOLD
    assert script.asked == [["searched", "booked", "polite"]]


def test_item_asks_once_an_item() -> None:
    script = Script(what_happened)
    assert outcomes(judge(script, JudgeMode.ITEM)) == ALL_HOLD
    assert sorted(script.asked) == [["booked"], ["polite"], ["searched"]]


def test_step_leaves_out_what_holds_what_the_step_lacks_and_what_no_answer_could_pay() -> None:
    """ "booked" is asked where "searched" may come to hold; the reply's step asks about the reply alone."""
    script = Script(what_happened)
    assert outcomes(judge(script, JudgeMode.STEP)) == ALL_HOLD
    assert script.asked == [["searched", "booked"], ["searched", "booked"], ["booked"], ["polite"]]
    titles = [request["messages"][1]["content"].split("# Items")[1].split("\n")[0] for request in script.requests]
    assert titles == [" about turn 0, which is not over"] * 3 + [" about turn 0, which is over"]


def test_step_does_not_show_what_comes_later() -> None:
    script = Script(what_happened)
    judge(script, JudgeMode.STEP)
    assert "Rome" in script.requests[0]["messages"][1]["content"]
    assert "Paris" not in script.requests[0]["messages"][1]["content"]


def test_step_holds_from_the_first_step_that_says_so() -> None:
    """The judge sees only at step 2 that the call of step 1 was the right one."""

    def late(request: dict[str, Any]) -> str:
        return say(request, searched=("Paris", 1)) if '"id":7' in request["messages"][1]["content"] else say(request)

    assert outcomes(judge(Script(late), JudgeMode.STEP, ITEMS[:1])) == {"searched": (Outcome.PASS, 2)}


def test_step_waits_for_dependencies_that_others_decided() -> None:
    """A check says since when "searched" holds: before, "booked" cannot pay and is not asked about."""
    script = Script(what_happened)
    answers = judge(script, JudgeMode.STEP, ITEMS[1:2], held={"searched": 1})
    assert outcomes(answers) == {"booked": (Outcome.PASS, 2)}
    assert script.asked == [["booked"], ["booked"]]


def test_step_needs_no_model_where_the_dependency_never_holds() -> None:
    script = Script(lambda request: say(request))
    items = (item("searched", FocusOn.THINKING), item("booked", FocusOn.TOOL_CALLS, depends_on=("searched",)))
    happened = turn([call("find")], "Done.")
    verdicts = judge(script, JudgeMode.STEP, items, happened).verdicts
    assert [(v.key, v.outcome, v.asked) for v in verdicts] == [
        ("searched", Outcome.FAIL, False),
        ("booked", Outcome.FAIL, False),
    ]
    assert script.asked == []


def test_step_is_unscored_where_a_step_could_not_be_judged_and_no_other_passes() -> None:
    def down_at_first(request: dict[str, Any]) -> Any:
        over = "which is over" in request["messages"][1]["content"]
        return say(request, polite=("pleasure", 3)) if over else httpx2.Response(503, text="busy")

    found = outcomes(judge(Script(down_at_first), JudgeMode.STEP))
    assert found == {
        "searched": (Outcome.UNSCORED, None),
        "booked": (Outcome.UNSCORED, None),
        "polite": (Outcome.PASS, 3),
    }


def paper_answer(passes: bool) -> str:
    analyses = ("high_level_understanding_of_the_question", "analysis_of_if_focus_on", "analysis_of_pass_condition")
    said = dict.fromkeys((*analyses, "analysis_of_failure_examples"), "hm")
    return json.dumps({**said, "answer": passes})


def test_paper_asks_everything_at_every_step_the_criterion_first_without_proof() -> None:
    """CM2's procedure: S·N calls, also on what holds already; OR over the steps; no quote is asked for."""

    def by_paper(request: dict[str, Any]) -> str:
        (message,) = request["messages"]
        text = message["content"]
        assert text.index("Does ") < text.index("# Current messages")
        return paper_answer("Does searched hold?" in text and "Paris" in text)

    script = Script(by_paper)
    found = outcomes(judge(script, JudgeMode.PAPER))
    assert len(script.requests) == len(HAPPENED.steps) * len(ITEMS) == 12
    assert found == {"searched": (Outcome.PASS, 1), "booked": (Outcome.FAIL, None), "polite": (Outcome.FAIL, None)}


def test_paper_s_trouble_is_unscored_unless_a_step_passes() -> None:
    """The reference code turned it into a False."""

    def sometimes(request: dict[str, Any]) -> Any:
        text = request["messages"][0]["content"]
        if "Paris" not in text:
            return "not JSON"
        return paper_answer("Does polite hold?" in text)

    found = outcomes(judge(Script(sometimes), JudgeMode.PAPER))
    assert found == {
        "searched": (Outcome.UNSCORED, None),
        "booked": (Outcome.UNSCORED, None),
        "polite": (Outcome.PASS, 1),
    }


def test_questions_are_counted_as_they_are_asked() -> None:
    counted = {mode: len(count_questions(mode, HAPPENED, ITEMS)) for mode in JudgeMode}
    of_item = {JudgeMode.ITEM: 3, JudgeMode.SMALL: 3}
    assert counted == {JudgeMode.TURN: 1, JudgeMode.STEP: 4, JudgeMode.PAPER: 12} | of_item
    assert all(count_questions(mode, HAPPENED, ()) == [] for mode in JudgeMode)
