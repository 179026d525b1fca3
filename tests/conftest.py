"""Fixtures that many tests share: `log` is an open, empty log, on SQLite and again on PostgreSQL."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from agent.bundled_model import prepare_bundled_model
from agent.renderer_choice import load_renderer
from agent.rendering import Renderer
from store.database import Log, open_log
from tests.databases import PostgresqlDatabases, postgresql_server
from tests.sample_log import build_sample_log
from tests.serving import MODEL, Serving, start_serving
from tests.workers import LONG, WITH_BROWSERS, WITH_SERVERS, ByServers, place_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lost = {item.path.stem for item in items if "serving" in getattr(item, "fixturenames", ())} - WITH_SERVERS
    if lost:
        raise pytest.UsageError(f"tests use the servers, so tests/workers.py has to name them: {sorted(lost)}")
    gone = {name for name in {*WITH_SERVERS, *WITH_BROWSERS, *LONG} if not (HERE / f"{name}.py").is_file()}
    if gone:
        raise pytest.UsageError(f"tests/workers.py names modules that are not there: {sorted(gone)}")
    items.sort(key=lambda item: place_of(item.path.stem))  # stable: within a module as they stand


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    return ByServers(config, log)


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    """Of the bundled model."""
    return load_renderer(prepare_bundled_model(MODEL))


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The real gateway before the real vLLM with the bundled model."""
    with start_serving(tmp_path_factory.mktemp("serving")) as running:
        yield running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlDatabases]:
    with postgresql_server() as url:
        yield PostgresqlDatabases(url)


@pytest.fixture(scope="session")
def postgresql_template(postgresql: PostgresqlDatabases) -> str:
    """Name of a database with an empty log, to copy."""
    url = postgresql.create()
    open_log(url).close()
    return str(make_url(url).database)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an empty log, to copy."""
    file = tmp_path_factory.mktemp("sqlite") / "empty.db"
    open_log(f"sqlite:///{file}").close()
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    file = tmp_path / "log.db"
    shutil.copyfile(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
def sqlite_log(sqlite_url: str) -> Iterator[Log]:
    """For tests of what lies above the store: an empty log on SQLite alone."""
    log = open_log(sqlite_url)
    yield log
    log.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def log_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty log that is up to date."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    databases: PostgresqlDatabases = request.getfixturevalue("postgresql")
    yield databases.lend(request.getfixturevalue("postgresql_template"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that holds nothing yet; on SQLite not even its folder is there."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new/folder/log.db"
        return
    databases: PostgresqlDatabases = request.getfixturevalue("postgresql")
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture
def log(log_url: str) -> Iterator[Log]:
    log = open_log(log_url)
    yield log
    log.close()


@pytest.fixture(scope="session")
def sample_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sample") / "log.db"
    build_sample_log(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


@pytest.fixture
def sample(sample_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    file = tmp_path / "sample.db"
    shutil.copyfile(sample_file, file)
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", f"sqlite:///{file}")
    log = open_log(f"sqlite:///{file}")
    yield log
    log.close()


@pytest.fixture
def empty(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_url)
    log = open_log(sqlite_url)
    yield log
    log.close()
