"""Jobs about verdicts, checklists and SFT sets: each does what its command does, and goes on where it was stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

import reward.annotation_choice
import reward.judge
from env_sim.scenario_generator import generate_scenarios
from reward.panel import Panel
from store.checklists import current_checklists
from store.database import Log
from store.endpoint_settings import Price
from store.jobs import NewJob
from store.review_samples import ANCHORS, ReviewSample, add_review_batch, review_batches, samples_of
from store.scenarios import add_scenarios
from store.settings import Settings, load_settings
from store.sft_sets import get_sft_set, list_sft_sets
from store.verdicts import add_verdicts, rewards_of, verdicts_of
from store.vocabulary import FocusOn, JobKind, Outcome, SampleReason, Split
from tests.job_stand_ins import StandInGateway, again, done, pipeline, work
from tests.judged_log import PLAYED, alone, asked_ids, item, record, say, scenario
from tests.scripted_annotator import bare, endpoint, perfect
from tests.store_examples import a_scenario
from tests.test_people import play
from train.errors import JobRefused
from train.job_judging import judge_settings
from train.job_kinds import run_job
from train.job_payloads import JudgePayload, check_pipeline, read_jobs
from train.job_process import JobProgress, StopRequested
from train.job_work import Work
from train.progress import Stage

JUDGE = {"base_url": "http://judge.test/v1", "model": "big"}


def taken(log: Log, kind: str, payload: dict[str, Any] | None = None, **settings: Any) -> Work:
    pipeline(log, (kind, payload or {}))
    return work(log, load_settings(**settings), StandInGateway(log))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["judge", "beside=true", "calibrate=true"], "leave beside out"),
        (["judge", "beside=true", "retry_unscored=true"], "verdicts that count"),
        (["judge", "anchors=true"], "add beside=true"),
        (["judge", "beside=true", "mode=loud"], "judge: mode: "),
        (["sample", "anchors=5", "batch=b"], "a name of its own"),
        (["sample", "random=-1"], "sample: random: "),
        (["reward", "trajectory=a", "batch=b"], "leave batch out"),
        (["annotate", "chat=c", "domain=travel"], "leave the other filters out"),
        (["annotate", "variants=2", "variant=1"], "give one of the two"),
        (["data", "domains=a"], "options of data: domain, source"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_queued(words: list[str], why: str) -> None:
    with pytest.raises(JobRefused, match=why) as refused:
        read_jobs(words)
    assert "Value error" not in str(refused.value)


def test_every_kind_of_job_has_options_a_function_and_a_place_in_the_docs() -> None:
    from train.job_kinds import KINDS
    from train.job_payloads import PAYLOADS

    table = (Path(__file__).parent.parent / "docs" / "schedules.md").read_text()
    for kind in JobKind:
        assert kind in KINDS
        row = next(line for line in table.splitlines() if line.startswith(f"| `{kind}` |"))
        missing = [option for option in PAYLOADS[kind].model_fields if f"`{option}`" not in row]
        assert not missing, f"docs/schedules.md does not name {missing} of {kind}"


def test_turns_are_put_up_once_however_often_the_job_is_taken(empty: Log) -> None:
    for n in range(6):
        play(empty, a_scenario(), f"t{n}", umbrella=Outcome.UNSCORED if n == 2 else Outcome.FAIL)
    one = taken(empty, "sample", {"random": 3, "disputed": 0, "uncertain": 1, "batch": "b1"})
    first = run_job(one)
    assert first["batch"] == "b1" and first["turns"]["random"] == 3 and first["judged"] == 12
    reasons = [sample.reason for sample in samples_of(empty, "b1")]
    assert reasons.count(SampleReason.RANDOM) == 3
    assert done(empty, again(empty, one))["turns"] == first["turns"]
    assert [batch.name for batch in review_batches(empty)] == ["b1"]
    with pytest.raises(JobRefused, match="there is a batch 'b1' of reviews already"):
        run_job(taken(empty, "sample", {"batch": "b1"}))


def test_the_anchor_set_is_fixed_once(empty: Log) -> None:
    play(empty, a_scenario(), "t1")
    assert done(empty, taken(empty, "sample", {"anchors": 1}))["turns"] == {"anchor": 1}
    with pytest.raises(JobRefused, match="it stays"):
        run_job(taken(empty, "sample", {"anchors": 1}))


def test_rewards_follow_what_counts_now(empty: Log) -> None:
    """0.875 with the umbrella failed; a person's PASS, written without its reward, makes it 1."""
    play(empty, a_scenario(), "t1")
    play(empty, a_scenario(), "t2")
    said = next(v for v in verdicts_of(empty, ["t1"])["t1"] if v.item_key == "umbrella")
    add_verdicts(empty, [replace(said, outcome=Outcome.PASS, step_index=1, id=None, created_at=None)])
    assert done(empty, taken(empty, "reward", {"trajectory": "t2"}))["changed"] == 0
    result = done(empty, taken(empty, "reward"))
    assert (result["trajectories"], result["changed"], result["up"]) == (2, 1, 1)
    assert rewards_of(empty, ["t1"])["t1"].value == 1.0
    with pytest.raises(JobRefused, match="no trajectory of batch 'b9'"):
        run_job(taken(empty, "reward", {"batch": "b9"}))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, list[str]]]:
    """A judge that passes "polite"; with what settings it was made, and the items of each question."""
    made: list[tuple[Settings, list[str]]] = []

    def make_panel(log: Log, settings: Settings, prompt: Path | None = None) -> Panel:
        questions: list[str] = []
        made.append((settings, questions))

        def answer(request: dict[str, Any]) -> str:
            questions.extend(asked_ids(request))
            return say(request, polite=("my pleasure", 1))

        panel = alone(answer, log=log)
        return replace(panel, draws=settings.judging.draws)

    monkeypatch.setattr(reward.judge, "make_panel", make_panel)
    return made


