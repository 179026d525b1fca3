"""`checkloop reward`: past rewards computed again, and why a trajectory earned what it did."""

from pathlib import Path

import pytest
from sqlalchemy import event
from typer.testing import CliRunner

from checkloop import app
from reward.payments import StepEarnings, payslip, step_earnings
from reward.rewards import ItemState
from reward.scoring import SOFTWARE, score_trajectories
from store.checklists import Checklist, add_checklists
from store.database import Log, LogError, open_log
from store.objections import retire_item
from store.records import Item
from store.scenarios import item_ids
from store.trajectories import end_trajectory, record_step
from store.verdicts import Verdict, add_verdicts, rewards_of, verdicts_of
from store.vocabulary import FocusOn, Outcome, StopReason, VerdictSource
from tests.store_examples import a_scenario, a_step, record_chain, start

SCENARIO = a_scenario()
"""Turn 0: asks-weather 0.75, umbrella 0.25 which depends on it; turn 1: answers-thanks 1."""


def say(
    log: Log, name: str, turn: int, key: str, outcome: Outcome, step: int | None = None, share: float | None = None
) -> None:
    item = item_ids(log, SCENARIO.hash)[turn, key]
    verdict = Verdict(name, turn, item, key, outcome, step, VerdictSource.LLM, "big", None, "because", "", share=share)
    add_verdicts(log, [verdict])


def person_says(log: Log, name: str, turn: int, key: str, outcome: Outcome) -> None:
    item = item_ids(log, SCENARIO.hash)[turn, key]
    add_verdicts(
        log, [Verdict(name, turn, item, key, outcome, None, VerdictSource.HUMAN, "ada", None, "I know better", "")]
    )


def play(log: Log, *names: str) -> None:
    """Two steps in turn 0 and one in turn 1; the call passes, the umbrella fails, the thanks is answered."""
    start(log, *names, scenario=SCENARIO, batch="b")
    for name in names:
        _, last = record_chain(log, name, [([1, 2, 3], [10, 11]), ([4], [12])])
        record_step(log, a_step(name, turn_index=1, parent_id=last, delta_ids=[5], context_tokens=8))
        end_trajectory(log, name, StopReason.COMPLETED)
        say(log, name, 0, "asks-weather", Outcome.PASS, 0)
        say(log, name, 0, "umbrella", Outcome.FAIL)
        say(log, name, 1, "answers-thanks", Outcome.PASS, 0)


@pytest.fixture
def command_log(sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Log:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_url)
    return open_log(sqlite_url)


