"""The overview as its reader meets it: rates with what they stand on, patterns under the filters, alerts, the night."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.charts import LABELLED, CurvePoint, RatePoint, metric_curve, rates_over_days, rates_over_versions
from dashboard.links import ITEMS, OVERVIEW
from dashboard.overview_tables import SHOWN_TURNS, turns_behind
from reward.failure_patterns import FailurePattern, find_patterns
from reward.intervals import wilson
from reward.overview_commands import overview
from reward.rate_alerts import LOOK_BACK
from store.coverage import Coverage, coverage_by, coverage_cells, item_coverage, scenario_coverage
from store.database import Log
from store.failures import FailedItem
from store.figures import Slice, rates_by
from store.item_figures import item_figures
from store.job_log import add_lines
from store.leases import end_job
from store.night import LONGEST, jobs_since, runs_since, stages_since
from store.objections import retire_item
from store.runs import finish_run, start_run
from store.scenarios import item_ids, load_scenarios
from store.schedules import fire_schedule, get_schedule
from store.schema import now
from store.stages import open_loop, start_stage
from store.trajectories import end_trajectory
from store.verdicts import add_verdicts
from store.vocabulary import ExitReason, FocusOn, JobStatus, Origin, Outcome, RunKind, StopReason
from tests.job_examples import submit, take
from tests.pages import html, open_page
from tests.store_examples import a_scenario, start
from tests.test_jobs_page import a_schedule
from tests.test_tallies import verdict


def chart(app: AppTest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    return found


def chart_rows(app: AppTest) -> list[dict[str, Any]]:
    """What the first chart is drawn from."""
    return pa.ipc.open_stream(app.get("vega_lite_chart")[0].proto.data.data).read_all().to_pylist()


def links_of(page: str, part: str) -> list[dict[str, list[str]]]:
    """The parameters of every link whose address has this part."""
    addresses = [one.split('"')[0].replace("&amp;", "&") for one in page.split('href="')[1:]]
    return [parse_qs(urlsplit(one).query) for one in addresses if part in one]


def test_days_stand_at_their_place_in_time_and_versions_side_by_side(sample: Log) -> None:
    versions = chart(open_page(OVERVIEW))
    over_days = open_page(OVERVIEW, o_over="time")
    days = chart(over_days)
    assert versions["layer"][0]["encoding"]["x"]["type"] == "nominal"
    x = days["layer"][0]["encoding"]["x"]
    assert (x["field"], x["type"], x["scale"]["type"]) == ("day", "temporal", "utc")
    titles = [tip["title"] for tip in days["layer"][0]["encoding"]["tooltip"]]
    assert titles[0] == "day (UTC)" and {"UNSCORED", "eligible dialogues judged"} <= set(titles)
    (day,) = rates_by(sample, Slice.DAY, origin="evaluation")
    (row,) = chart_rows(over_days)
    assert str(row["day"]).startswith(day)


def test_a_hundred_days_carry_no_texts() -> None:
    points = tuple(RatePoint(f"2026-{1 + n // 28:02d}-{1 + n % 28:02d}", 0.5, 0.4, 0.6, 10, 1.0) for n in range(100))
    for draw in (rates_over_days, rates_over_versions):
        marks = [layer["mark"]["type"] for layer in draw(points).to_dict()["layer"]]
        assert "text" not in marks and marks.count("point") == 1
        assert "text" in [layer["mark"]["type"] for layer in draw(points[:LABELLED]).to_dict()["layer"]]


def test_several_runs_are_told_apart_by_dashes_and_named() -> None:
    points = [CurvePoint(n, 0.5, f"run {n % 2}", n) for n in range(4)]
    encoding = metric_curve(points, "Loss").to_dict()["encoding"]
    assert encoding["color"]["legend"] and encoding["strokeDash"]["field"] == "series"
    assert "legend" not in metric_curve(points[:1], "Loss").to_dict()["encoding"]["color"]


def test_every_rate_stands_beside_its_unscored_share_and_the_judged_dialogues(sample: Log) -> None:
    start(sample, "unjudged", version="v0003", origin=Origin.EVALUATION)  # of no scenario: not eligible
    cells = coverage_cells(sample)
    page = html(open_page(OVERVIEW, o_origin="evaluation", o_domain="shop"))
    for by in (Slice.VERSION, Slice.ORIGIN):
        wanted = {"domain": "shop"} | ({} if by is Slice.ORIGIN else {"origin": "evaluation"})
        covered = coverage_by(cells, by, **wanted)
        notes = [f"{one.judged} of {one.eligible} dialogues" for one in covered.values()]
        assert notes and all(note in page for note in notes)
    rates = rates_by(sample, Slice.KIND, origin="evaluation", domain="shop")
    for counts in rates.values():
        assert f"of {counts.judged:,} · {100 * counts.unscored / counts.total:.1f} % unscored" in page
    for by, covered in item_coverage(sample, origin="evaluation", domain="shop").items():
        assert all(f"{covered[name].judged} of {covered[name].eligible} dialogues" in page for name in covered), by
    whole = coverage_by(cells, Slice.VERSION, origin="evaluation", domain="shop", version="v0003")["v0003"]
    one = html(open_page(OVERVIEW, o_origin="evaluation", o_domain="shop", o_version="v0003"))
    assert f"judged: {whole.judged} of {whole.eligible} dialogues" in one
    (row,) = chart_rows(open_page(OVERVIEW, o_origin="evaluation", o_domain="shop", o_version="v0003"))
    assert row["dialogues"].startswith(f"{whole.judged} of {whole.eligible} dialogues") and "unscored" in row


def test_an_item_that_people_threw_out_is_none_of_the_worst(sample: Log) -> None:
    worst = item_figures(sample, limit=1).items[0]
    way = f"item={worst.item_id}&amp;verdict=FAIL"
    assert way in html(open_page(OVERVIEW))
    where = (worst.turn_index, worst.key)
    digest = next(s.hash for s in load_scenarios(sample) if item_ids(sample, s.hash).get(where) == worst.item_id)
    retire_item(sample, digest, *where, person="ann", reason="it asks for two things")
    page = html(open_page(OVERVIEW))
    assert way not in page and page.count("&amp;verdict=FAIL") == 8, "the next one is there instead"


def test_a_link_shows_tomorrow_what_it_shows_today(sample: Log) -> None:
    """The origin that the page chose stands in the address; a pattern's link names the version whose turns it shows."""
    assert open_page(OVERVIEW).query_params["o_origin"] == "evaluation"
    whole = open_page(OVERVIEW, o_origin="all")
    assert whole.query_params["o_origin"] == "all"
    assert whole.get("button_group")[0].value == "all"
    assert open_page(OVERVIEW, o_origin="nonsense").get("button_group")[0].value == "evaluation"
    (link, *_) = links_of(html(open_page(OVERVIEW, o_origin="evaluation")), "pattern=")
    assert link["pattern_of"] == ["v0003"]
    newest = find_patterns(sample, version="v0003", origin="evaluation")
    asked = {"o_origin": "evaluation", "pattern": newest.figures[0].pattern}
    before = find_patterns(sample, version="v0001", origin="evaluation")
    behind = next(one for one in before.figures if one.pattern == newest.figures[0].pattern).behind
    page = html(open_page(OVERVIEW, **asked, pattern_of="v0001"))
    assert f"trajectory={behind[0].trajectory_id}" in page and "As of v0001" in page
    assert f"trajectory={newest.figures[0].behind[0].trajectory_id}" not in page
    assert [link for link in links_of(page, "failure-patterns") if "pattern" not in link] == [
        {"o_origin": ["evaluation"]}
    ]


