"""The report: whose verdicts are the reference, who is measured where, and a table worked out by hand."""

import pytest

from store.vocabulary import Outcome, VerdictSource
from tests.distil_log import city_scenario
from tests.turn_records import turn
from train.judge_examples import JudgeExample
from train.judge_report import figures_of, majority_of, referees, report_on

P, F, U = Outcome.PASS, Outcome.FAIL, Outcome.UNSCORED
CODE, HUMAN, LLM = VerdictSource.CODE, VerdictSource.HUMAN, VerdictSource.LLM


def example(n: int, outcome: Outcome, source: VerdictSource = CODE, teacher: Outcome | None = None) -> JudgeExample:
    item = city_scenario("Oslo").turns[0].checklist[2 if n % 2 else 0]
    said = {} if teacher is None else {"strong": teacher}
    happened = turn("Hi", trajectory_id=f"t{n}")
    return JudgeExample(f"s{n}", happened, item, (), source, source.value, outcome, "", "", said)


def test_everybody_is_measured_on_the_same_turns_and_a_teacher_where_it_spoke() -> None:
    """The small judge: 2 right PASS, 1 missed, 1 false PASS, 2 right FAIL, one UNSCORED, which is no FAIL.
    Agreement 4/6; by chance 1/2; κ = (4/6 - 1/2) / (1 - 1/2) = 1/3. Where the teacher spoke (the first four) it is
    right each time, κ = 1, and the small judge says PASS PASS FAIL PASS for PASS PASS PASS FAIL: agreement 2/4, by
    chance 3/4 · 3/4 + 1/4 · 1/4 = 10/16, κ = (8/16 - 10/16) / (6/16) = -1/3."""
    truth = [P, P, P, F, F, F, F]
    teacher: list[Outcome | None] = [P, P, P, F, None, None, None]
    examples = [example(n, t, teacher=s) for n, (t, s) in enumerate(zip(truth, teacher, strict=True))]
    said = {"judge-0001": [P, P, F, P, F, F, U], "base": [F] * 7}
    report = report_on(examples, "judge-0001", said, "checks (7)", majority_of(examples), seed=1)
    kappas = {name: found.kappa.value for name, found in report.by_judge.items()}
    assert kappas == pytest.approx(
        {
            "judge-0001": 1 / 3,
            "base": 0.0,
            "teacher strong": 1.0,
            "judge-0001 where strong spoke": -1 / 3,
            "always the majority (FAIL)": 0.0,
        }
    )
    figures = figures_of(report.by_judge["judge-0001"])
    assert (figures["pairs"], figures["unscored"], figures["base_rate"]) == (6, 1, 0.5)
    assert figures["true_positive_rate"] == pytest.approx(2 / 3)
    assert figures["false_positive_rate"] == pytest.approx(1 / 3)
    assert {name: found.n for name, found in report.by_channel.items()} == {
        "assistant_tool_calls": 3,
        "user_visible_reply": 3,
    }


def test_people_and_checks_are_the_reference_teachers_only_where_nobody_else_spoke() -> None:
    mixed = [example(0, P), example(1, F, HUMAN), example(2, P, LLM)]
    kept, against = referees(mixed)
    assert [e.turn.trajectory_id for e in kept] == ["t0", "t1"] and against == "people (1) and checks (1)"
    kept, against = referees(mixed[2:])
    assert len(kept) == 1 and "its teachers (llm); neither people nor checks" in against
