"""Opening the log: what it creates, what it refuses, and that it holds under many writers, kills and a full disk."""

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, func, insert, inspect, make_url, select, text

import store.database
import store.migrations
from agent.gateway_process import _as_environment
from store.configured import settings_and_log
from store.database import HEAD_REVISION, Log, LogError, NewerSchemaError, _postgresql_engine, open_log
from store.runs import add_metrics, metrics_of, start_run
from store.scenarios import item_ids
from store.schema import Base, LoopRow, StepRow, TrajectoryRow
from store.settings import load_settings
from store.tokens import token_sequences
from store.trajectories import get_trajectory, record_step
from store.verdicts import Verdict, add_verdicts, verdicts_of
from store.vocabulary import Durability, Outcome, VerdictSource
from tests.store_examples import a_scenario, a_step, record_chain, start

SPAWN = multiprocessing.get_context("spawn")


def test_the_revisions_create_exactly_the_declared_schema(empty_url: str) -> None:
    log = open_log(empty_url)
    with log.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == HEAD_REVISION
    log.close()


def test_the_known_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(store.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD_REVISION


def test_the_schema_can_be_taken_back(empty_url: str) -> None:
    log = open_log(empty_url)
    config = Config()
    config.set_main_option("script_location", str(Path(store.migrations.__file__).parent))
    with log.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}
    log.close()


def test_opening_an_up_to_date_log_migrates_nothing(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def migrate(*_: object) -> None:
        raise AssertionError("Alembic was asked, which takes most of a second")

    monkeypatch.setattr(store.database, "_migrate", migrate)
    open_log(log_url).close()


def test_a_newer_schema_is_refused_and_left_alone(log_url: str) -> None:
    log = open_log(log_url)
    with log.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    log.close()
    with pytest.raises(NewerSchemaError, match=r"'9999'.*newer checkloop.*Upgrade checkloop"):
        open_log(log_url)
    with log.engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_a_failed_migration_leaves_the_database_as_it_was(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate = store.database._migrate

    def migrate_and_break(*arguments: object) -> None:
        migrate(*arguments)  # type: ignore[arg-type]
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(store.database, "_migrate", migrate_and_break)
        with pytest.raises(RuntimeError, match="killed"):
            open_log(empty_url)
    log = open_log(empty_url)
    start(log, "t1")
    assert get_trajectory(log, "t1").member == 0
    log.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    file.write_bytes(b"these are notes, not a database. " * 200)
    before = file.read_bytes()
    with pytest.raises(LogError, match=r"log\.db.*not a database"):
        open_log(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_database_of_something_else_is_refused(empty_url: str) -> None:
    url = empty_url
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True)
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE bookmarks (url TEXT)")
    else:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as server:
            server.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(LogError, match=r"not a checkloop log.*bookmarks"):
        open_log(url)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LogError, match=r"cannot create the log's folder .*file/sub"):
        open_log(f"sqlite:///{tmp_path}/file/sub/log.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(LogError, match=r"unable to open database file.*may write there"):
        open_log(f"sqlite:///{tmp_path}/folder.db")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("log.db", "no database URL.*sqlite:///"),
        ("sqlite://", "cannot live in memory"),
        ("sqlite:///:memory:", "cannot live in memory"),
        ("mysql://localhost/log", "SQLite and PostgreSQL, not on 'mysql'"),
    ],
)
def test_a_url_that_cannot_hold_a_log_is_refused(url: str, message: str) -> None:
    with pytest.raises(LogError, match=message):
        open_log(url)


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="is the PostgreSQL server of database_url running") as caught:
        open_log(f"postgresql://anna:secret@/log?host={tmp_path}")
    assert "secret" not in str(caught.value)


def test_a_server_behind_a_broken_network_is_given_up_before_a_lease_runs_out() -> None:
    engine = _postgresql_engine(make_url("postgresql+psycopg://anna@far/log?connect_timeout=3"), Durability.PROCESS)
    seen: dict[str, Any] = {}

    @event.listens_for(engine, "do_connect")
    def _look(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        seen.update(options)
        raise RuntimeError("seen")

    with pytest.raises(RuntimeError, match="seen"):
        engine.connect()
    assert int(seen["connect_timeout"]) == 3, "what the URL says counts"
    silent_s = seen["keepalives_idle"] + seen["keepalives_interval"] * seen["keepalives_count"]
    assert max(silent_s, seen["tcp_user_timeout"] / 1000) < load_settings().worker.lease_s / 2


def _open_and_close(url: str) -> None:
    open_log(url).close()


def test_processes_that_open_a_new_log_at_once_migrate_it_once(empty_url: str) -> None:
    processes = [SPAWN.Process(target=_open_and_close, args=(empty_url,)) for _ in range(2)]
    for process in processes:
        process.start()
    _open_and_close(empty_url)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]


