"""What the page of judges says of them, over the sample log with two judges and a person in it."""

import random
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dashboard.links import JUDGES
from reward.agreement import measure_agreement
from store.agreement import JudgeId, pairs_of_judges, pairs_with_people
from store.database import Log
from store.model_calls import ModelCall, add_model_calls
from store.review_samples import ANCHORS, ReviewSample, add_review_batch
from store.verdicts import Verdict, add_verdicts, verdicts_of
from store.vocabulary import ModelRole, Outcome, SampleReason, VerdictSource
from tests.pages import HOSTILE, html, ids, open_page

BIG, SMALL = JudgeId("big-judge", "a" * 64), JudgeId("small-judge", "b" * 64)
OTHER = {Outcome.PASS: Outcome.FAIL, Outcome.FAIL: Outcome.PASS}


def speak(log: Log, judge: JudgeId, wrong: float, source: VerdictSource = VerdictSource.LLM, draw: int = 0) -> None:
    """The judge says what the checks said, but for a share of it."""
    rng = random.Random(f"{judge.name} {draw}")
    verdicts: list[Verdict] = []
    for of_one in verdicts_of(log, ids(log)[:30]).values():
        for verdict in of_one:
            if verdict.outcome == Outcome.UNSCORED:
                continue
            outcome = OTHER[verdict.outcome] if rng.random() < wrong else verdict.outcome
            step = 0 if outcome == Outcome.PASS else None
            about = {"source": source, "judge": judge.name, "prompt_hash": judge.prompt, "draw": draw}
            counts = source == VerdictSource.HUMAN
            again = {"outcome": outcome, "step_index": step, "counts": counts, "reason": f"{rng.random()}", "id": None}
            verdicts.append(replace(verdict, **about, **again, created_at=None))
    add_verdicts(log, verdicts)


@pytest.fixture
def judged(sample: Log) -> Log:
    speak(sample, BIG, 0.1)
    speak(sample, BIG, 0.1, draw=1)
    speak(sample, SMALL, 0.3)
    speak(sample, JudgeId("ann", None), 0.0, VerdictSource.HUMAN)
    calls = {"prompt_tokens": 1000, "cached_tokens": 250, "completion_tokens": 40, "latency_ms": 9.0, "items": 5}
    priced = [ModelCall(ModelRole.JUDGE, "big-judge", "a", usd=0.002, **calls) for _ in range(10)]
    unpriced = [ModelCall(ModelRole.JUDGE, "small-judge", "b", usd=None, **calls)]
    add_model_calls(sample, priced + unpriced)
    return sample


def test_agreement_with_people_is_that_of_the_command(judged: Log) -> None:
    said_there = html(open_page(JUDGES, against="people, all reviewed"))
    for judge in (BIG, SMALL):
        pairs = [pair for pair in pairs_with_people(judged) if pair.judge == judge.name]
        found = measure_agreement(pairs, 1)
        assert found.kappa.value is not None and found.raw.value is not None
        row = said_there.split(f"<td>{judge.name} @{'a' * 8 if judge is BIG else 'b' * 8}</td>")[1].split("</tr>")[0]
        assert f">{len(pairs):,}<" in row and f"<b>{found.kappa.value:.2f}</b>" in row
        assert f"<b>{100 * found.raw.value:.1f} %</b>" in row
    by_kind = html(open_page(JUDGES, against="people, all reviewed", by="item kind"))
    assert "<td>response_received</td>" in by_kind and "<td>reply_mentions</td>" in by_kind


