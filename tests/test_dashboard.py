"""Every page as a person meets it: on an empty log, on a full one, on a broken one, and with hostile text in it."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from agent.ports import free_port
from dashboard import trajectory_table
from dashboard.estimates import compare_batches
from dashboard.links import (
    CHAT,
    COMPARE,
    ITEMS,
    JOBS,
    JUDGES,
    OVERVIEW,
    PAGES,
    REVIEW,
    SCENARIOS,
    TRAINING,
    TRAJECTORIES,
    PageSpec,
)
from dashboard.text import LONGEST, escape, link, tidy_json
from reward.failure_patterns import find_patterns
from reward.overview_commands import overview
from store import database
from store.browsing import neighbours, page_of_trajectories
from store.database import Log
from store.figures import Counts, verdict_cube
from store.item_figures import item_figures
from store.model_calls import ModelCall, add_model_calls
from store.objections import retire_item
from store.ratings import rate_turn
from store.run_dialogues import add_run_dialogues
from store.runs import add_metrics, finish_run, start_run
from store.scenarios import get_scenario
from store.trajectories import (
    NewTrajectory,
    create_trajectories,
    end_trajectory,
    get_trajectory,
    list_trajectories,
)
from store.trajectory_filters import TrajectoryFilter
from store.turns import get_turns
from store.verdicts import Vote, add_verdicts, rewards_of, verdicts_of
from store.vocabulary import ModelRole, Origin, Outcome, RunKind, Split, VerdictSource
from tests.pages import HOSTILE, hostile_trajectory, html, ids, open_page, shown
from tests.sample_log import CHAT_ID


@pytest.fixture(autouse=True)
def nobody_at_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_an_empty_log_says_what_to_do_first(page: PageSpec, empty: Log) -> None:
    said = shown(open_page(page))
    first = {CHAT: "checkloop up", JOBS: "checkloop job submit"}
    assert first.get(page, "make demo") in said
    assert (page is JOBS) <= ("make demo" not in said), "a demo queues no job"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_missing_log_is_said_and_not_created(page: PageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", f"sqlite:///{tmp_path}/none/log.db")
    said = shown(open_page(page))
    assert "There is no log yet" in said
    assert "make demo" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_file_that_is_no_log_is_said(page: PageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log.db"
    file.write_bytes(b"this is no database" * 200)
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", f"sqlite:///{file}")
    app = open_page(page)
    assert "The log cannot be read" in app.error[0].value
    assert "Traceback" not in shown(app)


def test_a_log_of_a_newer_checkloop_is_said(sample: Log) -> None:
    with sqlite3.connect(sample.engine.url.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    app = open_page(OVERVIEW)
    assert "newer" in app.code[0].value


def test_the_share_of_steps_that_are_forks_is_shown(sample: Log) -> None:
    with sample.writing() as connection:
        steps = connection.exec_driver_sql("SELECT count(*) FROM step").scalar_one()
        connection.exec_driver_sql("UPDATE step SET forked = 1 WHERE id IN (SELECT id FROM step ORDER BY id LIMIT 10)")
    (dialogues,) = [metric for metric in open_page(OVERVIEW).metric if metric.label == "Dialogues"]
    assert dialogues.delta.endswith(f"· {1000 / steps:.1f} % forks")


def test_a_table_that_is_gone_is_a_message_on_its_page_only(sample: Log) -> None:
    with sqlite3.connect(sample.engine.url.database) as connection:
        connection.execute("DROP TABLE metric")
    assert "cannot be read" in open_page(TRAINING).error[0].value
    assert "Traceback" not in shown(open_page(TRAINING))


NEEDED = {
    OVERVIEW: "rate_tally", REVIEW: "verdict", TRAJECTORIES: "trajectory", COMPARE: "trajectory", SCENARIOS: "item",
    ITEMS: "rate_tally", JUDGES: "verdict", TRAINING: "policy_version", JOBS: "job", CHAT: "trajectory",
}  # fmt: skip
"""A table that the page cannot do without."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_table_that_is_gone_is_a_message_on_every_page(page: PageSpec, sample: Log) -> None:
    with sqlite3.connect(sample.engine.url.database) as connection:
        connection.execute(f"DROP TABLE {NEEDED[page]}")
    app = open_page(page)
    assert any("cannot be read" in error.value for error in app.error)
    assert any(f"no such table: {NEEDED[page]}" in code.value for code in app.code)
    assert "Traceback" not in shown(app)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_log_that_somebody_else_holds_is_a_message_on_every_page(
    page: PageSpec, sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    sample.close()
    holder = sqlite3.connect(sample.engine.url.database, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("UPDATE stage SET error = error")  # from its first write on nobody else may read either
    try:
        app = open_page(page)
        assert "cannot be read" in app.error[0].value and "locked" in app.code[0].value
        assert "Traceback" not in shown(app)
    finally:
        holder.close()


def test_what_a_reviewer_says_while_the_log_is_locked_is_refused_with_the_reason(
    sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    app = open_page(REVIEW, verdict="FAIL", reviewer="ada")
    holder = sqlite3.connect(sample.engine.url.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        app.button(key="pass").click().run()
        assert any("locked" in code.value for code in app.code) and not app.exception
    finally:
        holder.close()
    assert not said_by_people(sample)
    app.run()
    assert not app.error


def said_by_people(log: Log) -> list[str]:
    of_all = verdicts_of(log, ids(log)).values()
    return [v.item_key for of_one in of_all for v in of_one if v.source is VerdictSource.HUMAN]


def test_wrong_settings_are_said(sample: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", "not a port")
    app = open_page(OVERVIEW)
    assert "settings are not valid" in app.error[0].value
    assert "gateway.port" in app.code[0].value


def test_the_overview_shows_the_live_version_and_the_log_s_own_numbers(sample: Log) -> None:
    app = open_page(OVERVIEW)
    said = shown(app)
    assert "v0003" in said and "since" in said
    total = sum((cell.counts for cell in verdict_cube(sample)), start=Counts())
    metrics = {metric.label: metric for metric in app.metric}
    assert metrics["Verdicts"].value == f"{total.total:,}"
    assert metrics["Verdicts"].delta == f"{100 * total.judged / total.total:.1f} % judged"
    after = [r for r in rewards_of(sample, ids(sample, batch="demo/after")).values() if r.value is not None]
    assert f"{sum(r.value or 0 for r in after) / len(after):.3f} [" in html(app)
    assert "demo/before" in html(app) and "banking (unseen)" in html(app)
    found = compare_batches(sample, before="demo/before", after="demo/after")
    assert found is not None and found.unjudged > 0
    for label, one in (
        ("Held-out checklist reward", found.difference),
        ("Fully passed dialogues", found.passed_difference),
    ):
        low, high = f"{100 * one.low:+.1f}", f"{100 * one.high:+.1f}"
        assert metrics[label].delta == f"{100 * one.mean_difference:+.1f} points [{low}, {high}]"
    both = found.pairs + found.unjudged
    assert f"{found.pairs} of the {both} scenarios" in said and f"{found.unjudged} left out as not judged" in said
    assert f"reward {found.reward.mean:.3f} [{found.reward.low:.3f}, {found.reward.high:.3f}]" in said


def test_the_overview_filters_by_what_the_address_says(sample: Log) -> None:
    app = open_page(OVERVIEW, o_origin="rollout", o_domain="shop")
    assert app.selectbox(key="o_domain").value == "shop"
    rollouts = sum(
        (c.counts for c in verdict_cube(sample) if c.origin == "rollout" and c.domain == "shop"), start=Counts()
    )
    assert f"of {rollouts.judged:,}" in html(app)
    assert "banking" not in html(app).split("By kind")[0].split("Items that fail")[0].split("demo/before")[0]


def test_the_overview_says_what_goes_wrong_and_leads_to_the_turns(sample: Log) -> None:
    found = find_patterns(sample, version="v0003", earlier=("v0001",), origin="evaluation")
    worst = found.figures[0]
    page = html(open_page(OVERVIEW, o_origin="evaluation"))
    assert f"pattern={worst.pattern.replace(' ', '+')}" in page and worst.behind[0].trajectory_id not in page
    behind = html(open_page(OVERVIEW, o_origin="evaluation", pattern=worst.pattern))
    newest = worst.behind[0]
    assert f"trajectory={newest.trajectory_id}#turn-{newest.turn_index + 1}" in behind
    review = f"review?turn={newest.trajectory_id}%3A{newest.turn_index}&amp;focus={newest.key}"
    assert review in behind
    assert "review?item=" in page  # of the items that fail most


def test_a_turn_of_a_trajectory_and_an_item_lead_to_review(sample: Log) -> None:
    name = ids(sample, batch="demo/after")[0]
    assert f"review?turn={name}%3A0" in html(open_page(TRAJECTORIES, trajectory=name))
    assert f"review?turn={CHAT_ID}" not in html(open_page(TRAJECTORIES, trajectory=CHAT_ID))  # nothing is judged there
    worst = item_figures(sample, limit=1).items[0].item_id
    assert open_page(ITEMS).dataframe[0].value["review"][0] == f"review?item={worst}&verdict=FAIL"


def test_the_overview_and_its_command_raise_what_to_look_at(sample: Log, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Nothing to look at" in html(open_page(OVERVIEW))
    add_model_calls(sample, [ModelCall(ModelRole.JUDGE, HOSTILE, None, 0, 0, 0, None, 1.0, error="it said 500")])
    page = html(open_page(OVERVIEW))
    assert "judge errors" in page and "it said 500" in page and escape(HOSTILE) in page and HOSTILE not in page
    overview(origin=Origin.EVALUATION, domain=None, version=None, limit=300, config=None)
    said = capsys.readouterr().out
    assert "live: v0003" in said and "ALERT judge errors" in said and "eligible dialogues judged" in said


def test_the_list_shows_every_trajectory_of_the_filter(sample: Log) -> None:
    app = open_page(TRAJECTORIES, origin="evaluation", batch="demo/after")
    frame = app.dataframe[0].value
    assert len(frame) == len(ids(sample, batch="demo/after"))
    assert set(frame["batch"]) == {"demo/after"}
    app.selectbox(key="version").set_value("v0001").run()
    assert not app.dataframe
    assert "No trajectory matches" in html(app)


def test_text_is_looked_for_in_the_newest_dialogues_and_on_demand_in_all(
    sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    (newest,) = page_of_trajectories(sample, TrajectoryFilter(), limit=1, offset=0)
    said = {row.id: {turn.user for turn in get_turns(sample, row.id)} for row in list_trajectories(sample)}
    text = next(user for users in said.values() for user in users - said[newest.id])
    everywhere = [name for name, users in said.items() if text in users]
    monkeypatch.setattr(trajectory_table, "SEARCHED", 1)
    app = open_page(TRAJECTORIES, text=text)
    assert f"Looked at the newest 1 of {len(ids(sample))} dialogues." in html(app)
    assert "No trajectory matches" in html(app)
    app.button(key="look-everywhere").click().run()
    assert f"{len(everywhere)} found" in shown(app) and "Looked at the newest" not in html(app)
    opened = open_page(TRAJECTORIES, text=text, everywhere="true", trajectory=everywhere[0])
    assert not all(button.disabled for button in opened.button if button.label in ("Previous", "Next"))
    app.checkbox(key=trajectory_table.EVERYWHERE).uncheck().run()
    assert "No trajectory matches" in html(app)


def test_the_list_narrows_to_the_dialogues_that_fail_an_item(sample: Log) -> None:
    verdicts = [v for of_one in verdicts_of(sample, ids(sample)).values() for v in of_one]
    failed = next(v for v in verdicts if v.outcome == Outcome.FAIL)
    expected = {v.trajectory_id for v in verdicts if v.item_id == failed.item_id and v.outcome == Outcome.FAIL}
    app = open_page(TRAJECTORIES, item=str(failed.item_id), outcome="FAIL")
    assert f"{len(expected)} found" in shown(app)
    app.button(key="clear-item").click().run()
    assert f"{len(ids(sample))} found" in shown(app)


def test_a_trajectory_opens_by_its_link_with_its_verdicts_and_evidence(sample: Log) -> None:
    trajectory = next(
        name
        for name, verdicts in verdicts_of(sample, ids(sample, batch="demo/before")).items()
        if {v.outcome for v in verdicts} >= {Outcome.PASS, Outcome.FAIL}
    )
    said = html(open_page(TRAJECTORIES, trajectory=trajectory))
    turn = get_turns(sample, trajectory)[0]
    assert turn.user in said and turn.steps[0].calls[0].name in said
    assert "✓ PASS" in said and "✗ FAIL" in said
    for verdict in verdicts_of(sample, [trajectory])[trajectory]:
        assert verdict.reason.replace("'", "&#x27;") in said
    assert "180 → 38 tokens" in said and "ms" in said and "v0001" in said
    assert "first held at step" in said and "code: check:" in said


def test_previous_and_next_walk_the_filtered_list(sample: Log) -> None:
    middle = ids(sample, batch="demo/after")[2]
    wanted = TrajectoryFilter(batch="demo/after")
    app = open_page(TRAJECTORIES, batch="demo/after", trajectory=middle)
    buttons = {button.label: button for button in app.button}
    buttons["Next"].click().run()
    assert app.query_params["trajectory"] == neighbours(sample, wanted, middle)[1]
    {button.label: button for button in app.button}["List"].click().run()
    assert "trajectory" not in app.query_params
    assert len(app.dataframe[0].value) == len(ids(sample, batch="demo/after"))


def test_an_unknown_trajectory_is_said(sample: Log) -> None:
    assert "There is no such trajectory" in html(open_page(TRAJECTORIES, trajectory="no-such-one"))


def test_a_failed_trajectory_says_why_and_that_it_is_excluded(sample: Log) -> None:
    create_trajectories(sample, [NewTrajectory(id="broken", origin=Origin.ROLLOUT, version="v0003")])
    end_trajectory(sample, "broken", "failed", "the server went away")
    app = open_page(TRAJECTORIES, trajectory="broken")
    assert "excluded" in app.warning[0].value
    assert app.code[0].value == "the server went away"


def test_items_stand_worst_first(sample: Log) -> None:
    app = open_page(ITEMS, i_origin="evaluation")
    rates = list(app.dataframe[0].value["rate"])
    assert rates == sorted(rates)
    app.selectbox(key="i_kind").set_value("called").run()
    assert set(app.dataframe[0].value["kind"]) == {"called"}


def test_training_shows_runs_curves_versions_and_the_gate(sample: Log) -> None:
    app = open_page(TRAINING)
    said = html(app)
    assert "demo-round-1" in said and "demo-round-2" in said and "✓ done" in said
    assert "mean validation reward rose by" in said and "✓ passed" in said
    assert "evaluate-before" in said and "41.8 s" in said
    assert len(app.get("vega_lite_chart")) == 7
    app.multiselect(key="runs").set_value([]).run()
    assert len(app.get("vega_lite_chart")) == 0


def test_training_shows_what_a_cold_start_and_a_small_judge_learnt_from(sample: Log) -> None:
    played = ids(sample, origin=Origin.EVALUATION)
    digests = sorted({str(get_trajectory(sample, name).scenario_hash) for name in played})
    sft, judge = (start_run(sample, f"{kind}-1", kind, None, 7, {}) for kind in (RunKind.SFT, RunKind.DISTIL))
    add_run_dialogues(sample, sft, dict.fromkeys(digests[:3], Split.TRAIN) | {digests[3]: Split.VALIDATION})
    add_run_dialogues(sample, judge, {digests[0]: Split.TRAIN})
    said = html(open_page(TRAINING))
    assert ">3 dialogues</a>" in said and "and 1 to measure on" in said and ">1 scenario</a>" in said
    assert "training?data=sft-1#run-data" in said and "opened=" not in said
    app = open_page(TRAINING, data="sft-1")
    said = html(app)
    assert said.count("trained on</td>") == 3 and said.count("measured on</td>") == 1
    for digest in digests[:4]:
        assert f"opened={digest}" in said and escape(get_scenario(sample, digest).name) in said
    assert "No scenario of it is recorded" in html(open_page(TRAINING, data="demo-round-1"))


def test_training_follows_a_run_that_is_on(sample: Log) -> None:
    app = open_page(TRAINING)
    assert app.multiselect(key="runs").value == ["demo-round-2", "demo-round-1"]
    assert app.query_params["runs"] == ["demo-round-2", "demo-round-1"], "a link shows the same tomorrow"
    run = start_run(sample, "demo-round-3", RunKind.GRPO, "v0003", 7, {"learning_rate": 2e-5})
    app.run()
    assert app.multiselect(key="runs").value == ["demo-round-3", "demo-round-2", "demo-round-1"]
    assert "▶ running" in html(app)
    app.multiselect(key="runs").set_value(["demo-round-3"]).run()
    assert "no metrics yet" in html(app)
    add_metrics(sample, run, 1, {"reward_mean": 0.5, "grad_norm": 1.0})
    app.run()
    assert len(app.get("vega_lite_chart")) == 1
    app.toggle(key="more").set_value(True).run()
    assert len(app.get("vega_lite_chart")) == 2
    finish_run(sample, run, "failed", "out of memory <b>")
    start_run(sample, "demo-round-4", RunKind.GRPO, "v0003", 7, {"learning_rate": 2e-5})
    app.run()
    assert "✗ failed" in html(app) and "out of memory &lt;b&gt;" in html(app)
    assert app.multiselect(key="runs").value == ["demo-round-3"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_hostile_text_is_shown_as_text(page: PageSpec, sample: Log) -> None:
    query = {TRAJECTORIES: {"trajectory": "hostile"}, CHAT: {"session": "hostile"}}.get(page, {})
    hostile_trajectory(sample)
    app = open_page(page, **query)
    said = html(app)
    assert "<script" not in said and "<img" not in said
    for kind in ("markdown", "title", "subheader", "caption", "error", "info", "warning"):
        assert not any("evil.test" in str(element.value) for element in app.get(kind))
    assert not any("evil.test" in button.label for button in app.button)
    if page in (TRAJECTORIES, CHAT, OVERVIEW):
        assert "&lt;script&gt;" in said and "![p](http://evil.test/p.png)" in said


def test_hostile_text_in_the_list_stands_in_cells(sample: Log) -> None:
    hostile_trajectory(sample)
    app = open_page(TRAJECTORIES, origin="chat")
    assert HOSTILE in set(app.dataframe[0].value["opening"])
    assert "<script" not in html(app)


def test_text_shows_exactly_its_characters() -> None:
    assert escape("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
    assert escape("line\n\ttab") == "line\n\ttab"
    assert escape("\x00\x1b[31m") == "␀␛[31m"
    assert escape("abc\u202edcba") == "abc&lt;U+202E&gt;dcba"  # a direction override cannot turn the text around
    assert escape("x" * (LONGEST + 5)).endswith("(5 more characters)")
    assert 'href="?a=&quot;' in link("l", '?a="')
    assert tidy_json("{broken") == "{broken"


def test_a_person_s_thumbs_and_comment_stand_beside_the_verdicts(sample: Log) -> None:
    trajectory = ids(sample, batch="demo/after")[0]
    assert "rating" not in html(open_page(TRAJECTORIES, trajectory=trajectory))
    rate_turn(sample, trajectory, 0, 1, comment="quick", person="ann")
    rate_turn(sample, trajectory, 0, -1, comment=HOSTILE, person="ben <b>")
    said = html(open_page(TRAJECTORIES, trajectory=trajectory))
    assert "▼ thumbs down" in said and "ben &lt;b&gt;" in said and "&lt;script&gt;" in said
    assert "thumbs up" not in said and "<script" not in said
    rate_turn(sample, trajectory, 0, 0, person="ben <b>")
    assert "thumbs down" not in html(open_page(TRAJECTORIES, trajectory=trajectory))


def test_votes_of_a_panel_and_the_checklist_of_today_are_shown(sample: Log) -> None:
    trajectory = ids(sample, batch="demo/after")[0]
    digest = str(get_trajectory(sample, trajectory).scenario_hash)
    first, *others = get_scenario(sample, digest).turns[0].checklist
    said = verdicts_of(sample, [trajectory])[trajectory]
    before = next(v for v in said if (v.turn_index, v.item_key) == (0, others[0].id))
    votes = tuple(Vote("judge", n, outcome) for n, outcome in enumerate([Outcome.PASS, Outcome.FAIL, Outcome.PASS]))
    combined = replace(before, outcome=Outcome.PASS, step_index=0, votes=votes, share=2 / 3, created_at=None)
    add_verdicts(sample, [combined])
    assert first.question in html(open_page(TRAJECTORIES, trajectory=trajectory))
    retire_item(sample, digest, 0, first.id, person="ann", reason="it asks for two things")
    shown_now = html(open_page(TRAJECTORIES, trajectory=trajectory))
    assert "votes: 2 PASS, 1 FAIL · pays 67% of its weight" in shown_now
    assert first.question not in shown_now
