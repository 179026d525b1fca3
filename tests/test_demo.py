"""What `make demo` says at its end, on figures that were worked out by hand; and how long it is thought to take."""

import time
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from env_sim.scenario_generator import SEEN_DOMAINS, UNSEEN_DOMAINS
from store.database import Log
from store.records import Scenario
from store.settings import load_settings
from store.training_settings import LoopSettings
from store.vocabulary import Split
from tests.store_examples import a_scenario
from train.demo import cost_line, demo_settings, expected_seconds, outcome_table, run_demo, stage_table
from train.evaluation import Outcome
from train.loop import LoopOutcome
from train.memory import PeakMemory, tree_rss

SEEN, OTHER, UNSEEN = SEEN_DOMAINS[0], SEEN_DOMAINS[1], UNSEEN_DOMAINS[0]
NOT_JUDGED = Outcome(None, None)


def rows(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_the_table_of_before_and_after_by_hand() -> None:
    """In points: of the seen domain 20 -> 60 (its first dialogue failed, the second counts) and 40 -> 100, a pair of
    which one half was not judged is left out; of the unseen one 50 -> 50.

    Seen: (20 + 40) / 2 = 30, (60 + 100) / 2 = 80, difference 50. Resampling two differences, 40 and 60, gives 40 and
    60 a quarter of the time each: the interval. All: 110 / 3 = 36.7, 210 / 3 = 70, difference 33.3; three times the
    smallest (0) or the greatest (60) come 1 time in 27, more than 2.5 %: the interval again. One of two and of three
    dialogues passed afterwards.
    """
    test = [
        a_scenario(f"s{n}", domain=domain, split=Split.TEST)
        for n, domain in enumerate((SEEN, SEEN, SEEN, OTHER, UNSEEN))
    ]
    one, two, half, none, unseen = (scenario.hash for scenario in test)
    outcome = LoopOutcome(
        before={
            one: [NOT_JUDGED, Outcome(0.2, False)],
            two: [Outcome(0.4, False)],
            half: [NOT_JUDGED],
            none: [NOT_JUDGED],
            unseen: [Outcome(0.5, False)],
        },
        after={
            one: [Outcome(0.6, False)],
            two: [Outcome(1.0, True)],
            half: [Outcome(1.0, True)],
            unseen: [Outcome(0.5, False)],
        },
        first_version="v0001",
        last_version="v0008",
        seconds={},
    )
    table = outcome_table(outcome, test, seed=1)
    assert table.title == "Test scenarios before (v0001) and after (v0008), 0 to 100 points"
    seen = ["2", "30.0", "80.0", "+50.0 [+40.0, +60.0]", "0 %", "50 %"]
    same = ["1", "50.0", "50.0", "+0.0 [+0.0, +0.0]", "0 %", "0 %"]
    of_domains = {SEEN: seen, OTHER: ["0", *["not judged"] * 5]}
    assert rows(table) == [
        *([domain, *of_domains[domain]] for domain in sorted(of_domains)),
        [f"{UNSEEN} (unseen)", *same],
        ["seen domains", *seen],
        ["unseen domains", *same],
        ["all", "3", "36.7", "70.0", "+33.3 [+0.0, +60.0]", "0 %", "33 %"],
    ]


def test_the_table_of_stages_and_what_they_cost() -> None:
    """0.04 + 85.26 + 817.7 = 903 s."""
    seconds = {"model": 0.04, "cold-start": 85.26, "round-1/play": 817.7}
    assert cost_line(seconds, int(5.1 * 2**30)) == "Wall time: 903 s, at most 5.1 GiB resident"
    assert rows(stage_table(seconds)) == [["model", "0.0"], ["cold-start", "85.3"], ["round-1/play", "817.7"]]


def test_the_demo_says_its_figures_and_how_to_go_on(
    sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each dialogue from 25 to 75 points: a difference of 50 without any doubt."""
    played: list[Scenario] = []

    class Loop:
        def __init__(self, log: Log, settings: Any, sets: Any, *, name: str, seed: int, progress: Any) -> None:
            played.extend(sets.test)
            assert (name, seed, len(sets.test)) == ("demo-3", 3, 8)
            assert progress.left_s() == sum(expected_seconds(settings.loop).values())

        def run(self) -> LoopOutcome:
            both = ({one.hash: [Outcome(value, value > 0.5)] for one in played} for value in (0.25, 0.75))
            return LoopOutcome(*both, "v0001", "v0002", {"model": 1.0, "before": 41.0})

    monkeypatch.setattr("train.demo.TrainingLoop", Loop)
    monkeypatch.setenv("COLUMNS", "60")  # of no terminal, whose width is asked for: lines stay whole
    sizes = {"rounds": 1, "scenarios_per_round": 2, "test_scenarios": 8, "validation_scenarios": 4}
    run_demo(sqlite_log, load_settings(home=tmp_path, loop=sizes, sft={"dialogues": 2}), name="demo-3", seed=3)
    said = capsys.readouterr().out
    every = next(line for line in said.splitlines() if line.strip("│ ").startswith("all "))
    assert [cell.strip() for cell in every.strip("│ ").split("│")] == [
        "all", "8", "25.0", "75.0", "+50.0 [+50.0, +50.0]", "0 %", "100 %",
    ]  # fmt: skip
    resident = float(said.partition("Wall time: 42 s, at most ")[2].partition(" GiB")[0])
    assert 0.05 < resident < 100, "this process alone has more than nothing"
    assert "checkloop up" in said and "checkloop chat" in said and "make demo SEED=2" in said


@pytest.mark.parametrize(
    ("given", "kl", "baseline"),
    [
        ({}, 0.0, "state"),
        ({"kl": 1e-3, "baseline": "group"}, 1e-3, "group"),
        ({"advantage": "turn"}, 0.0, "group"),
        ({"reference": "v0001"}, 1e-3, "state"),
        ({"method": "lora"}, 0.0, "state"),
        ({"correction": "sequence_mask"}, 0.0, "state"),
    ],
)
def test_the_demo_prefers_what_nobody_set(given: dict[str, Any], kl: float, baseline: str) -> None:
    made = demo_settings(load_settings(grpo=given)).grpo
    assert (made.kl, made.baseline) == (kl, baseline)
    assert made == made.model_validate(load_settings(grpo=given).grpo.model_dump() | {"kl": kl, "baseline": baseline})


def test_every_stage_that_a_loop_does_has_its_time() -> None:
    """Three rounds, a gate after the second and after the last."""
    expected = expected_seconds(LoopSettings(rounds=3, gate_every=2))
    once = {"model", "scenarios", "cold-start", "servers", "before", "after"}
    of_rounds = {f"round-{n}/{what}" for n in (1, 2, 3) for what in ("play", "train")}
    gates = {f"round-{n}/{what}" for n in (2, 3) for what in ("gate", "swap")}
    assert set(expected) == once | of_rounds | {"round-1/load"} | gates
    assert sum(expected_seconds(LoopSettings()).values()) < 15 * 60, "what the README promises on two cores"


def test_the_most_memory_that_was_seen_counts() -> None:
    sizes = [3, 9, 4]
    with PeakMemory(0.01, lambda: sizes.pop(0) if sizes else 1) as memory:
        while sizes:
            time.sleep(0.01)
    assert memory.peak == 9
    assert tree_rss() > 2**20
