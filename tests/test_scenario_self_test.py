"""What a scenario file brings is tried before it is imported: by the command, its dry run and the page."""

from collections.abc import Callable
from pathlib import Path

import pytest

import checkloop
from reward.scenario_self_test import self_test_scenarios
from store.database import open_log
from store.records import Called, Item, ReplyMentions, Scenario
from store.scenarios import load_scenarios, write_scenario_file
from tests.annotation_examples import CALL, OFFER, REPLY, RESPONSE, TURNS, trip

Import = Callable[..., tuple[int, str, str]]


def with_items(*first: Item, name: str = "trip", **changes: object) -> Scenario:
    """The trip with these items in its first turn, their weights equal, and none in the second."""
    equal = tuple(one.model_copy(update={"weight": 1 / len(first), "depends_on": ()}) for one in first)
    return trip(name, turns=(TURNS[0].model_copy(update={"checklist": equal}), TURNS[1]), **changes)


WRONG = REPLY.model_copy(update={"check": ReplyMentions(all_of=(("1300",),)), "required_for_next_turn": True})
LAX = CALL.model_copy(update={"check": Called(tool="find_flights", arguments={"origin": "Oslo"})})
OPEN = OFFER.model_copy(update={"evidence": ()})
SAID = (
    "scenario 'trip', turn 0, item 'price_told': the reference fails its check, and it is strict: "
    "the reply does not mention '1300'"
)


def test_a_check_that_the_reference_fails_is_a_problem_and_the_rest_is_counted() -> None:
    done: list[int] = []
    found = self_test_scenarios([with_items(WRONG, LAX, RESPONSE, OPEN), with_items(CALL, name="other")], done.append)
    assert found.problems == (SAID,) and done == [1, 2]
    assert found.blind == ("scenario 'trip', turn 0, right_call: wrong_argument",)
    assert (found.items, found.tested, found.undecided) == (5, 3, 1)
    assert found.lines[0] == (
        "self-test: 5 items, 3 tried on damaged references, 1 of them do not discriminate; 1 (20 %) could not be "
        "decided: no check, no reference, or no damage that concerns them"
    )


def test_a_check_that_nobody_can_decide_is_a_problem() -> None:
    odd = REPLY.model_copy(update={"check": ReplyMentions(all_of=(("**",),))})
    (problem,) = self_test_scenarios([with_items(odd)]).problems
    assert "item 'price_told': its check cannot be decided: the phrase '**' has no word" in problem


def test_what_proves_nothing_refuses_nothing() -> None:
    """The reference of a chat is what the policy did; a turn without one cannot be tried."""
    chat = with_items(WRONG, source="chat")
    bare = trip("bare", turns=(with_items(WRONG).turns[0].model_copy(update={"reference": ()}),))
    found = self_test_scenarios([chat, bare])
    assert found.problems == () and (found.items, found.tested, found.undecided) == (2, 0, 1)
    assert "every item was decided" in self_test_scenarios([with_items(CALL)]).lines[0]


@pytest.fixture
def import_file(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Import:
    """Runs `checkloop import FILE` on a file of one scenario; (status, output, errors)."""
    settings = tmp_path / "checkloop.toml"
    settings.write_text(f'database_url = "{sqlite_url}"\n')

    def run(scenario: Scenario, *options: str) -> tuple[int, str, str]:
        write_scenario_file(tmp_path / "trips.jsonl", [scenario])
        given = ["import", str(tmp_path / "trips.jsonl"), "--config", str(settings), *options]
        monkeypatch.setattr("sys.argv", ["checkloop", *given])
        status = 0
        try:
            checkloop.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_command_refuses_such_a_file_unless_told_otherwise(import_file: Import, sqlite_url: str) -> None:
    wrong = with_items(WRONG, CALL)
    status, said, errors = import_file(wrong)
    assert status == 1 and SAID in errors and "--no-self-test" in errors and "self-test: 2 items" in said
    assert load_scenarios(open_log(sqlite_url)) == []
    status, said, errors = import_file(wrong, "--dry-run")
    assert status == 1 and SAID in errors and "nothing was written" in said
    status, said, _ = import_file(wrong, "--no-self-test")
    assert (status, said) == (0, "1 scenarios, 1 of them new\n")
    assert load_scenarios(open_log(sqlite_url)) == [wrong]


def test_a_sound_file_is_imported_with_what_the_self_test_says(import_file: Import) -> None:
    status, said, _ = import_file(with_items(LAX, OPEN))
    assert status == 0 and "does not discriminate: scenario 'trip', turn 0, right_call" in said
    assert "1 (50 %) could not be decided" in said and "1 scenarios, 1 of them new" in said