def _record_dialogues(url: str, prefix: str, dialogues: int) -> None:
    log = open_log(url)
    for i in range(dialogues):
        start(log, f"{prefix}-{i}")
        record_chain(log, f"{prefix}-{i}", [([1, 2, 3], [4, 5]), ([6], [7])])
    log.close()


def test_processes_and_64_threads_write_at_once_and_nothing_is_lost(log: Log, log_url: str) -> None:
    processes = [SPAWN.Process(target=_record_dialogues, args=(log_url, f"p{i}", 20)) for i in range(2)]
    for process in processes:
        process.start()
    barrier = threading.Barrier(64)

    def one_dialogue(name: str) -> None:
        barrier.wait()
        start(log, name)
        record_chain(log, name, [([1, 2, 3], [4, 5]), ([6], [7])])
        assert token_sequences(log, [name])[name].completion_ids == [4, 5, 6, 7]

    with ThreadPoolExecutor(64) as threads:
        list(threads.map(one_dialogue, [f"t{i}" for i in range(64)]))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with log.reading() as session:
        assert session.scalar(select(func.count()).select_from(StepRow)) == 2 * (64 + 2 * 20)


def test_a_reader_does_not_wait_for_a_writer(log: Log) -> None:
    start(log, "before")
    with log.session() as writing:
        writing.add(TrajectoryRow(id="after", origin="chat"))
        writing.flush()
        begun = time.perf_counter()
        with log.reading() as session:
            assert session.scalars(select(TrajectoryRow.id)).all() == ["before"]
        assert time.perf_counter() - begun < 1.0
    with log.reading() as session:
        assert set(session.scalars(select(TrajectoryRow.id))) == {"before", "after"}


def test_a_transaction_that_reads_first_and_then_writes_waits_its_turn(log: Log) -> None:
    """Without the write lock from the start, SQLite fails the second one with "database is locked" at once."""
    start(log, "shared")
    barrier = threading.Barrier(2)

    def count_up() -> None:
        barrier.wait()
        for _ in range(20):
            with log.session() as session:
                row = session.get(TrajectoryRow, "shared", with_for_update=True)
                assert row is not None
                row.member += 1

    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(count_up) for _ in range(2)]:
            future.result()
    assert get_trajectory(log, "shared").member == 40


def test_an_exception_takes_the_whole_session_back(log: Log) -> None:
    with pytest.raises(ZeroDivisionError), log.session() as session:
        session.add(LoopRow(name="demo", seed=1, settings={}))
        session.flush()
        _ = 1 / 0
    with log.reading() as session:
        assert session.scalars(select(LoopRow)).all() == []


def test_a_write_while_reading_is_refused(log: Log) -> None:
    with pytest.raises(LogError, match=r"(?i)read-?only"), log.reading() as session:
        session.execute(insert(LoopRow).values(name="demo", seed=1, settings={}))
    with log.session() as session:
        session.add(LoopRow(name="demo", seed=1, settings={}))
    with log.reading() as session:
        assert session.scalars(select(LoopRow.name)).all() == ["demo"]


def test_a_reader_sees_one_state(log: Log) -> None:
    with log.reading() as session:
        assert session.scalars(select(TrajectoryRow.id)).all() == []
        start(log, "meanwhile")
        assert session.scalars(select(TrajectoryRow.id)).all() == []
    with log.reading() as session:
        assert session.scalars(select(TrajectoryRow.id)).all() == ["meanwhile"]


def _write_until_killed(url: str, ready: "multiprocessing.synchronize.Event") -> None:
    log = open_log(url)
    start(log, "killed")
    record_chain(log, "killed", [([1, 2, 3], [4, 5])])
    with log.session() as session:
        session.add(LoopRow(name="half", seed=1, settings={}))
        session.flush()
        ready.set()
        time.sleep(60)


