"""Checklists are appended: revisions, variants, keys that stay with an item's words; annotations and links too."""

import pytest

from store.annotations import Annotation, latest_annotations, record_annotation, waiting_for_person
from store.checklists import Checklist, add_checklists, checklist_history, current_checklists
from store.database import Log, LogError
from store.records import Called, Item, Scenario
from store.scenarios import add_scenarios, item_ids
from store.trajectories import NewTrajectory, create_trajectories, get_trajectory, link_scenario
from store.verdicts import Verdict, add_verdicts, verdicts_of
from store.vocabulary import AnnotationStatus, FocusOn, Origin, Outcome, VerdictSource
from tests.store_examples import a_scenario


def an_item(key: str, question: str = "", weight: float = 1.0, **more: object) -> Item:
    return Item(id=key, focus_on=FocusOn.REPLY, question=question or f"{key}?", weight=weight, **more)


@pytest.fixture
def kept(log: Log) -> tuple[Log, Scenario]:
    scenario = a_scenario()
    add_scenarios(log, [scenario])
    return log, scenario


def write(log: Log, scenario: Scenario, *items: Item, turn: int = 1, variant: int = 0) -> Checklist:
    (stored,) = add_checklists(log, [Checklist(scenario.hash, turn, items, variant=variant, author="ada")])
    return stored


def keys(log: Log, scenario: Scenario, turn: int = 1) -> list[tuple[int, int, list[str]]]:
    current = current_checklists(log, [scenario])[scenario.hash][turn]
    return [(one.variant, one.revision, [item.id for item in one.items]) for one in current]


def test_the_newest_revision_of_every_variant_counts(kept: tuple[Log, Scenario]) -> None:
    log, scenario = kept
    assert keys(log, scenario) == [(0, 0, ["answers-thanks"])]
    write(log, scenario, an_item("warm"))
    write(log, scenario, an_item("other"), variant=2)
    write(log, scenario, an_item("short"), variant=1)
    assert write(log, scenario, an_item("final"), variant=2).revision == 2
    assert keys(log, scenario) == [(0, 1, ["warm"]), (1, 1, ["short"]), (2, 2, ["final"])]
    assert keys(log, scenario, turn=0)[0][:2] == (0, 0)
    history = [(one.variant, one.revision) for one in checklist_history(log, scenario, 1)]
    assert history == [(0, 0), (0, 1), (2, 1), (1, 1), (2, 2)]


def test_a_key_taken_by_other_words_gets_a_number(kept: tuple[Log, Scenario]) -> None:
    log, scenario = kept
    first = write(log, scenario, an_item("told", "Is the price told?", 0.5), an_item("fine", weight=0.5))
    assert [item.id for item in first.items] == ["told", "fine"]
    dependent = an_item("fine", "Is it fine?", 0.5, depends_on=("told",))
    second = write(log, scenario, an_item("told", "Is the date told?", 0.5), dependent, variant=1)
    assert [item.id for item in second.items] == ["told~2", "fine~2"]
    assert second.items[1].depends_on == ("told~2",)
    third = write(log, scenario, an_item("told", "Is the name told?"), variant=2)
    assert [item.id for item in third.items] == ["told~3"]
    assert set(item_ids(log, scenario.hash)) >= {(1, key) for key in ("told", "told~2", "told~3", "fine", "fine~2")}


def test_equal_words_keep_their_key_and_their_verdicts(kept: tuple[Log, Scenario]) -> None:
    """Another weight, another id: what counts is what is asked."""
    log, scenario = kept
    check = Called(tool="get_weather", arguments={"city": "Oslo", "day": 3})
    write(log, scenario, an_item("asked", "Is it asked?", check=check))
    item_id = item_ids(log, scenario.hash)[1, "asked"]
    create_trajectories(log, [NewTrajectory("t1", Origin.ROLLOUT, scenario.hash)])
    said = Verdict(
        "t1", 1, item_id, "asked", Outcome.PASS, 0, VerdictSource.CODE, "checks", None, "it was", "", cache_key=None
    )
    add_verdicts(log, [said])
    again = an_item("was_asked", "Is it asked?", 0.25, check=check)
    stored = write(log, scenario, again, an_item("asked", "Something else?", 0.75))
    assert [item.id for item in stored.items] == ["asked", "asked~2"]
    assert item_ids(log, scenario.hash)[1, "asked"] == item_id
    assert [verdict.item_key for verdict in verdicts_of(log, ["t1"])["t1"]] == ["asked"]


