"""Versions that are registered in the same moment: each keeps its weights, whoever came first to a name."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import train.registry
from agent.weight_files import damaged_files
from store.database import Log, LogError
from store.settings import Settings, load_settings
from store.versions import add_version, get_version, list_versions
from train.checkpoints import CheckpointError
from train.registry import register_version


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def made(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    return folder


def register(log: Log, settings: Settings, directory: Path) -> str:
    return register_version(log, settings, directory, parent=None, run_id=None, figures={})


def assert_whole(log: Log) -> None:
    for version in list_versions(log):
        assert damaged_files(Path(version.path), version.files) == [], version.name


def test_trainers_that_end_in_the_same_moment_get_a_name_each(log: Log, settings: Settings, tmp_path: Path) -> None:
    directories = [made(tmp_path / f"made-{n}", f"weights {n}") for n in range(6)]
    with ThreadPoolExecutor(6) as several:
        names = list(several.map(lambda directory: register(log, settings, directory), directories))
    assert len(set(names)) == 6
    contents = [(Path(get_version(log, name).path) / "model.safetensors").read_text() for name in names]
    assert contents == [f"weights {n}" for n in range(6)], "each version holds what its own trainer made"
    assert_whole(log)


def test_a_directory_that_is_not_in_the_log_yet_is_left_alone(
    sqlite_log: Log, settings: Settings, tmp_path: Path
) -> None:
    """Another trainer has moved its weights there, and its row follows."""
    other = made(settings.home / "versions" / "v0001", "another's")
    name = register(sqlite_log, settings, made(tmp_path / "made", "ours"))
    assert name == "v0002"
    assert (other / "model.safetensors").read_text() == "another's"


def test_who_loses_the_name_takes_the_next_one(
    sqlite_log: Log, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer with another `home` adds v0001 after this one has moved its weights there."""
    first = [True]

    def overtaken(log: Log, name: str, **values: Any) -> Any:
        if first.pop() if first else False:
            add_version(log, name, parent=None, path="elsewhere/v0001", files={"model.safetensors": "ab" * 32})
        return add_version(log, name, **values)

    monkeypatch.setattr(train.registry, "add_version", overtaken)
    name = register(sqlite_log, settings, made(tmp_path / "made", "ours"))
    assert name == "v0002" and get_version(sqlite_log, "v0001").path == "elsewhere/v0001"
    assert (settings.home / "versions" / "v0002" / "model.safetensors").read_text() == "ours"
    assert not (settings.home / "versions" / "v0001").exists()


def test_a_version_that_the_log_does_not_take_leaves_nothing_under_its_name(
    sqlite_log: Log, settings: Settings, tmp_path: Path
) -> None:
    directory = made(tmp_path / "made", "ours")
    with pytest.raises(LogError, match="the parent 'v0099'"):
        register_version(sqlite_log, settings, directory, parent="v0099", run_id=None, figures={})
    assert (directory / "model.safetensors").is_file(), "the run can be gone on with"
    assert not list((settings.home / "versions").iterdir())
    (settings.home / "elsewhere").write_text("a file")
    with pytest.raises(CheckpointError, match="could not move"):
        register(sqlite_log, settings.model_copy(update={"home": settings.home / "elsewhere"}), directory)
