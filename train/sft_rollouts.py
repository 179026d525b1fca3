"""Rollouts with half-trained weights: on a gateway and a log of their own, which nobody else talks to.

Reads validation scenarios of the log. What is played stands beside the weights and is removed with them; only the mean
reward is kept. Items are judged as the settings say, by the scenarios' own checklists.
"""

import shutil
from pathlib import Path

from agent.gateway_process import GatewayProcess
from agent.ports import free_ports
from store.database import Log, open_log
from store.records import Scenario
from store.scenarios import add_scenarios, load_scenarios
from store.settings import ModelSettings, Settings
from store.vocabulary import Origin, Split
from train.best_weights import Play
from train.errors import TrainingFailed
from train.evaluation import mean_reward, play_batch
from train.progress import Stage, StageProgress
from train.registry import register_first_version


def rollouts_of(log: Log, settings: Settings, *, count: int, seed: int) -> Play:
    """Plays the first `count` validation scenarios, greedily, the same ones every time.

    Raises TrainingFailed if the log has none.
    """
    scenarios = load_scenarios(log, split=Split.VALIDATION, limit=count)
    if not scenarios:
        raise TrainingFailed("the log holds no scenario of split validation to play: `checkloop import FILE` adds some")
    return lambda weights, step: _play(settings, scenarios, weights, step, seed)


def settings_beside(settings: Settings, home: Path, weights: Path) -> Settings:
    """The settings with a log, a gateway and a vLLM of their own under `home`, serving `weights`."""
    gateway_port, server_port = free_ports()
    return settings.model_copy(
        update={
            "home": home,
            "database_url": "",
            "model": ModelSettings(source=str(weights), renderer=settings.model.renderer),
            "gateway": settings.gateway.model_copy(update={"host": "127.0.0.1", "port": gateway_port}),
            "server": settings.server.model_copy(
                update={"port": server_port, "urls": (), "staging": False, "max_loras": 0}
            ),
        }
    )


def _play(settings: Settings, scenarios: list[Scenario], weights: Path, step: int, seed: int) -> float:
    home = weights.parent / f"rollouts-{step}"
    shutil.rmtree(home, ignore_errors=True)
    beside = settings_beside(settings, home, weights)
    log = open_log(beside.url)
    try:
        add_scenarios(log, scenarios)
        version = register_first_version(log, beside)
        with GatewayProcess(beside):
            outcomes = play_batch(
                log,
                scenarios,
                batch=f"step-{step}",
                version=version,
                seed=seed,
                group_size=1,
                origin=Origin.EVALUATION,
                temperature=settings.rollout.evaluation_temperature,
                settings=beside,
                stage=Stage(StageProgress({}), "rollouts", "rollouts"),
                before_playing=lambda: None,
            )
    finally:
        log.close()
    shutil.rmtree(home, ignore_errors=True)
    return mean_reward(outcomes)
