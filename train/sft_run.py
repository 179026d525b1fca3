"""`checkloop train sft`: a cold start from an SFT set; killed at any moment the same command goes on.

Writes a run with its metrics and a version (a candidate, or live where none is). Checkpoints and the best weights so
far stand in `home`/runs/NAME until the run ends.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from agent.proof import probe_of
from agent.renderer_choice import load_renderer
from agent.special_tokens import start_from_words
from store.database import Log
from store.records import canonical_json
from store.run_dialogues import add_run_dialogues
from store.runs import add_metrics, finish_run, list_runs, start_run
from store.settings import Settings
from store.sft_sets import SftSet, get_sft_set
from store.versions import add_figures, get_version, live_version, set_version_state
from store.vocabulary import JobStatus, RunKind, Split, VersionState
from train.best_weights import Play
from train.checkpoints import new_directory, save_version
from train.errors import TrainingFailed
from train.progress import Stage
from train.registry import model_directory, probe_prompts, register_version, version_of_run
from train.run_directory import next_run_name, only_here
from train.sft import SftResult, train_sft
from train.sft_dialogues import read_dialogues, render_dialogues
from train.tracking import check_trackers, tracking_arguments
from train.training_run import load_policy


@dataclass(frozen=True)
class SftRun:
    """What came of it. `result` None: the version was made before the command was killed."""

    name: str
    version: str
    data: SftSet
    left_out: Counter[str]
    result: SftResult | None
    is_live: bool


def run_sft(
    log: Log,
    settings: Settings,
    *,
    data: str = "",
    base: str = "",
    name: str = "",
    seed: int,
    play: Play | None = None,
    stage: Stage,
) -> SftRun:
    """Trains on the set `data` (default: the newest) from the version `base` (default: the model of the settings).

    Without a name, the newest unfinished run of the same data, start, settings and seed is gone on with. Raises
    LogError for an unknown set or version, TrainingFailed for a set that was changed or has nothing to train on, or if
    another process trains this run.
    """
    check_trackers(settings.tracking)
    made_from = get_sft_set(log, data)
    dialogues = read_dialogues(made_from)
    start = Path(get_version(log, base).path) if base else with_special_tokens(settings, model_directory(settings))
    run_settings = settings.sft.model_dump(mode="json") | {
        "data": made_from.name,
        "data_sha256": made_from.sha256,
        "model": None if base else settings.model.source,
    }
    name = name or _unfinished(log, base, run_settings, seed) or next_run_name(log, "sft")
    folder = settings.home / "runs" / name
    with only_here(folder):
        run_id = start_run(log, name, RunKind.SFT, base or None, seed, run_settings)
        if version := version_of_run(log, run_id):
            finish_run(log, run_id, JobStatus.DONE)
            shutil.rmtree(folder, ignore_errors=True)
            return SftRun(name, version, made_from, Counter(), None, _go_live(log, version, name))
        made = folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        try:
            renderer = load_renderer(start, settings.model.renderer)
            room = settings.sft.max_tokens or _context(start)
            train, learnt, left_out = render_dialogues([d for d in dialogues if d.split is Split.TRAIN], renderer, room)
            of_validation = [d for d in dialogues if d.split is Split.VALIDATION]
            held_out, measured, too = render_dialogues(of_validation, renderer, room)
            left_out.update(too)
            used = dict.fromkeys(measured, Split.VALIDATION) | dict.fromkeys(learnt, Split.TRAIN)
            add_run_dialogues(log, run_id, used)
            if not train:
                why = "; ".join(f"{count}: {reason}" for reason, count in left_out.most_common())
                raise TrainingFailed(f"SFT set {made_from.name} has no dialogue to train on{': ' if why else ''}{why}")
            stage.advance(0.0, f"{len(train)} dialogues of {made_from.name}, run {name}")
            result = train_sft(
                start,
                made,
                train,
                settings.sft,
                seed,
                _on_step(log, run_id, stage),
                probe_ids=(probe_prompts(start) if base else ()) or probe_of(one.ids for one in held_out or train),
                validation=held_out,
                play=play,
                run_dir=folder / "checkpoints",
                tracking=tracking_arguments(settings.tracking, settings.home, name),
            )
            done = f"{result.steps} steps on {len(train)} dialogues of {made_from.name}"
            stage.advance(1.0, f"{done}, loss {result.loss:.3f}")
            version = register_version(log, settings, made, parent=base or None, run_id=run_id)
            figures: dict[str, Any] = {"sft_set": made_from.name, "dialogues": len(train), "sft_loss": result.loss}
            if result.best is not None:
                figures |= {f"validation_{k}": v for k, v in asdict(result.best).items() if v is not None}
            add_figures(log, version, figures)
        except BaseException as error:
            finish_run(log, run_id, JobStatus.FAILED, f"{type(error).__name__}: {error}")
            raise
        finish_run(log, run_id, JobStatus.DONE)
        shutil.rmtree(folder, ignore_errors=True)
        return SftRun(name, version, made_from, left_out, result, _go_live(log, version, name))


def with_special_tokens(settings: Settings, model_dir: Path) -> Path:
    """The base model with `sft.special_tokens` started from their words, made once in `home`/models; `model_dir` itself
    if the table is empty."""
    words = settings.sft.special_tokens
    if not words:
        return model_dir
    key = hashlib.sha256(canonical_json([str(model_dir), words]).encode()).hexdigest()[:12]
    target = (settings.home / "models" / f"{model_dir.name}-{key}").resolve()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_policy(model_dir)
    start_from_words(model, tokenizer, words)
    half_made = target.with_name(f".{target.name}")
    shutil.rmtree(half_made, ignore_errors=True)
    save_version(model, model_dir, half_made)
    with new_directory(target) as part:
        for file in half_made.iterdir():
            file.rename(part / file.name)
        tokenizer.save_pretrained(part)
    half_made.rmdir()
    return target


def _on_step(log: Log, run_id: int, stage: Stage) -> Callable[[int, int, Mapping[str, float]], None]:
    def on_step(step: int, total: int, metrics: Mapping[str, float]) -> None:
        add_metrics(log, run_id, step, dict(metrics))
        held_out = metrics.get("validation_loss")
        measured = f", validation {held_out:.3f}" if held_out is not None else ""
        stage.advance(step / total, f"step {step} of {total}, loss {metrics['loss']:.3f}{measured}")

    return on_step


def _unfinished(log: Log, base: str, settings: dict[str, Any], seed: int) -> str | None:
    for run in reversed(list_runs(log)):
        ours = run.kind is RunKind.SFT and run.status is not JobStatus.DONE and run.name.startswith("sft-")
        same = (run.base_version, run.seed) == (base or None, seed)
        if ours and same and canonical_json(run.settings) == canonical_json(settings):
            return run.name
    return None


def _context(model_dir: Path) -> int:
    text = AutoConfig.from_pretrained(model_dir, local_files_only=True).get_text_config()
    return int(text.max_position_embeddings)


def _go_live(log: Log, version: str, run: str) -> bool:
    """A first version has nothing to be held against; any later one waits for the gate."""
    live = live_version(log)
    if live is None and get_version(log, version).state is VersionState.CANDIDATE:
        set_version_state(log, version, VersionState.LIVE, f"cold start {run}: no version was live")
        return True
    return live is not None and live.name == version
