"""The log's one writer: steps that wait together are committed together, and none that was answered is ever lost."""

import json
import signal
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path

import pytest

from store.database import Log, LogError, open_log
from store.incidents import incident_counts, record_incident
from store.ratings import rate_turn, ratings_of
from store.step_writer import StepWriter
from store.steps import Announcement, record_steps
from store.tokens import token_sequences
from store.traffic import pin_version, pinned_versions, set_traffic_split, traffic_split
from store.trajectories import get_trajectory, record_step
from store.versions import add_version, previous_live, set_version_state, state_changes
from store.vocabulary import IncidentKind, Origin, VersionState
from tests.store_examples import a_step, start

ROOT = Path(__file__).resolve().parent.parent


def test_steps_of_many_sessions_are_written_and_sessions_announced(log: Log) -> None:
    writer = StepWriter(log)
    steps = [a_step(f"s{n}", announcement=Announcement(session="all", agent=f"a{n}")) for n in range(300)]
    futures = [writer.submit(step) for step in steps]
    wait(futures, timeout=60)
    assert len({future.result() for future in futures}) == 300
    writer.close()
    assert len(token_sequences(log, [f"s{n}" for n in range(300)])) == 300
    assert get_trajectory(log, "s7").origin is Origin.CHAT


def test_a_step_that_does_not_fit_keeps_no_other_out(log: Log) -> None:
    start(log, "good", "bad", "better")
    outcomes = record_steps(
        log, [a_step("good"), a_step("bad", context_tokens=99), a_step("unknown"), a_step("better")]
    )
    assert isinstance(outcomes[0], int) and isinstance(outcomes[3], int)
    assert isinstance(outcomes[1], LogError) and "99" in str(outcomes[1])
    assert isinstance(outcomes[2], LogError) and "unknown" in str(outcomes[2])
    assert set(token_sequences(log, ["good", "bad", "better"])) == {"good", "better"}


def test_the_future_of_a_refused_step_says_why(log: Log) -> None:
    writer = StepWriter(log)
    with pytest.raises(LogError, match="no trajectory 'nobody'"):
        writer.submit(a_step("nobody")).result(10)
    writer.close()
    writer.close()
    with pytest.raises(LogError, match="being closed"):
        writer.submit(a_step("late"))


def test_close_writes_what_waits(log: Log) -> None:
    start(log, *(f"t{n}" for n in range(50)))
    writer = StepWriter(log)
    futures = [writer.submit(a_step(f"t{n}")) for n in range(50)]
    writer.close()
    assert all(future.done() and future.result() for future in futures)


KILLED = """
import sys
from store.database import open_log
from store.step_writer import StepWriter
from store.steps import Announcement
from tests.store_examples import a_step
writer = StepWriter(open_log(sys.argv[1]))
n = 0
while True:
    futures = [writer.submit(a_step(f"s{n + i}", announcement=Announcement())) for i in range(7)]
    for i, future in enumerate(futures):
        future.result()
        print(n + i, flush=True)
    n += 7
"""


def test_a_killed_process_has_lost_no_step_that_it_answered(log_url: str) -> None:
    """What was printed had been answered; kill -9 in the middle of writing."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, log_url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    answered += [int(line) for line in process.stdout.read().splitlines() if line.strip().isdigit()]
    process.wait()
    log = open_log(log_url)
    names = [f"s{n}" for n in answered]
    assert set(token_sequences(log, names)) == set(names)
    log.close()


def test_a_swap_inside_a_step_is_kept(log: Log) -> None:
    start(log, "t")
    record_step(log, a_step("t", version_spans=[("v0001", 1), ("v0002", 1)], forked=True))
    with log.lookup() as connection:
        spans, forked = connection.exec_driver_sql("SELECT version_spans, forked FROM step").one()
    spans = json.loads(spans) if isinstance(spans, str) else spans
    assert (spans, bool(forked)) == ([["v0001", 1], ["v0002", 1]], True)


def test_incidents_are_counted_and_announce_their_trajectory(log: Log) -> None:
    record_incident(log, "s1", IncidentKind.DEADLINE, "too slow", announcement=Announcement())
    record_incident(log, "s1", IncidentKind.DEADLINE, "again")
    record_incident(log, "s1", "server_failed", "died", version="v0001")
    assert incident_counts(log) == {IncidentKind.DEADLINE: 2, IncidentKind.SERVER_FAILED: 1}
    with pytest.raises(LogError):
        record_incident(log, "nobody", IncidentKind.CANCELLED, "")


def test_the_newest_rating_of_a_turn_counts(log: Log) -> None:
    start(log, "t")
    record_step(log, a_step("t"))
    rate_turn(log, "t", 0, 1, person="ada")
    rate_turn(log, "t", 0, -1, comment="wrong city", person="ben")
    rating = ratings_of(log, ["t"])["t", 0]
    assert (rating.value, rating.comment, rating.person) == (-1, "wrong city", "ben")
    rate_turn(log, "t", 0, 0, person="ben")
    assert ratings_of(log, ["t"]) == {}
    with pytest.raises(LogError, match="no turn 4"):
        rate_turn(log, "t", 4, 1, person="ada")
    with pytest.raises(LogError, match="not 5"):
        rate_turn(log, "t", 0, 5, person="ada")


def test_pins_splits_and_the_way_back(log: Log) -> None:
    for name in ("v0001", "v0002", "v0003"):
        add_version(log, name, parent=None, path=name, files={})
    with pytest.raises(LogError, match="nothing to roll back to"):
        previous_live(log)
    set_version_state(log, "v0001", VersionState.LIVE, "first")
    set_version_state(log, "v0002", VersionState.LIVE, "better")
    assert previous_live(log).name == "v0001"
    assert [change.state for change in state_changes(log, "v0001")] == ["candidate", "live", "retired"]
    assert traffic_split(log) is None
    set_traffic_split(log, "v0003", 0.1, "try it")
    split = traffic_split(log)
    assert split is not None and (split.candidate, split.share) == ("v0003", 0.1)
    set_traffic_split(log, None, 0.5, "enough")
    assert traffic_split(log) is None
    with pytest.raises(LogError, match="only a candidate"):
        set_traffic_split(log, "v0001", 0.1, "")
    with pytest.raises(LogError, match="between 0 and 1"):
        set_traffic_split(log, "v0003", 3, "")
    pin_version(log, "v0001", "the paper's figures")
    pin_version(log, "v0003", "keep")
    pin_version(log, "v0003", "no more", pinned=False)
    assert pinned_versions(log) == {"v0001": "the paper's figures"}


def test_an_incident_may_be_of_no_dialogue(log: Log) -> None:
    record_incident(log, None, IncidentKind.SERVER_DOWN, "live did not come back", version="v0001")
    assert incident_counts(log) == {IncidentKind.SERVER_DOWN: 1}