def judged_dialogues(log: Log, count: int) -> list[str]:
    """Played, by an LLM to be judged, each saying something else."""
    made = scenario((item("polite", FocusOn.REPLY, 1.0),))
    turns = [PLAYED.model_copy(update={"trajectory_id": f"t{n:02d}", "user": f"Question {n}"}) for n in range(count)]
    return [record(log, made, [turn], batch="b") for turn in turns]


def test_a_judge_speaks_beside_with_the_draws_that_the_job_asks_for(
    empty: Log, asked: list[tuple[Settings, list[str]]]
) -> None:
    judged_dialogues(empty, 3)
    payload = {"beside": True, "draws": 2, "model": "other", "limit": 2}
    one = taken(empty, "judge", payload, judge=JUDGE)
    assert done(empty, one) == {"trajectories": 2, "verdicts": {"PASS": 2}}
    settings, questions = asked[0]
    assert settings.judge is not None and settings.judge.model == "other" and settings.judging.draws == 2
    assert questions == ["polite"] * 4
    assert not rewards_of(empty, ["t00", "t01", "t02"]), "what it says does not count"
    pipeline(empty, ("judge", {"beside": True}))
    with pytest.raises(JobRefused, match="there is no LLM judge"):
        run_job(work(empty, load_settings(), StandInGateway(empty)))


def test_a_job_that_asks_afresh_asks_nothing_twice_when_it_is_taken_over(
    empty: Log, asked: list[tuple[Settings, list[str]]]
) -> None:
    """60 dialogues, 25 at a time: it is stopped after the first 25 and goes on with the other 35."""
    judged_dialogues(empty, 60)
    one = taken(empty, "judge", {"beside": True, "fresh": True}, judge=JUDGE)
    looks = iter([True])
    stopping = Stage(JobProgress(lambda: next(looks, True)), "job", "job")
    with pytest.raises(StopRequested):
        run_job(replace(one, stage=stopping))
    assert len(asked[0][1]) == 25
    assert run_job(again(empty, one)) == {"trajectories": 60, "verdicts": {"PASS": 60}}
    assert len(asked[1][1]) == 35


def test_only_the_anchor_set_is_judged_again(empty: Log, asked: list[tuple[Settings, list[str]]]) -> None:
    judged_dialogues(empty, 4)
    with pytest.raises(JobRefused, match="there is no anchor set"):
        run_job(taken(empty, "judge", {"beside": True, "anchors": True}, judge=JUDGE))
    add_review_batch(empty, ANCHORS, [ReviewSample("t02", 0, SampleReason.ANCHOR)])
    one = taken(empty, "judge", {"beside": True, "anchors": True}, judge=JUDGE)
    assert done(empty, one)["trajectories"] == 1


def test_a_limit_on_spending_refuses_and_keeps_what_was_said(empty: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    names = judged_dialogues(empty, 3)

    def dear(request: dict[str, Any]) -> httpx2.Response:
        text = say(request, polite=("my pleasure", 1))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 1_000_000, "completion_tokens": 10}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "big", "choices": [choice]}
        return httpx2.Response(200, json=body | {"usage": usage})

    def make_panel(log: Log, settings: Settings, prompt: Path | None = None) -> Panel:
        return alone(dear, log=log, price=Price(prompt=1.0, completion=1.0), max_usd=0.5, max_concurrency=1)

    monkeypatch.setattr(reward.judge, "make_panel", make_panel)
    one = taken(empty, "judge", {}, judge=JUDGE)
    with pytest.raises(JobRefused, match="judged by the next such job"):
        run_job(one)
    assert sum(bool(verdicts_of(empty, [name]).get(name)) for name in names) == 1
    assert len(rewards_of(empty, names)) == 1, "what was not asked has no reward, which would say that it was judged"


