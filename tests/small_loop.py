"""A loop small enough for a test: no tools, one-word replies, one round. `python -m tests.small_loop HOME PORTS STAGE`
runs it and kills itself, as `kill -9` would, when STAGE begins."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from store.database import open_log
from store.records import Item, ReferenceStep, ReplyMentions, Scenario, ScenarioTurn
from store.settings import Settings, load_settings
from store.vocabulary import FocusOn, Split
from train.loop import LoopOutcome, ScenarioSets, TrainingLoop
from train.progress import Stage, StageProgress

COLOURS = ("red", "blue", "green", "black")
WANTED = ("blue", "green")
NAME = "small"


def settings_of(home: Path, gateway_port: int, server_port: int) -> Settings:
    return load_settings(
        home=home,
        gateway={"port": gateway_port},
        server={"port": server_port, "max_model_len": 512, "max_num_seqs": 32},
        rollout={"group_size": 8, "max_tokens_per_step": 24},
        sft={"dialogues": 8, "epochs": 3, "batch_size": 4},
        grpo={"scenarios_per_step": 2, "learning_rate": 5e-5},
        loop={
            "rounds": 1,
            "scenarios_per_round": 4,
            "test_scenarios": 4,
            "validation_scenarios": 4,
            "gate_min_effect": -2.0,
        },
    )


def small_sets() -> ScenarioSets:
    return ScenarioSets(
        cold_start=[_scenario(Split.TRAIN, n) for n in range(8)],
        pool=[_scenario(Split.TRAIN, n) for n in range(8, 12)],
        validation=[_scenario(Split.VALIDATION, n) for n in range(4)],
        test=[_scenario(Split.TEST, n) for n in range(4)],
    )


def _scenario(split: Split, n: int) -> Scenario:
    item = Item(
        id="names_it",
        focus_on=FocusOn.REPLY,
        question="Does the reply name blue or green?",
        weight=1.0,
        check=ReplyMentions(all_of=(WANTED,)),
    )
    said = ReferenceStep(thinking="name one", reply=COLOURS[n % 4])
    turn = ScenarioTurn(user=f"Name a colour, number {n}.", reference=(said,), checklist=(item,))
    return Scenario(
        name=f"{split}-{n}", domain="colours", source="test", split=split, seed=n, system="", tools=(), turns=(turn,)
    )


class KillingProgress(StageProgress):
    """Kills this process when `fatal` begins."""

    def __init__(self, fatal: str) -> None:
        super().__init__({}, Console(file=sys.stderr))
        self._fatal = fatal

    @contextmanager
    def stage(self, key: str, title: str) -> Iterator[Stage]:
        if key == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        with super().stage(key, title) as stage:
            yield stage


def run(settings: Settings, fatal: str = "") -> LoopOutcome:
    log = open_log(settings.url)
    try:
        return TrainingLoop(log, settings, small_sets(), name=NAME, seed=1, progress=KillingProgress(fatal)).run()
    finally:
        log.close()


if __name__ == "__main__":
    run(settings_of(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), sys.argv[4])