def test_every_figure_of_a_judge_is_what_counting_by_hand_gives(judged: Log) -> None:
    """Base rate, agreement, true and false positives against people, and the flip rate, from the pairs themselves."""
    there = html(open_page(JUDGES, against="people, all reviewed"))
    agreement, flips = (
        there.split(heading)[1].split("</table>")[0] for heading in (">false positive</th>", ">flip rate</th>")
    )
    for judge, mark in ((BIG, "a" * 8), (SMALL, "b" * 8)):
        said = [
            (pair.reference == Outcome.PASS, pair.judged == Outcome.PASS)
            for pair in pairs_with_people(judged)
            if pair.judge == judge.name
        ]
        good, bad = [j for person, j in said if person], [j for person, j in said if not person]
        shares = (
            len(good) / len(said),
            sum(person == j for person, j in said) / len(said),
            sum(good) / len(good),
            sum(bad) / len(bad),
        )
        row = agreement.split(f"<td>{judge.name} @{mark}</td>")[1].split("</tr>")[0]
        assert re.findall(r"<b>([0-9.]+) %</b>", row) == [f"{100 * share:.1f}" for share in shares]
        assert 0 < shares[3] < shares[2] < 1
    by_draw: dict[tuple[str, int, int], dict[int, Outcome]] = {}
    for rows in verdicts_of(judged, ids(judged), all_rows=True).values():
        for one in rows:
            if one.judge == BIG.name:
                by_draw.setdefault((one.trajectory_id, one.turn_index, one.item_id), {})[one.draw] = one.outcome
    twice = [draws for draws in by_draw.values() if len(draws) == 2]
    differing = sum(draws[0] != draws[1] for draws in twice)
    row = flips.split(f"<td>big-judge @{'a' * 8}</td>")[1].split("</tr>")[0]
    assert 0 < differing < len(twice)
    assert f">{len(twice):,}<" in row and f">{differing:,}<" in row
    assert f"<b>{100 * differing / len(twice):.1f} %</b>" in row


def test_nothing_drawn_at_random_says_how_to_draw_and_checks_come_first_instead(judged: Log) -> None:
    assert "checkloop judge sample" in html(open_page(JUDGES, against="people, random share"))
    app = open_page(JUDGES)
    assert app.selectbox(key="against").value == "people, all reviewed"
    names = [str(app.selectbox(key=key).value) for key in ("against", "first", "second")]
    assert [app.query_params[key] for key in ("against", "first", "second")] == names


def test_two_judges_flips_and_costs(judged: Log) -> None:
    app = open_page(JUDGES, first=f"small-judge @{'b' * 8}", second=f"big-judge @{'a' * 8}")
    differing = [pair for pair in pairs_of_judges(judged, SMALL, BIG) if pair.reference != pair.judged]
    there = html(app)
    assert f"They differ on {len(differing)} items" in there
    assert f"trajectory={differing[-1].trajectory_id}#turn-{differing[-1].turn_index + 1}" in there
    assert "items asked again" in there
    assert "0.02 $" in there and "0.400 $" in there and "25 %" in there and "no price set" in there
    assert "checkloop judge sample --anchors 50" in there
    app.selectbox(key="second").set_value(f"small-judge @{'b' * 8}").run()
    assert "Choose two different judges" in html(app)


def test_a_judge_s_name_is_shown_as_text(sample: Log) -> None:
    speak(sample, JudgeId(HOSTILE, None), 0.1)
    there = html(open_page(JUDGES, against="code checks"))
    assert "&lt;script&gt;" in there and "<script" not in there


def test_drift_on_the_anchor_set_is_shown_by_period(sample: Log) -> None:
    """Right in week 45, wrong in week 47: 1 of 1, then 0 of 1 held against the person and against its first word."""
    name, verdicts = next((n, v) for n, v in verdicts_of(sample, ids(sample)).items() if v)
    one = verdicts[0]
    add_review_batch(sample, ANCHORS, [ReviewSample(name, one.turn_index, SampleReason.ANCHOR)])
    about = {"source": VerdictSource.LLM, "judge": "big-judge", "prompt_hash": "a" * 64, "counts": False, "id": None}
    said = [(Outcome.PASS, 2), (Outcome.FAIL, 20)]
    days = [{"outcome": o, "step_index": None, "created_at": datetime(2026, 11, day, tzinfo=UTC)} for o, day in said]
    add_verdicts(sample, [replace(one, **about, **changes) for changes in days])
    human = {"source": VerdictSource.HUMAN, "judge": "ann", "prompt_hash": None, "counts": True}
    person = {"outcome": Outcome.PASS, "step_index": None, "created_at": None, "id": None}
    add_verdicts(sample, [replace(one, **human, **person)])
    there = html(open_page(JUDGES))
    rows = [row for row in there.split("<tr>") if "2026-W" in row]
    assert [("2026-W45" in row, "2026-W47" in row, "<b>0.0 %</b>" in row) for row in rows] == [
        (False, True, True),
        (True, False, False),
        (False, True, True),
    ]
    by_month = html(open_page(JUDGES, per="month"))
    assert "2026-11" in by_month and "2026-W" not in by_month
