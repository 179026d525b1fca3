"""What pages count: on both databases, against numbers worked out from the rows one by one."""

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url

from store.browsing import (
    count_trajectories,
    neighbours,
    page_of_trajectories,
    sampled_arguments,
    step_figures,
)
from store.chats import delete_chat
from store.checklists import add_checklists, current_checklists
from store.coverage import Coverage, coverage_by, coverage_cells, item_coverage
from store.database import Log, open_log
from store.failures import newest_judged
from store.figures import (
    Counts,
    Slice,
    evaluation_rewards,
    facets,
    log_counts,
    log_state,
    rates_by,
    sum_counts,
    verdict_cube,
    version_figures,
)
from store.item_figures import JudgedItems, item_figures
from store.runs import get_run, run_trajectories, used_by
from store.scenarios import item_row, load_scenarios
from store.trajectories import (
    NewTrajectory,
    TrajectorySummary,
    create_trajectories,
    delete_trajectories,
    end_trajectory,
    link_scenario,
    list_trajectories,
)
from store.trajectory_filters import RUNNING, TrajectoryFilter
from store.verdicts import Reward, Verdict, add_rewards, add_verdicts, rewards_of, verdicts_of
from store.vocabulary import Origin, Outcome, StopReason, VerdictSource
from store.withdrawals import said_last, withdraw_verdict
from tests.databases import PostgresqlDatabases
from tests.sample_log import CHAT_ID, build_sample_log
from tests.store_examples import a_scenario, start
from tests.test_store_agreement import by_person, said


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with the sample log, to copy."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('figures')}/log.db"
    else:
        databases: PostgresqlDatabases = request.getfixturevalue("postgresql")
        url = databases.create()
    build_sample_log(url).close()
    if request.param == "sqlite":
        with sqlite3.connect(str(make_url(url).database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the copy takes one file
    return url


@pytest.fixture
def sample(template: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Log]:
    address = make_url(template)
    if address.get_backend_name() == "sqlite":
        shutil.copyfile(str(address.database), tmp_path / "log.db")
        log = open_log(f"sqlite:///{tmp_path}/log.db")
        yield log
        log.close()
        return
    databases: PostgresqlDatabases = request.getfixturevalue("postgresql")
    url = databases.create(template=str(address.database))
    log = open_log(url)
    yield log
    log.close()
    databases.drop(url)


def everything(log: Log) -> list[str]:
    return [summary.id for summary in list_trajectories(log, limit=10_000)]


def counted_by_hand(log: Log) -> list[Verdict]:
    return [verdict for of_one in verdicts_of(log, everything(log)).values() for verdict in of_one]


def test_the_cube_counts_every_verdict_once(sample: Log) -> None:
    by_hand = counted_by_hand(sample)
    total = sum((cell.counts for cell in verdict_cube(sample)), start=Counts())
    assert total.passed == sum(v.outcome == Outcome.PASS for v in by_hand) > 0
    assert total.failed == sum(v.outcome == Outcome.FAIL for v in by_hand) > 0
    assert total.unscored == sum(v.outcome == Outcome.UNSCORED for v in by_hand)


def test_the_cube_slices_by_version_and_domain(sample: Log) -> None:
    summaries = {summary.id: summary for summary in list_trajectories(sample, limit=10_000)}
    expected: dict[tuple[str, str], int] = {}
    for verdict in counted_by_hand(sample):
        of = summaries[verdict.trajectory_id]
        key = (str(of.version), str(of.domain))
        expected[key] = expected.get(key, 0) + 1
    found: dict[tuple[str, str], int] = {}
    for cell in verdict_cube(sample):
        found[cell.version, cell.domain] = found.get((cell.version, cell.domain), 0) + cell.counts.total
    assert found == expected
    assert list(sum_counts(verdict_cube(sample), "domain")) == ["banking", "shop", "travel"]


def test_a_person_wins_over_a_later_judge(sample: Log) -> None:
    failed = next(v for v in counted_by_hand(sample) if v.outcome == Outcome.FAIL)
    before = sum((cell.counts for cell in verdict_cube(sample)), start=Counts())
    human = replace(
        failed, outcome=Outcome.PASS, step_index=0, source=VerdictSource.HUMAN, judge="ada", created_at=None
    )
    add_verdicts(sample, [human])
    add_verdicts(sample, [replace(failed, created_at=None)])
    after = sum((cell.counts for cell in verdict_cube(sample)), start=Counts())
    assert (after.passed, after.failed) == (before.passed + 1, before.failed - 1)
    listed = page_of_trajectories(sample, TrajectoryFilter(trajectory_id=failed.trajectory_id), limit=1, offset=0)[0]
    assert listed.verdicts.passed == sum(
        v.outcome == Outcome.PASS for v in verdicts_of(sample, [failed.trajectory_id])[failed.trajectory_id]
    )


def test_rates_leave_unscored_out_and_say_so() -> None:
    counts = Counts(passed=6, failed=2, unscored=2)
    assert counts.rate == 0.75
    assert counts.coverage == 0.8
    assert Counts(unscored=3).rate is None


def test_the_newest_reward_counts(sample: Log) -> None:
    one = next(reward for reward in evaluation_rewards(sample) if reward.value is not None)
    add_rewards(sample, [Reward(one.trajectory_id, 0.123, (0.123,), False, 0)])
    again = {reward.trajectory_id: reward for reward in evaluation_rewards(sample)}
    assert again[one.trajectory_id].value == pytest.approx(0.123)
    assert len(again) == 12


def test_items_come_worst_first_and_only_from_what_is_asked_for(sample: Log) -> None:
    found = item_figures(sample)
    items = found.items
    assert len(items) == found.total
    fewer = item_figures(sample, limit=3)
    assert fewer.items == items[:3] and fewer.total == found.total
    rates = [item.counts.rate for item in items]
    assert rates == sorted(rates, key=lambda rate: rate or 0.0)
    unseen = item_figures(sample, domain="banking", batch="demo/after", version="v0003", kind="reply_mentions").items
    assert unseen and {(item.domain, item.kind) for item in unseen} == {("banking", "reply_mentions")}
    assert item_figures(sample, origin="chat") == JudgedItems([], 0)


def test_versions_tell_their_state_and_run(sample: Log) -> None:
    versions = version_figures(sample)
    assert [(v.name, v.parent, v.state) for v in versions] == [
        ("v0001", None, "retired"),
        ("v0002", "v0001", "retired"),
        ("v0003", "v0002", "live"),
    ]
    assert versions[-1].run == "demo-round-2"
    assert versions[-1].since >= versions[-1].created_at


@pytest.mark.parametrize(
    "wanted",
    [
        TrajectoryFilter(),
        TrajectoryFilter(origin="evaluation", version="v0003"),
        TrajectoryFilter(domain="banking"),
        TrajectoryFilter(batch="demo/before"),
        TrajectoryFilter(stop_reason="strict_item"),
        TrajectoryFilter(stop_reason=RUNNING),
        TrajectoryFilter(low=0.5),
        TrajectoryFilter(low=0.1, high=0.6),
        TrajectoryFilter(kind="called", outcome="FAIL"),
    ],
)
def test_filters_leave_exactly_what_they_say(sample: Log, wanted: TrajectoryFilter) -> None:
    rewards = rewards_of(sample, everything(sample))
    items_of_kind = {item.item_id for item in item_figures(sample, kind=wanted.kind, limit=10_000).items}
    verdicts = verdicts_of(sample, everything(sample))

    def fits(summary: TrajectorySummary) -> bool:
        reward = rewards.get(summary.id)
        value = reward.value if reward else None
        bounded = wanted.low is not None or wanted.high is not None
        return (
            wanted.origin in (None, summary.origin)
            and wanted.version in (None, summary.version)
            and wanted.domain in (None, summary.domain)
            and wanted.batch in (None, summary.batch)
            and wanted.stop_reason in (None, summary.stop_reason or RUNNING)
            and (not bounded or (value is not None and (wanted.low or 0) <= value <= (wanted.high or 1)))
            and (
                wanted.kind is None
                or any(v.item_id in items_of_kind and v.outcome == wanted.outcome for v in verdicts.get(summary.id, []))
            )
        )

    expected = {summary.id for summary in list_trajectories(sample, limit=10_000) if fits(summary)}
    listed = page_of_trajectories(sample, wanted, limit=10_000, offset=0)
    assert {row.id for row in listed} == expected
    assert count_trajectories(sample, wanted) == len(expected) > 0


def test_pages_and_neighbours_walk_the_same_list(sample: Log) -> None:
    wanted = TrajectoryFilter(origin="evaluation")
    whole = [row.id for row in page_of_trajectories(sample, wanted, limit=100, offset=0)]
    paged = [row.id for offset in (0, 5, 10) for row in page_of_trajectories(sample, wanted, limit=5, offset=offset)]
    assert paged == whole
    walked = [whole[0]]
    while (after := neighbours(sample, wanted, walked[-1])[1]) is not None:
        walked.append(after)
    assert walked == whole
    assert neighbours(sample, wanted, whole[3])[0] == whole[2]
    assert neighbours(sample, wanted, "unknown") == (None, None)


def test_a_run_lists_what_it_trained_on(sample: Log) -> None:
    run = get_run(sample, "demo-round-1")
    used = run_trajectories(sample, run.id)
    assert {
        row.id for row in page_of_trajectories(sample, TrajectoryFilter(run_id=run.id), limit=100, offset=0)
    } == set(used)
    count, share = used_by(sample, [run.id])[run.id]
    assert count == len(used)
    assert share == pytest.approx(sum(advantage != 0 for advantage in used.values()) / len(used))


def test_steps_tell_their_cost(sample: Log) -> None:
    figures = step_figures(sample, CHAT_ID)
    assert [(f.context_tokens, f.sampled_tokens, f.version, f.fork) for f in figures.values()] == [
        (180, 38, "v0003", False),
        (248, 24, "v0003", False),
    ]
    assert "Lisbon" in sampled_arguments(sample, CHAT_ID)["call-0-0"]


def test_facets_and_sizes(sample: Log) -> None:
    known = facets(sample)
    assert known.origins == ("chat", "evaluation", "rollout")
    assert known.batches == ("demo/before", "demo/round-1/train", "demo/round-2/train", "demo/after")
    assert known.versions == ("v0001", "v0002", "v0003")
    sizes = log_counts(sample)
    assert sizes.trajectories == len(everything(sample))
    assert sizes.sampled_tokens == 31 * sizes.steps


def test_the_state_changes_with_every_verdict_and_only_then(sample: Log) -> None:
    state = log_state(sample)
    assert log_state(sample) == state
    add_verdicts(sample, [replace(counted_by_hand(sample)[0], created_at=None)])
    assert log_state(sample) != state


def test_the_state_changes_when_an_older_chat_is_deleted(sample: Log) -> None:
    create_trajectories(sample, [NewTrajectory(id="newer", origin=Origin.CHAT, version="v0003")])
    state = log_state(sample)
    delete_chat(sample, CHAT_ID)
    assert log_state(sample) != state and facets(sample).origins[0] == "chat"


def test_the_state_changes_when_a_dialogue_ends_and_not_when_that_is_said_again(sample: Log) -> None:
    create_trajectories(sample, [NewTrajectory(id=name, origin=Origin.ROLLOUT) for name in ("older", "newer")])
    state = log_state(sample)
    end_trajectory(sample, "older", StopReason.FAILED, "no server")
    ended = log_state(sample)
    assert ended != state
    end_trajectory(sample, "older", StopReason.FAILED, "no server")
    assert log_state(sample) == ended
    assert delete_trajectories(sample, ["newer"]) == 1
    assert log_state(sample) != ended


def test_the_state_changes_when_a_chat_gets_its_scenario(sample: Log) -> None:
    state = log_state(sample)
    link_scenario(sample, CHAT_ID, load_scenarios(sample)[0].hash)
    assert log_state(sample) != state


def test_the_state_changes_with_a_revision_of_a_checklist_that_has_no_new_item(sample: Log) -> None:
    scenario = load_scenarios(sample)[0]
    (current,) = current_checklists(sample, [scenario])[scenario.hash][0]
    state = log_state(sample)
    add_checklists(sample, [replace(current, items=current.items, author="ann", reason="as it was")])
    assert log_state(sample) != state


def test_coverage_counts_the_dialogues_of_every_slice(sample: Log) -> None:
    judged = set(verdicts_of(sample, everything(sample)))
    eligible = [
        one
        for one in list_trajectories(sample, limit=10_000)
        if one.scenario_hash and one.stop_reason not in (None, StopReason.FAILED)
    ]
    cells = coverage_cells(sample)
    for by, name in ((Slice.VERSION, "version"), (Slice.DOMAIN, "domain"), (Slice.ORIGIN, "origin")):
        for wanted in ({}, {"origin": "rollout"}, {"batch": "demo/after", "domain": "shop"}):
            expected: dict[str, Coverage] = {}
            for one in eligible:
                if all(getattr(one, key) == value for key, value in wanted.items()):
                    more = Coverage(1, int(one.id in judged))
                    label = str(getattr(one, name))
                    expected[label] = expected.get(label, Coverage()) + more
            assert coverage_by(cells, by, **wanted) == dict(sorted(expected.items()))
    days = coverage_by(cells, Slice.DAY)
    assert set(days) == set(rates_by(sample, Slice.DAY)) and sum(days.values(), Coverage()).eligible == len(eligible)
    with pytest.raises(ValueError, match="a dialogue has no tool"):
        coverage_by(cells, Slice.TOOL)
    of_scenario = {one.hash: one for one in load_scenarios(sample)}
    for chosen in ({}, {"origin": "rollout"}, {"batch": "demo/after", "domain": "shop"}, {"version": "v0002"}):
        slices: dict[Slice, dict[str, Coverage]] = {Slice.KIND: {}, Slice.CHANNEL: {}, Slice.TOOL: {}}
        for one in eligible:
            scenario = of_scenario[str(one.scenario_hash)]
            if not all(getattr(one, key) == value for key, value in chosen.items()):
                continue
            rows = [item_row("", 0, item) for turn in scenario.turns for item in turn.checklist]
            names = {
                Slice.KIND: {row["kind"] for row in rows},
                Slice.CHANNEL: {row["focus_on"] for row in rows},
                Slice.TOOL: {row["tool"] or "no tool" for row in rows},
            }
            for by, of_one in names.items():
                for name in of_one:
                    slices[by][name] = slices[by].get(name, Coverage()) + Coverage(1, int(one.id in judged))
        assert item_coverage(sample, **chosen) == slices
    assert all(list(names) == sorted(names) for names in item_coverage(sample).values())


def test_a_dialogue_on_which_no_verdict_counts_is_not_judged(log: Log) -> None:
    """Of three that ended: one vote of a panel alone, a person's word that was taken back, a verdict that counts."""
    scenario = a_scenario()
    start(log, "vote", "taken back", "judged", scenario=scenario, version="v0001")
    for name in ("vote", "taken back", "judged"):
        end_trajectory(log, name, StopReason.COMPLETED)
    said(log, scenario, "PASS", trajectory_id="vote", counts=False)
    by_person(log, scenario, "PASS", trajectory_id="taken back", judge="ada")
    (last,) = said_last(log, "ada")
    assert last.verdict_id is not None
    withdraw_verdict(log, last.verdict_id, person="ada", reason="mistaken")
    said(log, scenario, "FAIL", trajectory_id="judged")
    assert coverage_by(coverage_cells(log), Slice.VERSION) == {"v0001": Coverage(3, 1)}
    by_item = item_coverage(log)
    assert all(set(names.values()) == {Coverage(3, 1)} for names in by_item.values()), "on both databases"
    assert set(by_item[Slice.KIND]) == {"called", "llm"} > set(rates_by(log, Slice.KIND))
    assert newest_judged(log, "v0001", limit=10) == ["judged"]


def test_an_empty_log_counts_nothing(log: Log) -> None:
    assert verdict_cube(log) == []
    assert evaluation_rewards(log) == []
    assert item_figures(log) == JudgedItems([], 0)
    assert version_figures(log) == []
    assert log_counts(log).trajectories == 0
    assert facets(log).origins == ()


def test_a_log_of_another_process_is_seen(sample: Log) -> None:
    other = open_log(sample.url)
    try:
        assert log_state(other) == log_state(sample)
    finally:
        other.close()
