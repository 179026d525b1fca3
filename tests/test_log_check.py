"""A sound log passes; every way in which a step can contradict itself is found."""

from pathlib import Path

import pytest
from sqlalchemy import text

from store.database import Log
from store.incidents import record_incident
from store.log_check import check_log
from store.tokens import pack_logprobs
from store.trajectories import record_step
from store.vocabulary import IncidentKind, Untrainable
from tests.store_examples import a_step, record_chain, start


def test_a_sound_log_and_its_shares(log: Log) -> None:
    start(log, "a", "b")
    first, _ = record_chain(log, "a", [([1, 2, 3], [10, 11]), ([4], [12, 13, 14])])
    fork = a_step("a", parent_id=first, index=1, delta_ids=[9], context_tokens=6, forked=True)
    record_step(log, fork)
    record_step(log, a_step("b", version_spans=[("v0001", 1), ("v0002", 1)]))
    record_step(log, a_step("b", trainable=False, untrainable_reason=Untrainable.TRUNCATED))
    record_incident(log, "b", IncidentKind.DEADLINE, "")
    found = check_log(log)
    assert found.damaged == []
    assert (found.trajectories, found.steps, found.tokens) == (2, 5, 11)
    assert (found.forked, found.fork_share, found.across_swaps) == (1, 0.2, 1)
    assert found.untrainable == {"truncated": 1}
    assert found.incidents == {IncidentKind.DEADLINE: 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sampled_tokens = 7", "2 sampled ids are stored, 7 are said"),
        ("context_tokens = 9", "are not the 9 of its context"),
        ("untrainable_reason = 'truncated'", "trainable, and not"),
        ("version_spans = '[[\"v0001\", 1]]'", "do not cover its 2 tokens"),
    ],
)
def test_a_contradiction_is_named(log: Log, change: str, said: str) -> None:
    start(log, "t")
    step = record_step(log, a_step("t"))
    with log.writing() as connection:
        connection.execute(text(f"UPDATE step SET {change} WHERE id = {step}"))
    damaged = check_log(log).damaged
    assert any(said in line and f"step {step} of t" in line for line in damaged), damaged


def test_missing_logprobs_and_foreign_parents_are_found(log: Log) -> None:
    start(log, "s", "t")
    other = record_step(log, a_step("s"))
    step = record_step(log, a_step("t"))
    with log.writing() as connection:
        change = text("UPDATE step SET logprobs = :short, parent_id = :other WHERE id = :step")
        connection.execute(change, {"short": pack_logprobs([-1.0]), "other": other, "step": step})
    said = " ".join(check_log(log).damaged)
    assert "2 sampled ids but 1 logprobs" in said and f"its parent {other} is no earlier step" in said


def test_the_command_prints_shares_and_fails_on_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from checkloop import app
    from store.database import open_log

    monkeypatch.setenv("CHECKLOOP_HOME", str(tmp_path))
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    start(log, "t")
    step = record_step(log, a_step("t", forked=True))
    said = CliRunner().invoke(app, ["log", "check"])
    assert said.exit_code == 0 and "forks: 1 (100.0 %)" in said.output
    with log.writing() as connection:
        connection.execute(text(f"UPDATE step SET context_tokens = 1 WHERE id = {step}"))
    log.close()
    assert CliRunner().invoke(app, ["log", "check"]).exit_code == 1
