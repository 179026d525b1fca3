"""Jobs and schedules as a person meets them: what is queued and runs, what can be done with it, the forms."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.links import JOBS, JUDGES, REVIEW, SCENARIOS, TRAJECTORIES, PageSpec
from dashboard.schedule_form import MISSED
from dashboard.text import escape_markdown
from store.access import add_person
from store.agreement import JudgeId
from store.database import Log
from store.job_log import add_lines
from store.jobs import get_job, list_jobs, submit_pipeline
from store.leases import end_job
from store.schedules import get_schedule, list_firings, list_schedules
from store.schema import now
from store.verdicts import add_rewards, rewards_of
from store.vocabulary import AccessRole, ExitReason, JobKind, JobStatus, MissedRuns, VerdictSource
from store.workers import register_worker, sign_off
from tests.job_examples import submit, take
from tests.pages import HOSTILE, html, ids, open_page, shown
from tests.test_judges_page import speak
from train.job_payloads import read_job_line
from train.scheduler import create_schedule, pause_schedule
from train.triggers import choose_trigger


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def a_schedule(log: Log, cron: str = "0 3 * * *", jobs: str = "prune keep=3", zone: str = "Europe/Berlin") -> None:
    create_schedule(log, "nightly", choose_trigger(cron, None, None), read_job_line(jobs), at=now(), zone=zone)


def test_the_queue_shows_what_runs_how_far_it_is_and_why_the_rest_waits(empty: Log) -> None:
    submit(empty, "rollout", "judge")
    job = take(empty)
    add_lines(empty, job, [(now(), "loading"), (now(), " 40 %  12 of 30 dialogues")])
    said = html(open_page(JOBS))
    assert "▶ running" in said and "<b>40 %</b>" in said and "12 of 30 dialogues" in said
    assert "waits for the jobs before it" in said and "No worker is running" in said
    register_worker(empty, "w1", host="anna", pid=1, accelerators=["cuda:0"], kinds=list(JobKind))
    assert "w1 on anna · cuda:0" in html(open_page(JOBS))
    sign_off(empty, "w1")
    assert "No worker is running" in html(open_page(JOBS))


def test_the_address_narrows_the_list(empty: Log) -> None:
    submit(empty, "prune")
    submit(empty, "judge")
    take(empty)
    app = open_page(JOBS, j_status="queued", j_kind="judge")
    assert app.selectbox(key="j_status").value == "queued"
    assert "job=2" in html(app) and "job=1" not in html(app)
    assert "1 job, newest first" in shown(app)
    assert "No job matches" in html(open_page(JOBS, j_status="failed"))


def test_a_job_opens_by_its_link_with_its_log_and_can_be_stopped(empty: Log) -> None:
    submit(empty, "rollout", "judge")
    job = take(empty)
    add_lines(empty, job, [(now(), f"line {number} {HOSTILE}") for number in range(310)])
    app = open_page(JOBS, job=str(job.id))
    said = html(app)
    assert "line 309" in said and "line 9 " not in said and "310 lines, the newest on page 1" in shown(app)
    assert "<script" not in said and "&lt;script&gt;" in said
    earlier = html(open_page(JOBS, job=str(job.id), log_page="2"))
    assert "line 0 " in earlier and "line 9 " in earlier and "line 10 " not in earlier
    press(app, "Cancel")
    assert get_job(empty, job.id).cancel_requested
    assert next(button for button in app.button if button.label == "Asked to stop").disabled


def test_a_failed_job_says_why_and_is_tried_again_with_what_it_held_up(empty: Log) -> None:
    first, second = submit(empty, "rollout", "judge")
    end_job(empty, take(empty), ExitReason.REFUSED, error="no scenario <b>")
    app = open_page(JOBS, job=str(first))
    assert "refused: no scenario &lt;b&gt;" in html(app) and "✗ failed" in html(app)
    press(app, "Try again")
    assert {get_job(empty, one).status for one in (first, second)} == {JobStatus.QUEUED}


def test_what_cannot_be_done_any_more_is_said(empty: Log) -> None:
    (job_id,) = submit(empty, "prune")
    app = open_page(JOBS, job=str(job_id))
    end_job(empty, take(empty), ExitReason.DONE, result={})
    press(app, "Cancel")
    assert "is done already" in app.error[0].value
    assert "There is no such job" in html(open_page(JOBS, job="99"))
    assert "There is no such job" in html(open_page(JOBS, job="' OR 1"))
    assert "There is no such schedule" in html(open_page(JOBS, schedule="none"))


def test_jobs_are_queued_in_a_form(empty: Log) -> None:
    app = press(open_page(JOBS), "Queue jobs")
    app.text_input(key="queue-jobs").set_value("rollout senarios=8 judge").run()
    assert "senarios" in html(app) and "options of rollout" in html(app)
    assert next(button for button in app.button if button.label == "Queue now").disabled
    app.text_input(key="queue-jobs").set_value("rollout scenarios=8 judge").run()
    press(app, "Queue now")
    jobs = list_jobs(empty)[::-1]
    assert [(job.kind, job.payload) for job in jobs] == [(JobKind.ROLLOUT, {"scenarios": 8}), (JobKind.JUDGE, {})]
    assert app.query_params["job"] == str(jobs[0].id)


def test_a_schedule_is_made_in_a_form_that_shows_its_next_five_dates(empty: Log) -> None:
    app = press(open_page(JOBS), "New schedule")
    app.text_input(key="new-cron").set_value("0 25 * * *").run()
    assert "is no cron expression" in html(app)
    assert app.button(key="new-save").disabled
    app.text_input(key="new-cron").set_value("30 2 1 1 *").run()
    app.selectbox(key="new-zone").set_value("Europe/Berlin").run()
    year = now().year
    assert [f"{y}-01-01 02:30 CET" in html(app) for y in range(year + 1, year + 6)] == [True] * 5
    app.text_input(key="new-jobs").set_value("prune keep=2").run()
    app.selectbox(key="new-missed").set_value(MissedRuns.SKIP).run()
    app.text_input(key="new-name").set_value("two words").run()
    app.button(key="new-save").click().run()
    assert "no name for a schedule" in app.error[0].value
    assert app.text_input(key="new-cron").value == "30 2 1 1 *"
    app.text_input(key="new-name").set_value("yearly").run()
    app.button(key="new-save").click().run()
    made = get_schedule(empty, "yearly")
    assert made.trigger == {"kind": "cron", "expression": "30 2 1 1 *"}
    assert (made.zone, made.missed, made.jobs[0].payload) == ("Europe/Berlin", MissedRuns.SKIP, {"keep": 2})
    assert app.query_params["schedule"] == "yearly" and "02:30 CET" in html(app)


@pytest.mark.parametrize(
    ("when", "field", "value", "trigger"),
    [
        ("every so many judged turns", "every", 50, {"kind": "judged_turns", "every": 50}),
        ("after each job of a kind", "after", "rollout", {"kind": "after", "job": "rollout"}),
    ],
)
def test_other_triggers_are_chosen_in_the_form(
    empty: Log, when: str, field: str, value: int | str, trigger: dict[str, object]
) -> None:
    app = open_page(JOBS, form="schedule")
    app.segmented_control(key="new-when").set_value(when).run()
    widgets: Sequence[object] = [*app.number_input, *app.selectbox]
    next(one for one in widgets if one.key == f"new-{field}").set_value(value).run()  # type: ignore[attr-defined]
    app.text_input(key="new-name").set_value("often").run()
    app.button(key="new-save").click().run()
    assert get_schedule(empty, "often").trigger == trigger


def test_an_unsaved_form_is_restored_by_its_address(empty: Log) -> None:
    """What the browser keeps there of bound fields: their keys and values."""
    typed = {"new-when": "every so many judged turns", "new-every": "50", "new-name": "often", "new-jobs": "train gate"}
    again = open_page(JOBS, form="schedule", **typed, **{"new-missed": MISSED[MissedRuns.SKIP], "new-attempts": "1"})
    assert again.segmented_control(key="new-when").value == "every so many judged turns"
    assert again.number_input(key="new-every").value == 50 and again.text_input(key="new-name").value == "often"
    again.button(key="new-save").click().run()
    made = get_schedule(empty, "often")
    assert (made.trigger, made.missed) == ({"kind": "judged_turns", "every": 50}, MissedRuns.SKIP)
    assert [(job.kind, job.max_attempts) for job in made.jobs] == [(JobKind.TRAIN, 1), (JobKind.GATE, 1)]


def test_an_edit_that_is_not_saved_is_restored_too(empty: Log) -> None:
    a_schedule(empty)
    app = open_page(
        JOBS, schedule="nightly", form="edit", **{"edit-nightly-cron": "0 4 * * *", "edit-nightly-zone": "Asia/Tokyo"}
    )
    assert app.text_input(key="edit-nightly-cron").value == "0 4 * * *" and "04:00 JST" in html(app)
    assert get_schedule(empty, "nightly").zone == "Europe/Berlin"


def test_an_edit_that_leaves_the_trigger_does_not_make_it_count_anew(empty: Log) -> None:
    a_schedule(empty)
    before = get_schedule(empty, "nightly")
    app = press(open_page(JOBS, schedule="nightly"), "Edit")
    assert app.text_input(key="edit-nightly-jobs").value == "prune keep=3"
    app.text_input(key="edit-nightly-jobs").set_value("prune keep=4").run()
    press(app, "Save")
    after = get_schedule(empty, "nightly")
    assert after.jobs[0].payload == {"keep": 4} and after.armed_at == before.armed_at
    app = open_page(JOBS, schedule="nightly", form="edit")
    app.text_input(key="edit-nightly-cron").set_value("0 4 * * *").run()
    press(app, "Save")
    changed = get_schedule(empty, "nightly")
    assert changed.trigger["expression"] == "0 4 * * *" and changed.armed_at > before.armed_at
    assert changed.next_due != before.next_due and "04:00 CET" in html(app)


def test_a_schedule_is_run_paused_resumed_and_removed(empty: Log) -> None:
    a_schedule(empty)
    app = press(open_page(JOBS, schedule="nightly"), "Run now")
    assert [firing.reason for firing in list_firings(empty, "nightly")] == ["by hand"]
    assert list_jobs(empty, schedule="nightly")[0].payload == {"keep": 3} and "by hand" in html(app)
    press(app, "Pause")
    assert get_schedule(empty, "nightly").paused and "Paused" in html(app)
    press(app, "Resume")
    assert not get_schedule(empty, "nightly").paused
    press(app, "Remove")
    assert list_schedules(empty), "nothing is removed before it is confirmed"
    press(app, "Remove it")
    assert not list_schedules(empty) and "schedule" not in app.query_params


def test_a_paused_schedule_and_one_that_was_missed_say_so(empty: Log) -> None:
    a_schedule(empty)
    pause_schedule(empty, "nightly")
    said = html(open_page(JOBS))
    assert "paused" in said and "prune keep=3" in said
    later = now() + timedelta(days=1)
    submit_pipeline(empty, read_job_line("prune"), run_after=later)
    assert f"not before {later:%Y-%m-%d %H:%M} UTC" in html(open_page(JOBS))


@pytest.mark.parametrize(
    ("page", "query", "button", "kind", "payload"),
    [
        (REVIEW, {"why": "random"}, "offer-sample", JobKind.SAMPLE, {}),
        (JUDGES, {"against": "code checks"}, "offer-agreement", JobKind.JUDGE, {"calibrate": True}),
        (JUDGES, {}, "offer-anchors", JobKind.SAMPLE, {"anchors": 50}),
        (SCENARIOS, {"look": "Filters"}, "offer-data", JobKind.DATA, {}),
        (SCENARIOS, {"look": "Filters"}, "offer-annotate", JobKind.ANNOTATE, {}),
    ],
)
def test_pages_queue_the_job_whose_figures_they_lack_and_then_lead_to_it(
    page: PageSpec, query: dict[str, str], button: str, kind: JobKind, payload: dict[str, object], sample: Log
) -> None:
    speak(sample, JudgeId("big-judge", None), 0.1, VerdictSource.HUMAN)
    app = open_page(page, **query)
    app.button(key=button).click().run()
    assert not app.exception and not app.error
    (job,) = list_jobs(sample)
    assert (job.kind, job.payload) == (kind, payload)
    assert button not in {one.key for one in app.button} and f"job={job.id}" in html(app)


def test_a_reward_that_is_out_of_date_is_computed_again_by_a_job(sample: Log) -> None:
    name = next(one for one, reward in rewards_of(sample, ids(sample)).items() if reward.value is not None)
    assert "offer-reward" not in {one.key for one in open_page(TRAJECTORIES, trajectory=name, show="Reward").button}
    reward = rewards_of(sample, [name])[name]
    assert reward.value is not None
    add_rewards(sample, [replace(reward, value=reward.value + 0.5)])
    app = open_page(TRAJECTORIES, trajectory=name, show="Reward")
    app.button(key="offer-reward").click().run()
    (job,) = list_jobs(sample)
    assert (job.kind, job.payload) == (JobKind.REWARD, {"trajectory": name})


def test_only_operators_are_offered_jobs(sample: Log) -> None:
    add_person(sample, "ada@example.org", AccessRole.REVIEWER, given_by="root")
    ada = {"is_logged_in": True, "email": "ada@example.org", "email_verified": True, "sub": "1"}
    app = open_page(REVIEW, ada, why="random")
    assert "checkloop judge sample" in html(app)
    assert not [one.key for one in app.button if str(one.key).startswith("offer-")]


def test_what_a_message_quotes_is_no_markdown() -> None:
    said = escape_markdown("![p](http://evil.test) **x** `y` <b>")
    assert said == r"\!\[p\]\(http\://evil\.test\) \*\*x\*\* \`y\` \<b\>"