def test_what_a_limit_left_the_next_job_judges(
    empty: Log, asked: list[tuple[Settings, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = judged_dialogues(empty, 3)
    rich = reward.judge.make_panel

    def spent(log: Log, settings: Settings, prompt: Path | None = None) -> Panel:
        return alone(lambda request: "", log=log, price=Price(prompt=1.0, completion=1.0), max_usd=1e-9)

    monkeypatch.setattr(reward.judge, "make_panel", spent)
    with pytest.raises(JobRefused):
        run_job(taken(empty, "judge", {}, judge=JUDGE))
    monkeypatch.setattr(reward.judge, "make_panel", rich)
    assert done(empty, taken(empty, "judge", {}, judge=JUDGE)) == {"judged": 3, "unscored": 0, "reward": 1.0}
    assert [rewards_of(empty, names)[name].value for name in names] == [1.0] * 3


def test_another_model_is_not_called_by_the_name_of_the_configured_one(empty: Log) -> None:
    """Its verdicts would be the other's in the log, and the other's cached answers would be its own."""
    settings = load_settings(judge=JUDGE | {"name": "house judge"})
    judge = judge_settings(settings, JudgePayload(model="other")).judge
    assert judge is not None and (judge.model, judge.known_as) == ("other", "other")
    judge = judge_settings(settings, JudgePayload(draws=2)).judge
    assert judge is not None and judge.known_as == "house judge"


KNOWN = generate_scenarios(Split.TRAIN, 1, 3)[0]


@pytest.fixture
def annotator(monkeypatch: pytest.MonkeyPatch) -> None:
    """An annotator that knows the checklists of one bundled scenario."""
    monkeypatch.setattr(
        reward.annotation_choice, "annotator_endpoint", lambda log, settings: endpoint(perfect([KNOWN]), log)
    )


def test_checklists_are_written_and_a_second_job_has_nothing_to_write(empty: Log, annotator: None) -> None:
    empty_trip = bare(KNOWN)
    add_scenarios(empty, [empty_trip])
    one = taken(empty, "annotate", {"scenario": empty_trip.hash[:10], "variant": 0})
    assert done(empty, one) == {"annotated": 1, "wait_for_a_person": 0, "unanswered": 0, "skipped": 0}
    written = current_checklists(empty, [empty_trip])[empty_trip.hash]
    assert [[i.id for i in one.items] for (one,) in written] == [[i.id for i in turn.checklist] for turn in KNOWN.turns]
    assert done(empty, taken(empty, "annotate", {"variant": 0}))["skipped"] == 1
    with pytest.raises(JobRefused, match="no scenario of the log meets these conditions"):
        run_job(taken(empty, "annotate", {"domain": "nowhere"}))
    with pytest.raises(JobRefused, match="'chat-9'"):
        run_job(taken(empty, "annotate", {"chat": "chat-9"}))


def test_an_annotation_that_is_stopped_keeps_what_was_written(empty: Log, annotator: None) -> None:
    add_scenarios(empty, [bare(KNOWN)])
    one = taken(empty, "annotate", {"variant": 0})
    looks = iter([False])  # asked when it is known how many there are, then when one has ended
    with pytest.raises(StopRequested):
        run_job(replace(one, stage=Stage(JobProgress(lambda: next(looks, True)), "job", "job")))
    assert run_job(again(empty, one))["skipped"] == 1


def test_a_set_of_dialogues_is_made_once(empty: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.sft_making._counter", lambda settings: lambda made: 7)
    add_scenarios(empty, generate_scenarios(Split.TRAIN, 4, 3))
    one = taken(empty, "data", {"domain": "travel"}, home=tmp_path)
    first = run_job(one)
    made = get_sft_set(empty)
    assert first["data"] == made.name == "data-0001" and first["new"] and first["dialogues"] == made.dialogues < 4
    assert made.figures["tokens_before"] == 7 * made.dialogues
    assert done(empty, again(empty, one)) == first | {"new": False}, "killed before its end was written"
    assert len(list_sft_sets(empty)) == 1


def test_what_a_page_offers_can_be_queued() -> None:
    offered = [(JobKind.JUDGE, {"beside": True, "draws": 3, "limit": 50}), (JobKind.SAMPLE, {"anchors": 50})]
    for kind, payload in offered:
        assert check_pipeline([NewJob(kind, payload)])[0].payload == payload