def test_the_numbers_of_versions_are_unfolded_and_of_tools_none_is_lost(
    sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(OVERVIEW, o_origin="evaluation")
    assert not page.expander
    for name, counts in rates_by(sample, Slice.VERSION, origin="evaluation").items():
        share = wilson(counts.passed, counts.judged)
        row = html(page).split(f'<div class="cl-name">{name}</div>')[1].split('<div class="cl-name">')[0]
        assert f"[{100 * share.low:.0f}, {100 * share.high:.0f}]" in row
        assert f"of {counts.judged:,} · " in row and "unscored" in row and " dialogues (" in row
    tools = set(rates_by(sample, Slice.TOOL, origin="evaluation"))
    monkeypatch.setattr("dashboard.overview_rates.SHOWN_TOOLS", 4)
    seen: list[str] = []
    for number in range(1, -(-len(tools) // 4) + 1):
        app = open_page(OVERVIEW, o_origin="evaluation", o_tools_page=str(number))
        assert f"{len(tools)} tools" in [caption.value for caption in app.caption]
        names = [part.split("</div>")[0] for part in html(app).split('<div class="cl-name">')[1:]]
        seen += [name for name in names if name in tools]
    assert sorted(seen) == sorted(tools)


def test_what_an_item_s_rate_stands_on_is_beside_it(sample: Log) -> None:
    worst = item_figures(sample, limit=1).items[0]
    covered = scenario_coverage(sample, scenarios=[worst.scenario_hash])[worst.scenario_hash]
    row = html(open_page(OVERVIEW)).split(f"item={worst.item_id}&amp;outcome=FAIL")[0].rsplit("<tr>", 1)[1]
    assert f"{covered.judged} of {covered.eligible} dialogues" in row
    assert f"{100 * worst.counts.unscored / worst.counts.total:.1f} %" in row and "%" in row and "[" in row
    app = open_page(ITEMS, i_origin="rollout")
    first = item_figures(sample, origin="rollout", limit=1).items[0]
    of_first = scenario_coverage(sample, scenarios=[first.scenario_hash], origin="rollout")[first.scenario_hash]
    frame = app.dataframe[0].value
    assert frame["dialogues"][0].startswith(f"{of_first.judged} of {of_first.eligible} dialogues")
    assert frame["unscored_share"][0] == pytest.approx(first.counts.unscored / first.counts.total)
    for one in item_coverage(sample, origin="rollout")[Slice.KIND].values():
        assert f"{one.judged} of {one.eligible} dialogues" in html(app)


def test_dialogues_of_a_scenario_are_judged_or_only_eligible(log: Log) -> None:
    scenario, other = a_scenario(), a_scenario(name="other")
    start(log, "a", "b", "failed", "running", scenario=scenario, version="v0001", origin=Origin.EVALUATION)
    start(log, "c", scenario=other, version="v0002", origin=Origin.EVALUATION)
    for name in ("a", "b", "c"):
        end_trajectory(log, name, StopReason.COMPLETED)
    end_trajectory(log, "failed", StopReason.FAILED, "the server went away")
    add_verdicts(log, [verdict(log, "a", "umbrella", Outcome.UNSCORED)])
    both = [scenario.hash, other.hash]
    assert scenario_coverage(log, scenarios=both) == {scenario.hash: Coverage(2, 1), other.hash: Coverage(1, 0)}
    assert scenario_coverage(log, scenarios=both, version="v0001") == {scenario.hash: Coverage(2, 1)}
    assert scenario_coverage(log, scenarios=[], version="v0001") == {}


def test_patterns_follow_every_filter_and_their_links_keep_them(sample: Log) -> None:
    wanted = {"origin": "rollout", "batch": "demo/round-2/train", "domain": "shop"}
    found = find_patterns(sample, version="v0002", **wanted)
    asked = {f"o_{name}": value for name, value in wanted.items()} | {"o_over": "time"}
    page = html(open_page(OVERVIEW, **asked))
    links = links_of(page, "pattern=")
    assert [link.pop("pattern") for link in links] == [[one.pattern] for one in found.figures]
    asked["pattern_of"] = "v0002"
    assert all(link == {name: [value] for name, value in asked.items()} for link in links)
    earlier = html(open_page(OVERVIEW, o_origin="rollout", o_version="v0001"))
    first = find_patterns(sample, version="v0001", origin="rollout")
    assert [one["pattern"] for one in links_of(earlier, "pattern=")] == [[one.pattern] for one in first.figures]
    assert f"{first.dialogues} of v0001" in earlier and "at most 300 a version" in earlier


def test_a_pattern_s_shares_stand_over_the_last_versions(sample: Log) -> None:
    found = find_patterns(sample, version="v0003", earlier=("v0001", "v0002"), origin="evaluation")
    alone = find_patterns(sample, version="v0001", origin="evaluation")
    shares = {one.pattern: one.share for one in alone.figures}
    for one in found.figures:
        assert one.trend == (shares.get(one.pattern, 0.0), None)  # v0002 was never evaluated
    page = html(open_page(OVERVIEW, o_origin="evaluation"))
    assert '<th class="num">v0001</th><th class="num">v0003</th>' in page


def test_a_pattern_leads_to_all_its_turns_page_by_page_and_on_to_review() -> None:
    failed = [FailedItem(f"t{n}", 1, "llm", FocusOn.REPLY, None, "Is it so?", "no", f"k{n}") for n in range(70)]
    seen: list[str] = []
    for first in range(0, 70, SHOWN_TURNS):
        links = links_of(turns_behind(FailurePattern.OTHER, failed, first, "v2"), "review?")
        assert len(links) <= SHOWN_TURNS
        seen += [link["turn"][0] for link in links]
        for link in links:
            assert (link["verdict"], link["of_version"]) == (["FAIL"], ["v2"]) and link["focus"][0].startswith("k")
    assert seen == [f"t{n}:1" for n in range(70)]


def test_what_ran_last_night_is_listed_and_what_failed_is_an_alert(sample: Log) -> None:
    (failed,) = submit(sample, "prune")
    end_job(sample, take(sample), ExitReason.CRASHED, error="the disk is full <b>\nand more")
    (running,) = submit(sample, "judge")
    add_lines(sample, take(sample), [(now(), " 40 %  12 of 30 dialogues")])
    (waiting,) = submit(sample, "rollout")
    alerts, night = html(open_page(OVERVIEW)).split("demo/before", 1)
    assert "job failed" in alerts and "the disk is full &lt;b&gt;" in alerts and f"jobs?job={failed}" in alerts
    assert "✗ failed" in night and "▶ running" in night and "12 of 30 dialogues" in night
    assert f"jobs?job={running}" in night and f"jobs?job={waiting}" not in night
    assert [job.id for job in jobs_since(sample, now() - LOOK_BACK).rows] == [running, failed]
    assert [job.id for job in jobs_since(sample, now() + LOOK_BACK).rows] == [running]


def ended_before(log: Log, *tables: str) -> None:
    """All that ran, ran two days ago."""
    with log.writing() as connection:
        for table in tables:
            then = f"{now() - timedelta(days=2):%Y-%m-%d %H:%M:%S.%f}"
            connection.exec_driver_sql(f"UPDATE {table} SET ended_at = ?", (then,))


def test_a_night_in_which_nothing_ran_says_how_something_does(sample: Log) -> None:
    ended_before(sample, "run", "stage")
    assert "No job, training run or loop ran in the last 24 hours" in html(open_page(OVERVIEW))


def test_a_night_of_training_by_hand_is_listed_with_what_came_of_it(
    sample: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = start_run(sample, "by-hand", RunKind.GRPO, "v0003", 1, {})
    finish_run(sample, failed, JobStatus.FAILED, "TrainingFailed: too much is excluded <b>\nand more")
    night = html(open_page(OVERVIEW)).split("demo/before", 1)[1]
    row = night.split("training?runs=by-hand")[1].split("</tr>")[0]
    assert "v0003" in row and "too much is excluded &lt;b&gt;" in row and "and more" not in row
    row = night.split("training?runs=demo-round-2")[1].split("</tr>")[0]
    assert "grpo" in row and "v0002" in row and "<b>v0003</b>" in row and "live" in row
    assert "evaluate-before" in night and "41.8 s" in night
    overview(origin=Origin.EVALUATION, domain=None, version=None, limit=300, config=None)
    said = capsys.readouterr().out
    assert "run demo-round-2 grpo from v0002 done → v0003 live" in said and "stage evaluate-before of demo done" in said
    ended_before(sample, "run", "stage")
    going_on = start_run(sample, "by-hand", RunKind.GRPO, "v0003", 1, {})
    assert [one.run.id for one in runs_since(sample, now() - LOOK_BACK).rows] == [going_on]


def test_what_a_job_or_a_stage_trained_stands_there_once(log: Log) -> None:
    submit(log, "prune", "train")
    end_job(log, take(log), ExitReason.DONE)
    job = take(log)
    start_run(log, job.name, RunKind.GRPO, "v0001", 1, {})
    open_loop(log, "online-1", 1, {})
    for key in ("round-1/play", "round-1/train", "round-2/train"):
        start_stage(log, "online-1", key)
    start_run(log, "online-1/round-1", RunKind.GRPO, "v0001", 1, {})
    since = now() - LOOK_BACK
    assert job.name in {one.name for one in jobs_since(log, since).rows}
    assert [one.run.name for one in runs_since(log, since).rows] == ["online-1/round-1"]
    assert [one.key for one in stages_since(log, since).rows] == ["round-2/train", "round-1/play"]


def test_a_night_with_more_than_a_list_holds_says_how_much_and_where(sample: Log) -> None:
    for n in range(LONGEST + 1):
        start_run(sample, f"run {n}", RunKind.GRPO, "v0003", 1, {})
        submit(sample, "prune")
        end_job(sample, take(sample), ExitReason.DONE)
    night = html(open_page(OVERVIEW)).split("demo/before", 1)[1]
    assert "and 1 earlier job of these 24 hours" in night and "and 3 earlier runs" in night  # two are the sample's
    assert 'href="jobs"' in night and 'href="training"' in night and night.count("training?runs=") == LONGEST


def test_a_due_time_that_was_left_out_is_an_alert(sample: Log) -> None:
    a_schedule(sample)
    fire_schedule(sample, get_schedule(sample, "nightly"), "2026-05-14 03:00", at=now(), missed="no worker ran")
    page = html(open_page(OVERVIEW))
    assert "schedule missed" in page and "due 2026-05-14 03:00: no worker ran" in page
    assert "jobs?schedule=nightly" in page


def test_a_schedule_that_no_worker_noticed_is_missed(sample: Log) -> None:
    a_schedule(sample)
    with sample.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE schedule SET next_due = ?", (f"{now() - timedelta(hours=2):%Y-%m-%d %H:%M:%S.%f}",)
        )
    page = html(open_page(OVERVIEW))
    assert "schedule missed" in page and "and not queued: no worker" in page and "jobs?schedule=nightly" in page
