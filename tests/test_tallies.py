"""The sums that pages read are those of the verdicts that count, whatever happened to the verdicts."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import select

import store
from store.database import Log
from store.figures import Slice, rates_by
from store.scenarios import item_ids
from store.schema import ItemTallyRow, RateTallyRow
from store.tallies import standing_verdicts
from store.trajectories import delete_trajectories, list_trajectories
from store.verdicts import Verdict, add_verdicts, verdicts_of
from store.vocabulary import Outcome, VerdictSource
from store.withdrawals import said_last, withdraw_verdict
from tests.store_examples import a_scenario, start

PLACES = (Outcome.PASS, Outcome.FAIL, Outcome.UNSCORED)


def slow_and_kept(log: Log) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
    """By item and outcome and by everything else: counted from the verdicts one by one, and as the sums have them."""
    ids = [one.id for one in list_trajectories(log, limit=None)]
    slow: Counter[tuple[str, ...]] = Counter()
    kept: Counter[tuple[str, ...]] = Counter()
    with log.lookup() as connection:
        for one, count in standing_verdicts(connection, ids).items():
            slow[tuple(map(str, one[1:]))] += count
            slow["item", str(one.item_id), one.version, one.origin, one.batch, one.outcome] += count
        for row in connection.execute(select(ItemTallyRow.__table__)):
            for outcome, count in zip(PLACES, row[4:], strict=True):
                kept["item", *map(str, row[:4]), outcome] += count
        for row in connection.execute(select(RateTallyRow.__table__)):
            for outcome, count in zip(PLACES, row[9:], strict=True):
                kept[*map(str, row[:9]), outcome] += count
    return +slow, +kept


def verdict(log: Log, trajectory: str, key: str, outcome: Outcome, **changes: object) -> Verdict:
    ids = item_ids(log, a_scenario().hash)
    turn, item = next((place[0], item) for place, item in ids.items() if place[1] == key)
    step = 0 if outcome is Outcome.PASS else None
    said = Verdict(trajectory, turn, item, key, outcome, step, VerdictSource.LLM, "judge", None, "so it is", "")
    return replace(said, **changes)  # type: ignore[arg-type]


def test_the_sums_follow_every_change_of_a_verdict(log: Log) -> None:
    scenario = a_scenario()
    start(log, "t1", "t2", scenario=scenario, version="v0001", batch="b")
    start(log, "t3", scenario=scenario)
    first = verdict(log, "t1", "umbrella", Outcome.FAIL)
    person = {"source": VerdictSource.HUMAN, "judge": "ada"}
    add_verdicts(
        log, [first, verdict(log, "t2", "umbrella", Outcome.UNSCORED), verdict(log, "t3", "umbrella", PLACES[0])]
    )
    add_verdicts(log, [verdict(log, "t1", "umbrella", Outcome.PASS), replace(first, counts=False, draw=1)])
    add_verdicts(
        log, [verdict(log, "t1", "umbrella", Outcome.FAIL, **person), verdict(log, "t1", "umbrella", PLACES[0])]
    )
    slow, kept = slow_and_kept(log)
    assert kept == slow
    assert sum(count for what, count in kept.items() if what[0] == "item") == 3
    assert verdicts_of(log, ["t1"])["t1"][0].outcome == Outcome.FAIL
    (last,) = said_last(log, "ada")
    assert last.verdict_id is not None
    withdraw_verdict(log, last.verdict_id, person="ada", reason="mistaken")
    slow, kept = slow_and_kept(log)
    assert kept == slow
    assert sum(count for what, count in kept.items() if what[-1] == Outcome.FAIL) == 0
    assert delete_trajectories(log, ["t1", "t2"]) == 2
    slow, kept = slow_and_kept(log)
    assert kept == slow and sum(kept.values()) == 2  # one verdict in each of the two tables


def test_a_log_from_before_gets_the_same_sums(log: Log) -> None:
    start(log, "t1", "t2", scenario=a_scenario(), version="v0001", batch="b")
    said = [
        verdict(log, name, key, PLACES[n])
        for name in ("t1", "t2")
        for n, key in enumerate(("asks-weather", "umbrella"))
    ]
    add_verdicts(log, [*said, verdict(log, "t2", "umbrella", Outcome.PASS)])
    config = Config()
    config.set_main_option("script_location", str(Path(store.__file__).parent / "migrations"))
    with log.writing() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")
        command.upgrade(config, "0007")
    slow, kept = slow_and_kept(log)
    assert kept == slow
    assert set(rates_by(log, Slice.TOOL)) == {"get_weather", "no tool"}
