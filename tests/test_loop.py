"""The loop end to end on the real model, vLLM and TRL: killed between two stages, gone on with, looked over."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from agent.bundled_model import prepare_bundled_model
from agent.ports import free_ports
from agent.proof import read_probe
from store.database import Log, LogError, open_log
from store.runs import get_run, metrics_of, run_trajectories
from store.settings import ModelSettings, Settings
from store.stages import list_stages
from store.tokens import token_sequences
from store.training_settings import OnlineSettings
from store.trajectories import TrajectorySummary, list_trajectories
from store.turns import turns_of
from store.verdicts import rewards_of, verdicts_of
from store.versions import get_version, list_gate_decisions, list_versions, live_version
from store.vocabulary import Outcome, VersionState
from tests.serving import MODEL
from tests.small_loop import NAME, WANTED, run, settings_of
from tests.tiny_model import write_tiny_model
from train.loop import LoopOutcome
from train.online import OnlineRun
from train.progress import StageProgress
from train.training_run import TrainingError

ROOT = Path(__file__).resolve().parent.parent


class Finished:
    def __init__(
        self, settings: Settings, log: Log, outcome: LoopOutcome, before_kill: list[TrajectorySummary]
    ) -> None:
        self.settings, self.log, self.outcome, self.before_kill = settings, log, outcome, before_kill


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A loop that was killed (-9) when its training was about to begin, and then run again to its end."""
    home = tmp_path_factory.mktemp("loop")
    (home / "model").symlink_to(prepare_bundled_model(MODEL).resolve())
    ports = free_ports()
    command = [sys.executable, "-m", "tests.small_loop", str(home), *map(str, ports), "round-1/train"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    settings = settings_of(home, *ports)
    _wait_until_free(ports)
    log = open_log(settings.url)
    played = list_trajectories(log, limit=None)
    return Finished(settings, log, run(settings), played)


def _wait_until_free(ports: tuple[int, int]) -> None:
    """The killed loop's gateway and vLLM end by themselves when their parent is gone."""
    deadline = time.monotonic() + 60
    for port in ports:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    break
            assert time.monotonic() < deadline, f"port {port} is still served after its parent was killed"
            time.sleep(0.5)


@pytest.mark.timeout(1800)
def test_a_killed_loop_goes_on_where_it_was(loop: Finished) -> None:
    stages = list_stages(loop.log, NAME)
    keys = ["model", "scenarios", "cold-start", "before", "round-1/play", "round-1/train"]
    assert [stage.key for stage in stages][:6] == keys
    assert all(stage.status == "done" for stage in stages)
    kept = {summary.id for summary in loop.before_kill}
    assert len(kept) == 4 + 4 * 8
    batches = [s.batch for s in list_trajectories(loop.log, limit=None)]
    assert batches.count(f"{NAME}/before") == 4 and batches.count(f"{NAME}/round-1") == 32
    assert kept <= {s.id for s in list_trajectories(loop.log, limit=None)}


def test_it_refuses_to_go_on_as_another_loop(loop: Finished) -> None:
    other = loop.settings.model_copy(update={"grpo": loop.settings.grpo.model_copy(update={"learning_rate": 1.0})})
    with pytest.raises(LogError, match=r"grpo\.learning_rate"):
        run(other)


def test_rewards_are_those_worked_out_by_hand(loop: Finished) -> None:
    """One item of weight 1: the reward is 1 exactly where the sampled reply names blue or green, else 0."""
    names = [s.id for s in list_trajectories(loop.log, batch=f"{NAME}/round-1", limit=None)]
    rewards, turns, verdicts = rewards_of(loop.log, names), turns_of(loop.log, names), verdicts_of(loop.log, names)
    seen = set()
    for name in names:
        reply = turns[name][0].reply.lower()
        words = "".join(c if c.isalnum() else " " for c in reply).split()
        expected = 1.0 if any(word in words for word in WANTED) else 0.0
        assert rewards[name].value == expected
        assert verdicts[name][0].outcome is (Outcome.PASS if expected else Outcome.FAIL)
        seen.add(expected)
    assert seen == {0.0, 1.0}, "the rollouts differ, or there was nothing to train on"


def test_the_run_recorded_what_it_trained_on_and_how_it_went(loop: Finished) -> None:
    run_record = get_run(loop.log, f"{NAME}/round-1")
    used = run_trajectories(loop.log, run_record.id)
    assert used and set(used) <= {s.id for s in list_trajectories(loop.log, batch=f"{NAME}/round-1", limit=None)}
    assert abs(sum(used.values())) < 1e-6, "advantages of equation 5 add to 0 in every group"
    metrics = metrics_of(loop.log, run_record.id)
    assert {"loss", "grad_norm", "tokens_per_s"} <= metrics.keys()


def test_sampling_logprobs_agree_with_the_trainer(loop: Finished) -> None:
    """Behaviour logprobs are really used: at the first step the trainer's ratio to them is 1 up to rounding."""
    metrics = metrics_of(loop.log, get_run(loop.log, f"{NAME}/round-1").id)
    ratio = dict(metrics["ratio_mean"])
    assert abs(ratio[min(ratio)] - 1.0) < 0.1


def test_the_swapped_server_answered_with_the_new_weights(loop: Finished) -> None:
    first, last = get_version(loop.log, "v0001"), get_version(loop.log, "v0002")
    assert (first.state, last.state) == (VersionState.RETIRED, VersionState.LIVE)
    old, new = read_probe(Path(first.path)), read_probe(Path(last.path))
    assert old is not None and new is not None and old.ids == new.ids
    assert old.logprobs != new.logprobs
    swap = next(stage for stage in list_stages(loop.log, NAME) if stage.key == "round-1/swap").result
    assert swap is not None and swap["accepted"]
    assert swap["proof"]["error"] < 0.3 and swap["proof"]["closeness"] > 0.5
    assert list_gate_decisions(loop.log)[0].passed
    after = list_trajectories(loop.log, batch=f"{NAME}/after", limit=None)
    sequences = token_sequences(loop.log, [s.id for s in after])
    assert {step.version for sequence in sequences.values() for step in sequence.steps} == {"v0002"}
    assert loop.outcome.last_version == "v0002"


def test_a_model_with_too_few_layers_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "tiny")
    settings = settings_of(tmp_path / "home", *free_ports()).model_copy(
        update={"model": ModelSettings(source=str(source))}
    )
    with pytest.raises(TrainingError, match=r"trained_layers = 10, but the model has 2 layers: set it to 0"):
        run(settings)
    log = open_log(settings.url)
    assert [stage.key for stage in list_stages(log, NAME)] == ["model"]


