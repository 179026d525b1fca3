"""`checkloop judge say … drift` on small logs: what a person does is done, and the figures are those that are known."""

from datetime import UTC, datetime

import pytest

import checkloop
from store.database import Log
from store.records import Scenario
from store.review_samples import ReviewSample, add_review_batch, review_batches, samples_of
from store.scenarios import item_ids
from store.trajectories import NewTrajectory, create_trajectories
from store.verdicts import Verdict, add_verdicts, rewards_of
from store.vocabulary import Origin, Outcome, SampleReason, VerdictSource
from tests.store_examples import a_scenario, start
from tests.test_people import play

ADA = ("--person", "Ada", "--reason", "I read it")


@pytest.fixture
def checkloop_judge(empty: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `checkloop judge ARGUMENTS` and returns (exit status, what it said)."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["checkloop", "judge", *arguments])
        status = 0
        try:
            checkloop.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def confuse(log: Log, scenario: Scenario, table: dict[str, int], key: str, reference: VerdictSource) -> None:
    """Trajectories of their own with one pair each: letters of the reference and the judge → how many."""
    item_id = item_ids(log, scenario.hash)[0, key]
    letters = {"P": Outcome.PASS, "F": Outcome.FAIL, "U": Outcome.UNSCORED}
    names = [(said, f"{reference}-{said}-{n}") for said, count in table.items() for n in range(count)]
    version = {"version": "v0007", "scenario_hash": scenario.hash}
    create_trajectories(log, [NewTrajectory(id=name, origin=Origin.ROLLOUT, **version) for _, name in names])
    add_verdicts(
        log,
        [
            Verdict(name, 0, item_id, key, letters[letter], None, source, judge, None, "", "", counts=counts)
            for said, name in names
            for letter, source, judge, counts in (
                (said[0], reference, "checks" if reference is VerdictSource.CODE else "Ada", True),
                (said[1], VerdictSource.LLM, "big-judge", reference is VerdictSource.HUMAN),
            )
        ],
    )


def test_the_known_kappa_is_printed(empty: Log, checkloop_judge) -> None:
    """People: 20, 5, 10, 15 of 50 → agreement 70 %, κ 0.40, true positives 80 %, false positives 40 % (by hand in
    test_agreement.py). Checks: 45, 15, 25, 15 of 100 → κ 0.13. Two of the judge's were UNSCORED."""
    scenario = a_scenario()
    start(empty, scenario=scenario)
    confuse(empty, scenario, {"PP": 20, "PF": 5, "FP": 10, "FF": 15, "PU": 2}, "umbrella", VerdictSource.HUMAN)
    confuse(empty, scenario, {"PP": 45, "PF": 15, "FP": 25, "FF": 15}, "asks-weather", VerdictSource.CODE)
    status, said = checkloop_judge("agreement", "--against", "people")
    assert status == 0 and "no randomly drawn turn has been gone through" in said
    for figure in (" 50 ", "50.0 %", "70.0 %", "0.40", "80.0 %", "40.0 %"):
        assert figure in said
    assert "by kind" in said and "by channel" in said and "user_visible_reply" in said and "v0007" in said
    status, said = checkloop_judge("agreement", "--against", "checks", "--by", "kind")
    assert status == 0 and "0.13" in said and "called" in said and "v0007" not in said


def test_the_random_share_stands_beside_all_reviewed(empty: Log, checkloop_judge) -> None:
    """Of 12 random turns the judge had 9 right (75 %); of 20 that were put up because they were disputed none."""
    scenario = a_scenario()
    start(empty, scenario=scenario)
    confuse(empty, scenario, {"PP": 5, "FF": 4, "FP": 3, "PF": 20}, "umbrella", VerdictSource.HUMAN)
    random = [
        ReviewSample(f"human-{said}-{n}", 0, SampleReason.RANDOM) for said in ("PP", "FF", "FP") for n in range(3)
    ]
    random += [ReviewSample(f"human-PP-{n}", 0, SampleReason.RANDOM) for n in (3, 4)]
    random.append(ReviewSample("human-FF-3", 0, SampleReason.RANDOM))
    disputed = [ReviewSample(f"human-PF-{n}", 0, SampleReason.DISPUTED, 1.0) for n in range(20)]
    add_review_batch(empty, "b1", [*random, *disputed])
    status, said = checkloop_judge("agreement", "--against", "people", "--by", "version")
    unbiased, everything = said.split("Against people, all reviewed")
    assert status == 0 and "75.0 %" in unbiased and " 12 " in unbiased and "by version" in unbiased
    assert "28.1 %" in everything and " 32 " in everything


def test_nothing_to_say_is_said(empty: Log, checkloop_judge) -> None:
    for command, words in {
        "agreement": "no LLM has judged an item that carries a check",
        "flips": "asked the same twice",
        "drift": "there is no anchor set",
        "sample": "no turn has been judged yet",
        "queue": "no turn has been put up for review",
    }.items():
        status, said = checkloop_judge(command)
        assert status == 0 and words in said


def test_a_person_speaks_objects_and_takes_it_back(empty: Log, checkloop_judge) -> None:
    play(empty, a_scenario(), "t1")
    status, said = checkloop_judge("say", "t1", "0", "umbrella", "pass", *ADA, "--step", "1")
    assert status == 0 and "reward of t1: 0.875 before, 1.000 now" in said
    status, said = checkloop_judge("say", "t1", "0", "umbrella", "FAIL", *ADA)
    assert status == 0 and rewards_of(empty, ["t1"])["t1"].value == 0.875
    status, said = checkloop_judge("bad", "t1", "0", "umbrella", *ADA)
    assert status == 0 and "revision 1): asks-weather 1" in said and "1 rewards computed again, 1 are others" in said
    status, said = checkloop_judge("restore", "t1", "0", "umbrella", *ADA)
    assert status == 0 and "asks-weather 0.75, umbrella 0.25" in said
    status, said = checkloop_judge("say", "t1", "0", "sunshade", "PASS", *ADA)
    assert status == 1 and "no item 'sunshade', only asks-weather, umbrella" in said
    status, said = checkloop_judge("say", "t1", "0", "umbrella", "MAYBE", *ADA)
    assert status == 2 and "MAYBE" in said
    status, said = checkloop_judge("say", "t1", "0", "umbrella", "PASS")
    assert status == 2 and "--person" in said


def test_a_person_goes_through_a_queue_and_undoes(empty: Log, checkloop_judge) -> None:
    play(empty, a_scenario(), "t1")
    play(empty, a_scenario(), "t2", turns=1)
    status, said = checkloop_judge("open", "--verdict", "FAIL")
    assert status == 0 and "t1" in said and "t2" in said
    status, said = checkloop_judge("next", "--person", "Ada", "--verdict", "FAIL")
    assert status == 0 and "turn 0 of t2" in said and "open umbrella: Umbrella?" in said
    assert "FAIL by big-judge: so it is" in said and '{"sky": "grey"}' in said
    status, said = checkloop_judge("agree", "t2", "0", "--person", "Bob")
    assert status == 1 and "Ada has turn 0 of trajectory 't2'" in said
    status, said = checkloop_judge("agree", "t2", "0", "--person", "Ada", "--verdict", "UNSCORED")
    assert status == 0 and said == ""  # no item of the turn is asked for
    status, said = checkloop_judge("agree", "t2", "0", "--person", "Ada", "--verdict", "FAIL")
    assert status == 0 and "umbrella: FAIL, says Ada" in said and "asks-weather" not in said
    status, said = checkloop_judge("next", "--person", "Ada", "--verdict", "FAIL")
    assert "turn 0 of t1" in said
    status, said = checkloop_judge("next", "--person", "Ada", "--verdict", "FAIL", "--skip")
    assert "turn 0 of t1" in said  # the only one that is left
    status, said = checkloop_judge("next", "--person", "Bob", "--verdict", "FAIL")
    assert status == 0 and "nothing is open (filter: outcome=FAIL)" in said
    status, said = checkloop_judge("undo", "--person", "Ada")
    assert status == 0 and "taken back: umbrella is FAIL, turn 0 of t2" in said
    status, said = checkloop_judge("undo", "--person", "Bob")
    assert status == 0 and "nothing to undo" in said


def test_a_batch_is_drawn_listed_and_worked_off(empty: Log, checkloop_judge) -> None:
    scenario = a_scenario()
    for n in range(4):
        play(empty, scenario, f"t{n}", umbrella=Outcome.UNSCORED if n == 2 else Outcome.FAIL)
    status, said = checkloop_judge("sample", "--random", "3", "--uncertain", "5", "--disputed", "5", "--batch", "b1")
    chosen = samples_of(empty, "b1")
    reasons = [sample.reason for sample in chosen]
    assert status == 0 and "3 random" in said and "of 8 judged turns" in said
    assert reasons.count(SampleReason.RANDOM) == 3
    if ("t2", 0) not in {(s.trajectory_id, s.turn_index) for s in chosen if s.reason is SampleReason.RANDOM}:
        assert reasons.count(SampleReason.UNCERTAIN) == 1
    status, said = checkloop_judge("queue")
    assert status == 0 and f"{len(chosen)} of {len(chosen)} turns are open" in said
    first = chosen[0]
    keys = ("asks-weather", "umbrella") if first.turn_index == 0 else ("answers-thanks",)
    for key in keys:
        checkloop_judge("say", first.trajectory_id, str(first.turn_index), key, "FAIL", *ADA)
    status, said = checkloop_judge("queue", "b1")
    assert f"{len(chosen) - 1} of {len(chosen)} turns are open" in said and "done" not in said
    status, said = checkloop_judge("queue", "b1", "--all")
    assert "done" in said
    status, said = checkloop_judge("sample", "--batch", "b1")
    assert status == 1 and "there is a batch 'b1' already" in said
    status, said = checkloop_judge("queue", "b7")
    assert status == 1 and "no batch 'b7'" in said


def test_flips_and_drift_are_shown(empty: Log, checkloop_judge) -> None:
    """PASS PASS FAIL in three draws: 2 of 3 pairs differ. On the anchors: right in week 45, wrong in week 47."""
    scenario = a_scenario()
    play(empty, scenario, "t1")
    status, said = checkloop_judge("sample", "--anchors", "8")
    assert status == 0 and "batch anchors: 2 anchor" in said
    status, said = checkloop_judge("sample", "--anchors", "8")
    assert status == 1 and "it stays" in said
    assert [batch.name for batch in review_batches(empty)] == ["anchors"]
    status, said = checkloop_judge("drift")
    assert status == 0 and "nothing to compare" in said
    item_id = item_ids(empty, scenario.hash)[0, "umbrella"]
    rows = [("PASS", 0, 2), ("PASS", 1, 2), ("FAIL", 2, 20)]
    add_verdicts(
        empty,
        [
            Verdict(
                "t1", 0, item_id, "umbrella", Outcome(outcome), None, VerdictSource.LLM, "other-judge", None, "", "",
                datetime(2026, 11, day, tzinfo=UTC), counts=False, draw=draw,
            )
            for outcome, draw, day in rows
        ],
    )  # fmt: skip
    checkloop_judge("say", "t1", "0", "umbrella", "PASS", *ADA)
    status, said = checkloop_judge("flips", "--judge", "other-judge")
    assert status == 0 and "66.7 %" in said and "too few for an interval" in said
    status, said = checkloop_judge("drift", "--judge", "other-judge")
    lines = [line for line in said.splitlines() if "2026-W" in line and "│" in line]
    assert [("2026-W45" in line, "100.0 %" in line) for line in lines] == [(False, False), (True, True), (False, False)]