def test_a_checklist_brings_back_an_item_of_the_scenario_itself(kept: tuple[Log, Scenario]) -> None:
    log, scenario = kept
    before = item_ids(log, scenario.hash)
    write(log, scenario, *scenario.turns[1].checklist)
    assert item_ids(log, scenario.hash) == before


def test_all_are_written_or_none(kept: tuple[Log, Scenario]) -> None:
    log, scenario = kept
    good = Checklist(scenario.hash, 0, (an_item("a"),), author="ada")
    for bad, why in [
        (Checklist(scenario.hash, 1, (an_item("a", weight=0.5),)), r"turn 1, variant 0 is unsound: .*add to 0\.5"),
        (Checklist(scenario.hash, 2, (an_item("a"),)), "has no turn 2: it has 2"),
        (Checklist("0" * 64, 0, (an_item("a"),)), "there is no scenario"),
        (Checklist(scenario.hash, 0, (an_item("a" * 129),)), "longer than 128"),
    ]:
        with pytest.raises(LogError, match=why):
            add_checklists(log, [good, bad])
    assert keys(log, scenario, turn=0)[0][:2] == (0, 0)


def test_an_annotation_and_its_checklists_are_one_thing(kept: tuple[Log, Scenario]) -> None:
    log, scenario = kept
    done = Annotation(scenario.hash, 0, "big", "f" * 64, AnnotationStatus.DONE, 1, figures={"self_test": {"items": 1}})
    unsound = Checklist(scenario.hash, 1, (an_item("a", weight=0.5),))
    with pytest.raises(LogError, match="unsound"):
        record_annotation(log, done, [unsound])
    assert latest_annotations(log) == {} and keys(log, scenario) == [(0, 0, ["answers-thanks"])]
    (stored,) = record_annotation(log, done, [Checklist(scenario.hash, 1, (an_item("a"),), author="big")])
    assert stored.revision == 1 and keys(log, scenario) == [(0, 1, ["a"])]
    found = latest_annotations(log)[scenario.hash, 0]
    assert (found.status, found.annotator, found.figures) == (AnnotationStatus.DONE, "big", {"self_test": {"items": 1}})


def test_who_waits_is_said_by_the_newest_annotation(kept: tuple[Log, Scenario]) -> None:
    log, scenario = kept
    open_one = Annotation(
        scenario.hash, 1, "big", "f" * 64, AnnotationStatus.NEEDS_PERSON, 3, problems=("turn 0: no item",)
    )
    record_annotation(log, open_one)
    (waiting,) = waiting_for_person(log)
    assert (waiting.scenario_name, waiting.domain) == ("rain", "weather")
    assert (waiting.annotation.problems, waiting.annotation.attempts) == (("turn 0: no item",), 3)
    with pytest.raises(LogError, match="stores no checklist"):
        record_annotation(log, open_one, [Checklist(scenario.hash, 1, (an_item("a"),))])
    record_annotation(log, Annotation(scenario.hash, 1, "big", "f" * 64, AnnotationStatus.DONE, 1))
    assert waiting_for_person(log) == []


def test_a_trajectory_is_linked_once(kept: tuple[Log, Scenario]) -> None:
    log, scenario = kept
    other = a_scenario("other")
    add_scenarios(log, [other])
    create_trajectories(log, [NewTrajectory("chat", Origin.CHAT)])
    link_scenario(log, "chat", scenario.hash)
    link_scenario(log, "chat", scenario.hash)
    assert get_trajectory(log, "chat").scenario_hash == scenario.hash
    with pytest.raises(LogError, match=r"'chat' comes from scenario .* it cannot come from"):
        link_scenario(log, "chat", other.hash)
    with pytest.raises(LogError, match="no trajectory 'nobody'"):
        link_scenario(log, "nobody", scenario.hash)
    create_trajectories(log, [NewTrajectory("chat2", Origin.CHAT)])
    with pytest.raises(LogError):
        link_scenario(log, "chat2", "0" * 64)