def run(*arguments: str) -> str:
    said = CliRunner().invoke(app, ["reward", *arguments], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    return said.output


def test_rewards_are_computed_again_from_what_counts_now(command_log: Log) -> None:
    """Before: (0.75 + 1) / 2 = 0.875 each. A person passes a's umbrella: 1; another fails b's call: (0 + 1) / 2 = 0.5;
    c's thanks cannot be judged any more: none. 0.125 up and 0.375 down are 0.25 on average."""
    play(command_log, "a", "b", "c", "d")
    start(command_log, "unjudged", scenario_hash=SCENARIO.hash, batch="b")
    assert "4 trajectories, 4 changed" in run("--all")
    assert {name: r.value for name, r in rewards_of(command_log, "abcd").items()} == dict.fromkeys("abcd", 0.875)
    person_says(command_log, "a", 0, "umbrella", Outcome.PASS)
    person_says(command_log, "b", 0, "asks-weather", Outcome.FAIL)
    say(command_log, "c", 1, "answers-thanks", Outcome.UNSCORED)
    before = rewards_of(command_log, "abcd")

    dry = run("--batch", "b", "--dry-run")
    assert "4 trajectories, 3 would change" in dry
    assert rewards_of(command_log, "abcd") == before, "a dry run writes nothing"
    said = run("--batch", "b")
    assert "4 trajectories, 3 changed" in said
    assert "1 up, 1 down, by 0.2500 on average, 0.3750 at most" in said
    assert "0 have a value now and had none, 1 the other way round" in said
    after = {name: reward.value for name, reward in rewards_of(command_log, "abcd").items()}
    assert after == {"a": 1.0, "b": 0.5, "c": None, "d": 0.875}
    assert "0 changed" in run("--all")
    assert "unjudged" not in rewards_of(command_log, ["unjudged"]), "nobody ever judged it"


def test_one_trajectory_or_nothing_at_all(command_log: Log) -> None:
    play(command_log, "a", "b")
    run("--trajectory", "a")
    assert list(rewards_of(command_log, "ab")) == ["a"]
    with pytest.raises(LogError, match="nobody"):
        run("--trajectory", "nobody")
    with pytest.raises(LogError, match="no trajectory of batch 'c' was ever judged"):
        run("--batch", "c")
    for arguments in ((), ("--all", "--batch", "b")):
        assert CliRunner().invoke(app, ["reward", *arguments]).exit_code == 2


def test_a_reward_is_shown_with_its_items(command_log: Log) -> None:
    play(command_log, "a")
    say(command_log, "a", 0, "asks-weather", Outcome.PASS, 1, share=2 / 3)
    say(command_log, "a", 0, "umbrella", Outcome.PASS, 1)
    run("--all")
    assert "the log holds" not in run("--show", "a")
    say(command_log, "a", 1, "answers-thanks", Outcome.FAIL)
    lines = run("--show", "a").splitlines()
    assert lines[:2] == [
        "reward of a: 0.2500",
        "the log holds another one (0.75): `checkloop reward --trajectory a` changes it",
    ]
    assert lines[-5:] == [
        "turn 0: 0.5000",
        "  0.5000 of 0.7500  asks-weather  PASS (0.67 of the votes) at step 1, big",
        "  0.0000 of 0.2500  umbrella  PASS at step 1, big: asks-weather did not hold before step 1",
        "turn 1: 0.0000",
        "  0.0000 of 1.0000  answers-thanks  FAIL, big: because",
    ]
    assert "2 of 2 turns were reached; a turn that was not counts 0" in lines


def test_what_each_step_earns_by_hand() -> None:
    """Equations 2 and 3; b waits for a, c never holds."""
    states = [
        ItemState("a", 0.5, 0),
        ItemState("b", 0.25, 2, depends_on=("a",)),
        ItemState("c", 0.25, None),
    ]
    assert step_earnings([states], 3, 0.5, 2) == (
        StepEarnings(0.5, 0.5 / 0.75, 0.5),
        StepEarnings(0.0, 0.5, 0.5),
        StepEarnings(0.25, 0.5, 0.625),
    )
    of_two = step_earnings([states, [ItemState("d", 1.0, None)]], 3, 0.0, 2)
    assert [step.earned for step in of_two] == [0.25, 0.0, 0.125], "the mean over the checklists"
    assert [step.running for step in step_earnings([states], 3, None, 2)] == [None] * 3
    unscored = [*states, ItemState("e", 0.0, None, scored=False)]
    assert step_earnings([unscored], 2, 0.0, 2) == (StepEarnings(None, None, None),) * 2


def test_the_items_of_several_checklists_are_told_apart(sqlite_log: Log) -> None:
    play(sqlite_log, "a")
    kind = Item(id="kind", focus_on=FocusOn.REPLY, question="Kind?", weight=1.0)
    add_checklists(sqlite_log, [Checklist(SCENARIO.hash, 0, (kind,), variant=1, author="annotator")])
    slip = payslip(sqlite_log, "a")
    first = slip.turns[0]
    assert [(p.variant, p.key, p.pays, p.outcome, p.note) for p in first.payments] == [
        (0, "asks-weather", 0.75, Outcome.PASS, ""),
        (0, "umbrella", 0.0, Outcome.FAIL, "because"),
        (1, "kind", 0.0, None, "it has no verdict"),
    ]
    assert (first.reward, slip.reward.value, slip.stored) == (None, None, None)


def test_a_reward_says_what_it_was_made_of(log: Log) -> None:
    play(log, "a")
    made_of = score_trajectories(log, ["a"])["a"].made_of
    newest = max(verdict.id or 0 for verdict in verdicts_of(log, ["a"])["a"])
    assert made_of == {
        "checklists": [[[0, 0]], [[0, 0]]],
        "newest_verdict": newest,
        "judges": ["big"],
        "software": SOFTWARE,
    }
    person_says(log, "a", 0, "asks-weather", Outcome.PASS)
    retire_item(log, SCENARIO.hash, 0, "umbrella", person="ada", reason="a matter of taste")
    score_trajectories(log, ["a"])
    stored = rewards_of(log, ["a"])["a"]
    assert stored.value == 1.0, "asks-weather weighs 1 now"
    assert stored.made_of is not None
    assert stored.made_of["checklists"] == [[[0, 1]], [[0, 0]]]
    assert stored.made_of["newest_verdict"] > newest
    assert stored.made_of["judges"] == ["ada", "big"]


def test_a_trajectory_with_more_turns_than_its_scenario_has_no_value(sqlite_log: Log) -> None:
    play(sqlite_log, "a")
    record_step(sqlite_log, a_step("a", turn_index=2, parent_id=3, delta_ids=[6], context_tokens=11))
    reward = score_trajectories(sqlite_log, ["a"])["a"]
    assert reward.value is None
    assert reward.excluded_reason == "it has 3 turns, its scenario 2: it was not played from this scenario"


def test_a_thousand_trajectories_are_scored_in_a_few_queries(sqlite_log: Log) -> None:
    play(sqlite_log, "a", "b")
    names = [f"t{number}" for number in range(998)]
    start(sqlite_log, *names, scenario_hash=SCENARIO.hash)
    for name in names[:3]:
        end_trajectory(sqlite_log, name, StopReason.FAILED, "the server was gone")
    statements: list[str] = []
    event.listen(sqlite_log.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    rewards = score_trajectories(sqlite_log, ["a", "b", *names])
    assert (rewards["b"].value, rewards["t0"].excluded_reason) == (0.875, "the server was gone")
    assert len([s for s in statements if s.startswith("SELECT")]) <= 20