def test_a_kill_loses_only_the_transaction_in_flight(log: Log, log_url: str) -> None:
    ready = SPAWN.Event()
    process = SPAWN.Process(target=_write_until_killed, args=(log_url, ready))
    process.start()
    assert ready.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    start(log, "next")
    with log.reading() as session:
        assert session.scalars(select(LoopRow)).all() == []
    assert token_sequences(log, ["killed", "next"])["killed"].completion_ids == [4, 5]


def test_a_full_database_is_said_and_the_log_stays_intact(sqlite_url: str) -> None:
    log = open_log(sqlite_url)
    with log.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    log.engine.dispose()
    event.listen(log.engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count={pages + 10}"))
    start(log, "t1")
    recorded = []
    said = ""
    for index in range(1000):
        try:
            recorded.append(record_step(log, a_step(turn_index=index, user="x" * 500)))
        except LogError as error:
            said = str(error)
            break
    assert "full (nothing of this transaction was written; free some space" in said
    assert len(recorded) > 2
    log.close()

    roomy = open_log(sqlite_url)
    with roomy.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        assert connection.scalars(select(StepRow.id).order_by(StepRow.id)).all() == recorded
    record_step(roomy, a_step(turn_index=1000))
    roomy.close()


def test_every_sqlite_connection_is_set_up(sqlite_log: Log) -> None:
    with sqlite_log.engine.connect() as one, sqlite_log.engine.connect() as other:
        for connection in (one, other):
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
            }
            assert found == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 1, "busy_timeout": 30_000}
            connection.rollback()


@pytest.mark.parametrize("durability", Durability)
def test_commits_wait_for_the_disk_where_they_have_to_survive_a_power_cut(log_url: str, durability: Durability) -> None:
    """The server of the tests has synchronous_commit off."""
    log = open_log(log_url, durability)
    sqlite = log.engine.dialect.name == "sqlite"
    waits: dict[Durability, Any] = {Durability.PROCESS: 1 if sqlite else "off", Durability.POWER: 2 if sqlite else "on"}
    for _ in range(2):
        with log.writing() as connection:
            asked = "PRAGMA synchronous" if sqlite else "SHOW synchronous_commit"
            assert connection.exec_driver_sql(asked).scalar_one() == waits[durability]
        log.engine.dispose()
    log.close()


def test_the_setting_of_durability_reaches_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checkloop.toml"
    file.write_text(f'home = "{tmp_path}"\n[log]\ndurability = "power"\n')
    settings, log = settings_and_log(file)
    with log.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    log.close()
    for name, value in _as_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert load_settings().log.durability is Durability.POWER


def test_moments_come_back_aware_in_utc(log: Log) -> None:
    scenario = a_scenario()
    start(log, "t1", scenario=scenario)
    created = get_trajectory(log, "t1").created_at
    assert created.tzinfo is UTC
    assert abs(datetime.now(UTC) - created) < timedelta(seconds=60)
    said = datetime(2026, 3, 1, 23, 30, 0, 123456, tzinfo=timezone(timedelta(hours=-5)))
    item = item_ids(log, scenario.hash)[0, "umbrella"]
    verdict = Verdict("t1", 0, item, "umbrella", Outcome.FAIL, None, VerdictSource.HUMAN, "anna", None, "no", "", said)
    add_verdicts(log, [verdict])
    kept = verdicts_of(log, ["t1"])["t1"][0].created_at
    assert kept == said
    assert kept is not None
    assert kept.tzinfo is UTC


def test_a_moment_without_a_zone_is_refused(log: Log) -> None:
    with pytest.raises(LogError, match="has no time zone"), log.session() as session:
        session.add(LoopRow(name="demo", seed=1, settings={}, created_at=datetime(2026, 3, 1)))


def test_a_value_that_json_cannot_hold_is_refused_on_both_databases(log: Log) -> None:
    with pytest.raises(LogError, match="cannot be stored"), log.session() as session:
        session.add(LoopRow(name="demo", seed=1, settings={"kl": float("nan")}))


def test_a_dangling_reference_is_refused_on_both_databases(log: Log) -> None:
    with pytest.raises(LogError, match=r"(?i)foreign key"):
        add_metrics(log, 99, 1, {"loss": 1.0})
    run = start_run(log, "r", "grpo", None, 1, {})
    add_metrics(log, run, 1, {"loss": 1.0})
    assert metrics_of(log, run) == {"loss": [(1, 1.0)]}