@pytest.mark.timeout(1800)
def test_an_online_run_goes_on_from_the_live_version_on_a_server_apart(loop: Finished) -> None:
    """The second round is sampled, by the version that the first one is trained from, while that is trained."""
    live = live_version(loop.log)
    assert live is not None
    online = OnlineSettings(rounds=2, scenarios_per_round=4, max_staleness=1, held_out_every=1, held_out_scenarios=4)
    settings = loop.settings.model_copy(update={"online": online})
    progress = StageProgress({}, Console(file=sys.stderr))
    outcome = OnlineRun(loop.log, settings, name="online-1", seed=1, progress=progress).run()

    assert outcome.base == live.name and live_version(loop.log) == live, "nobody is answered by anything else"
    runs = [get_run(loop.log, f"online-1/round-{n}") for n in (1, 2)]
    assert runs[0].base_version == live.name
    versions = [v for v in list_versions(loop.log) if v.run_id in [run.id for run in runs]]
    assert outcome.version == versions[-1].name and versions[-1].state is VersionState.CANDIDATE
    assert Path(versions[-1].path).is_dir()
    for earlier in versions[:-1]:
        assert earlier.state is VersionState.REFUSED and not Path(earlier.path).exists()
    for n in (1, 2):
        played = list_trajectories(loop.log, batch=f"online-1/round-{n}", limit=None)
        assert len(played) == 4 * 8 and {one.version for one in played} == {live.name}
    held_out = {
        one.scenario_hash: one.version for one in list_trajectories(loop.log, batch="online-1/held-out-0", limit=None)
    }
    assert len(held_out) == 4 and set(held_out.values()) == {live.name}
    of_first = {version.name for version in versions if version.run_id == runs[0].id}
    later = list_trajectories(loop.log, batch="online-1/held-out-1", limit=None)
    assert {one.scenario_hash for one in later} == (set(held_out) if of_first else set())
    assert {one.version for one in later} == of_first, "the training server answered with the newest one"
    began = {stage.key: stage.started_at for stage in list_stages(loop.log, "online-1")}
    ended = {stage.key: stage.ended_at for stage in list_stages(loop.log, "online-1")}
    assert ended["round-1/train"] is not None and began["round-2/play"] < ended["round-1/train"]
