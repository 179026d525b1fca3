"""Scenarios are kept once, by content; a scenario file is read whole or refused with the place of what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from store import scenarios
from store.database import Log, LogError
from store.records import Item, Scenario
from store.scenarios import (
    ScenarioFileError,
    add_scenarios,
    get_scenario,
    item_ids,
    load_scenarios,
    read_scenario_file,
    write_scenario_file,
)
from store.vocabulary import Split
from tests.store_examples import a_scenario


def test_a_scenario_comes_back_as_it_was(log: Log) -> None:
    scenario = a_scenario()
    assert add_scenarios(log, [scenario]) == 1
    found = get_scenario(log, scenario.hash)
    assert found == scenario
    assert found.hash == scenario.hash
    with pytest.raises(LogError, match="no scenario 'abc'"):
        get_scenario(log, "abc")


def test_adding_twice_adds_once(log: Log) -> None:
    one, two = a_scenario("one"), a_scenario("two")
    assert add_scenarios(log, [one, one]) == 1
    before = item_ids(log, one.hash)
    assert add_scenarios(log, [one, two]) == 1
    assert item_ids(log, one.hash) == before
    assert load_scenarios(log) == [one, two]


def test_an_import_that_fails_half_way_leaves_whole_scenarios_and_is_gone_on_with(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five, two at a time, the fourth cannot be written: the first two are there, with their items."""
    made = [a_scenario(f"s{n}") for n in range(5)]
    monkeypatch.setattr(scenarios, "_AT_ONCE", 2)
    with monkeypatch.context() as patch:
        row = scenarios.item_row

        def fail(digest: str, turn_index: int, item: Item) -> dict[str, Any]:
            if digest == made[3].hash:
                raise LogError("no space left")
            return row(digest, turn_index, item)

        patch.setattr(scenarios, "item_row", fail)
        with pytest.raises(LogError, match="no space left"):
            add_scenarios(log, made)
    assert {one.name for one in load_scenarios(log)} == {"s0", "s1"}
    assert all(item_ids(log, one.hash) for one in made[:2])
    assert add_scenarios(log, made) == 3
    assert [one.name for one in load_scenarios(log)] == ["s0", "s1", "s2", "s3", "s4"]


def test_items_have_ids_that_verdicts_can_name(log: Log) -> None:
    one, two = a_scenario("one"), a_scenario("two")
    add_scenarios(log, [one, two])
    ids = item_ids(log, one.hash)
    assert ids.keys() == {(0, "asks-weather"), (0, "umbrella"), (1, "answers-thanks")}
    assert len(set(ids.values()) | set(item_ids(log, two.hash).values())) == 6
    assert item_ids(log, "0" * 64) == {}


def test_scenarios_are_found_by_what_they_are_in_order_of_name(log: Log) -> None:
    made = [
        a_scenario("b-2", domain="shop"),
        a_scenario("B-1", split=Split.TEST),
        a_scenario("a-10", seen=False, split=Split.TEST),
        a_scenario("a-9", source="imported"),
    ]
    add_scenarios(log, made)

    def found(**conditions: Any) -> list[str]:
        return [scenario.name for scenario in load_scenarios(log, **conditions)]

    assert found() == ["B-1", "a-10", "a-9", "b-2"]
    assert found(limit=2) == ["B-1", "a-10"]
    assert found(split="test") == ["B-1", "a-10"]
    assert found(split=Split.TEST, seen=True) == ["B-1"]
    assert found(domain="shop") == ["b-2"]
    assert found(source="imported") == ["a-9"]
    assert found(seen=False) == ["a-10"]
    with pytest.raises(ValueError, match="'tset'"):
        found(split="tset")


def test_what_fits_one_database_fits_the_other(log: Log) -> None:
    with pytest.raises(LogError, match=r"domain 'd+' is longer than 64"):
        add_scenarios(log, [a_scenario("fits"), a_scenario("too-long", domain="d" * 65)])
    assert load_scenarios(log) == []


def test_a_file_gives_back_the_scenarios(tmp_path: Path) -> None:
    scenarios = [a_scenario("one"), a_scenario("two")]
    file = tmp_path / "folder" / "scenarios.jsonl"
    write_scenario_file(file, scenarios)
    assert read_scenario_file(file) == scenarios
    assert len(file.read_text(encoding="utf-8").splitlines()) == 2


def _change(path: str, value: Any) -> str:
    """The JSON of a sound scenario with the value at `path` replaced."""
    document = json.loads(a_scenario().canonical_json())
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place: Any = document
    for key in parents:
        place = place[key]
    place[last] = value
    return json.dumps(document)


GOOD = a_scenario().canonical_json()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD[:-20], r"not JSON: .* at column \d+"),
        (GOOD[:-1] + ', "name": "again"}', "the key 'name' stands twice"),
        (GOOD.replace("0.75", "NaN"), "NaN is no JSON number"),
        ("[" * 100_000, "not JSON"),
        ("[]", "scenario: Input should be"),
        (_change("turns.0.checklist.1.weight", -0.25), r"turns\.0\.checklist\.1\.weight: .*greater than or equal to 0"),
        (_change("turns.0.checklist.1.weight", 0.5), r"turns\.0: .*add to 1\.25"),
        (_change("turns.0.checklist.0.check.kind", "psychic"), r"turns\.0\.checklist\.0\.check: .*psychic"),
        (_change("turns.0.checklist.0.check.tols", "x"), r"turns\.0\.checklist\.0\.check.*tols: Extra inputs"),
        (_change("turns.0.checklist.0.depends_on", ["nothing"]), r"turns\.0: .*depends on unknown items \['nothing'\]"),
        (_change("turns.0.checklist.0.depends_on", ["umbrella"]), r"turns\.0: .*cycle"),
        (_change("turns", []), "turns: .*at least 1 item"),
        (_change("split", "practice"), "split: .*'train', 'validation' or 'test'"),
    ],
)
def test_a_corrupt_line_is_named_and_nothing_is_read(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "scenarios.jsonl"
    file.write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(ScenarioFileError, match=rf"scenarios\.jsonl, line 3: .*{message}"):
        read_scenario_file(file)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "scenarios.jsonl"
    file.write_bytes(GOOD.encode() + b"\n" + GOOD.encode("utf-16"))
    with pytest.raises(ScenarioFileError, match=r"line 2: not UTF-8 at byte 0"):
        read_scenario_file(file)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioFileError, match=r"cannot read .*none\.jsonl: No such file"):
        read_scenario_file(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ScenarioFileError, match=r"empty\.jsonl holds no scenario"):
        read_scenario_file(tmp_path / "empty.jsonl")


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scenarios.jsonl"
    write_scenario_file(file, [a_scenario("old")])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LogError, match=r"cannot write .*scenarios\.jsonl: No space left on device"):
        write_scenario_file(file, [a_scenario("new"), a_scenario("newer")])
    assert [scenario.name for scenario in read_scenario_file(file)] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["scenarios.jsonl"]


def test_scenarios_that_were_hashed_before_keep_their_hash() -> None:
    """Of a scenario with a `called` check, as it was before these checks had a lower bound."""
    assert a_scenario().hash == "668cb039b9d3f41d1134647a5099437fc9b4576973fb58ad873543246ce14d07"


def test_equal_scenarios_have_one_hash_however_they_are_written() -> None:
    document = json.loads(a_scenario().canonical_json())
    shuffled = json.loads(json.dumps(dict(reversed(list(document.items()))), indent=2))
    assert Scenario.model_validate(shuffled).hash == a_scenario().hash
