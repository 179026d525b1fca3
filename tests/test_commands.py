"""The command on bad input: one clear message, exit status 1, nothing half-written; and stopped with Ctrl-C."""

import signal
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import checkloop
from agent.ports import free_ports
from store.database import open_log
from store.stages import list_stages
from store.versions import add_version, set_version_state
from store.vocabulary import JobStatus, VersionState
from tests.rehearsed_loop import BETTER, Rehearsal


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """(exit status, standard error) of `checkloop ARGUMENTS`."""
    monkeypatch.setattr("sys.argv", ["checkloop", *arguments])
    try:
        checkloop.main()
    except SystemExit as end:
        return int(end.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHECKLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # without it what trains starts its process again
    gateway, server = free_ports()
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(gateway))
    monkeypatch.setenv("CHECKLOOP_SERVER__PORT", str(server))
    return tmp_path / "home"


def test_an_unknown_setting(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("checkloop.toml").write_text("[server]\nprot = 1\n")
    status, said = run(monkeypatch, capsys, "serve")
    assert status == 1 and "server.prot" in said
    assert not home.exists()


def test_a_missing_model_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHECKLOOP_MODEL__SOURCE", "nowhere/model")
    status, said = run(monkeypatch, capsys, "init")
    assert status == 1 and "there is no model directory nowhere/model" in said


def test_an_incomplete_model_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model").mkdir()
    monkeypatch.setenv("CHECKLOOP_MODEL__SOURCE", "model")
    status, said = run(monkeypatch, capsys, "init")
    assert status == 1 and "config.json" in said and "safetensors" in said


def test_nothing_to_serve(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(monkeypatch, capsys, "serve")
    assert status == 1 and "make demo" in said


def test_a_port_in_use(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(port))
        status, said = run(monkeypatch, capsys, "serve")
    assert status == 1 and f"port {port}" in said and "gateway.port" in said


def test_a_gateway_for_the_whole_network(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__HOST", "0.0.0.0")
    status, said = run(monkeypatch, capsys, "serve")
    assert status == 1 and "loopback" in said


def test_a_model_that_vanished(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log = open_log(f"sqlite:///{home / 'log.db'}")
    add_version(log, "v0001", parent=None, path=str(home / "gone"), files={})
    set_version_state(log, "v0001", VersionState.LIVE, "test")
    log.close()
    status, said = run(monkeypatch, capsys, "serve")
    assert status == 1 and "there is no model directory" in said


def test_a_log_of_a_newer_checkloop(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_log(f"sqlite:///{home / 'log.db'}").close()
    with sqlite3.connect(home / "log.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffff'")
    status, said = run(monkeypatch, capsys, "serve")
    assert status == 1 and "newer" in said


def test_a_damaged_scenario_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.jsonl").write_text('{"name": "x"}\n')
    status, said = run(monkeypatch, capsys, "import", "bad.jsonl")
    assert status == 1 and "bad.jsonl" in said and "line 1" in said


def test_an_unknown_world(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(monkeypatch, capsys, "chat", "--domain", "moon")
    assert status == 1 and "'moon'" in said and "travel" in said


def test_a_chat_that_cannot_be_had(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = run(monkeypatch, capsys, "chat", "--tools", "llm")
    assert status == 1 and "[simulator]" in said
    status, said = run(monkeypatch, capsys, "chat", "--session", "chat-x")
    assert status == 1 and "no trajectory 'chat-x'" in said


def test_a_demo_that_is_stopped_with_ctrl_c_goes_on_in_that_stage(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of round 2's play stage. What was done before is not done again, what was begun is."""
    for name, value in {"LOOP__ROUNDS": 2, "LOOP__GATE_EVERY": 2, "GRPO__TRAINED_LAYERS": 0}.items():
        monkeypatch.setenv(f"CHECKLOOP_{name}", str(value))
    stopped: list[str] = []
    loops: list[Rehearsal] = []

    class Stopped(Rehearsal):
        def __init__(self, log: Any, settings: Any, sets: Any, *, name: str, seed: int, progress: Any) -> None:
            super().__init__(log, settings, [BETTER], set(), progress)
            loops.append(self)

        def _play_groups(self, stage: Any, n: int, scenarios: Any, version: str) -> dict[str, Any]:
            if n == 2 and not stopped:
                stopped.append(version)
                signal.raise_signal(signal.SIGINT)
            return super()._play_groups(stage, n, scenarios, version)

    monkeypatch.setattr("train.demo.TrainingLoop", Stopped)
    status, said = run(monkeypatch, capsys, "demo")
    assert status == 130 and "checkloop: stopped; the same command goes on from here" in said
    log = open_log(f"sqlite:///{home / 'log.db'}")
    stages = {stage.key: (stage.status, stage.error) for stage in list_stages(log, "rehearsal")}
    assert stages.pop("round-2/play") == (JobStatus.FAILED, "KeyboardInterrupt: ")
    assert set(stages.values()) == {(JobStatus.DONE, None)} and "round-1/train" in stages
    status, said = run(monkeypatch, capsys, "demo")
    assert status == 0 and "was done before: round 1: train" in said
    assert [loop.did for loop in loops] == [["play v1"], ["play v2", "gate v3 against v1"]]
    assert {stage.status for stage in list_stages(log, "rehearsal")} == {JobStatus.DONE}
    log.close()


@pytest.mark.parametrize("command", [("demo",), ("train", "online"), ("train", "grpo"), ("train", "sft")])
@pytest.mark.parametrize("name", ["..", "{outside}", "a/b", "-rf", "x" * 49, "demo-1\n", "über"])
def test_a_name_that_leads_out_of_its_folder_is_refused_before_anything_is_opened(
    command: tuple[str, ...],
    name: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run's folder is removed at its end: `--name /home/me` was that one."""
    name = name.format(outside=tmp_path)
    status, said = run(monkeypatch, capsys, *command, f"--name={name}")
    assert status == 1 and f"{name!r} is no name for " in said and "1 to 48 letters" in said
    assert not home.exists()


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
@pytest.mark.parametrize("command", [("demo",), ("train", "online"), ("train", "grpo"), ("train", "sft")])
def test_a_seed_that_no_generator_takes_is_refused_before_anything_is_opened(
    command: tuple[str, ...],
    seed: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, said = run(monkeypatch, capsys, *command, f"--seed={seed}")
    assert status == 2 and "'--seed'" in said and ("equal to 0" if seed == "-1" else "4294967295") in said
    assert not home.exists()
