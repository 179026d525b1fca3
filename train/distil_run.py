"""`checkloop judge distil`: a run from the log to a judge on disk, with its report; killed at any moment it goes on.

Reads verdicts, writes a run with its metrics and `home`/judges/judge-0001. Half-made things stand in
`home`/judges/.judge-0001; the judge's directory appears whole, by one rename.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.weight_files import file_hashes
from reward.small_judge import PROMPT_HASH
from store.database import Log
from store.records import canonical_json
from store.run_dialogues import add_run_dialogues
from store.runs import add_metrics, finish_run, list_runs, start_run
from store.settings import ModelSettings, Settings
from store.training_settings import DistilSettings
from store.vocabulary import JobStatus, Outcome, RunKind, Split
from train.checkpoints import move_into_place
from train.distil import DistilResult, train_judge
from train.errors import TrainingFailed
from train.judge_examples import JudgeData, JudgeExample, Sources, base_rate, gather_examples
from train.judge_files import (
    CARD,
    Card,
    SavedJudge,
    check_judge_name,
    judge_names,
    judges_folder,
    next_judge_name,
    read_judge,
    weight_hashes,
    write_card,
)
from train.judge_generation import GreedyJudge, OnBatch
from train.judge_report import JudgeReport, figures_of, majority_of, referees, report_on
from train.progress import Stage, StageProgress
from train.registry import model_directory

BASE = "untrained base model"
EXPECTED_S = {"train": 300.0, "ask": 90.0, "ask-base": 120.0}
"""On two quiet cores, for the first estimate of the time left."""


@dataclass(frozen=True)
class Trained:
    """An adapter that has not been asked anything yet."""

    adapter: Path
    result: DistilResult


@dataclass(frozen=True)
class Distilled:
    judge: SavedJudge
    report: JudgeReport
    data: JudgeData
    result: DistilResult


def distil_judge(
    log: Log, settings: Settings, sources: Sources, *, name: str, seed: int, progress: StageProgress
) -> Distilled:
    """Gathers, trains, asks the held-out questions, saves.

    Without a `name`, an unfinished run on the same data with the same settings is gone on with, else the next name is
    taken. Raises TrainingFailed for too little to learn from or a name that is taken, LogError if the unfinished run of
    that name had other data or settings.
    """
    home, wanted = settings.home, settings.distil
    if name and (judges_folder(home) / check_judge_name(name)).exists():
        raise TrainingFailed(f"{name} is there already, in {judges_folder(home)}: judges are immutable, choose another")
    base = base_directory(settings)
    data = gather_examples(
        log,
        sources,
        seed=seed,
        max_train=wanted.max_examples,
        max_held_out=wanted.held_out_examples,
        held_out_share=wanted.held_out_share,
    )
    base_files = weight_hashes(base)
    made_of = {"sources": asdict(sources), "digest": data.digest(), "prompt": PROMPT_HASH, "base": base_files}
    made_of |= wanted.model_dump(mode="json")
    name = name or _unfinished(log, home, made_of, seed) or _next_name(log, home)
    run_id = start_run(log, name, RunKind.DISTIL, None, seed, made_of)
    place = (judges_folder(home) / name).resolve()
    work = place.with_name(f".{name}")
    key = hashlib.sha256(canonical_json([made_of, seed]).encode()).hexdigest()
    held_out = {example.scenario_hash: Split.VALIDATION for example in data.held_out}
    learnt = {example.scenario_hash: Split.TRAIN for example in data.train}
    add_run_dialogues(log, run_id, held_out | learnt)
    try:
        trained = _train_once(log, run_id, base, work / key, data.train, wanted, seed, progress)
        report = _report(name, base, trained.adapter, data, seed, progress)
        card = _card(name, base, base_files, trained, data, report, sources, wanted, seed)
        write_card(trained.adapter, card)
        add_metrics(log, run_id, trained.result.steps, {f"held_out_{k}": v for k, v in card.figures[name].items()})
        move_into_place(trained.adapter, place)
    except BaseException as error:
        finish_run(log, run_id, JobStatus.FAILED, f"{type(error).__name__}: {error}")
        raise
    finish_run(log, run_id, JobStatus.DONE)
    shutil.rmtree(work, ignore_errors=True)
    return Distilled(read_judge(home, name), report, data, trained.result)


def base_directory(settings: Settings) -> Path:
    """The model that is trained: `distil.base`. Raises ModelError."""
    return model_directory(settings.model_copy(update={"model": ModelSettings(source=settings.distil.base)}))


def describe(examples: Sequence[JudgeExample]) -> str:
    """How many, from whom, and the base rate."""
    by_source = Counter(f"{e.source.value} {e.judge}" for e in examples)
    who = ", ".join(f"{count} of {source}" for source, count in by_source.most_common())
    return f"{len(examples)} verdicts ({who}; {100 * base_rate(examples):.0f} % PASS)"


def _train_once(
    log: Log,
    run_id: int,
    base: Path,
    folder: Path,
    examples: Sequence[JudgeExample],
    settings: DistilSettings,
    seed: int,
    progress: StageProgress,
) -> Trained:
    """What was trained before a kill is not trained again; `folder` belongs to these examples and settings."""
    note, adapter = folder / "trained.json", folder / "adapter"
    title = f"train on {describe(examples)}"
    if note.is_file() and adapter.is_dir():
        progress.skip("train", title)
        (adapter / CARD).unlink(missing_ok=True)
        return Trained(adapter, DistilResult(**json.loads(note.read_text())))
    shutil.rmtree(adapter, ignore_errors=True)
    with progress.stage("train", title) as stage:

        def on_step(step: int, total: int, metrics: dict[str, float]) -> None:
            add_metrics(log, run_id, step, metrics)
            stage.advance(step / total, f"step {step} of {total}, {metrics['tokens_per_s']:.0f} tokens/s")

        result = train_judge(base, adapter, examples, settings, seed, on_step, run_dir=folder / "run")
        long = f", {result.too_long} too long" if result.too_long else ""
        loss = "" if result.loss is None else f", loss {result.loss:.3f}"
        stage.advance(1.0, f"{result.steps} steps{loss}{long}")
    note.write_text(json.dumps(asdict(result)))
    return Trained(adapter, result)


def _report(name: str, base: Path, adapter: Path, data: JudgeData, seed: int, progress: StageProgress) -> JudgeReport:
    examples, against = referees(data.held_out)
    said: dict[str, list[Outcome]] = {}
    for key, model, place in (("ask", name, adapter), ("ask-base", BASE, None)):
        with progress.stage(key, f"ask {model} {len(examples)} held-out questions") as stage:
            verdicts = GreedyJudge(base, place).judge(examples, _advance(stage))
            said[model] = [verdict.outcome for verdict in verdicts]
    return report_on(examples, name, said, against, majority_of(data.train), seed)


def _advance(stage: Stage) -> OnBatch:
    return lambda done, count: stage.advance(done / count, f"{done} of {count}")


def _card(
    name: str,
    base: Path,
    base_files: dict[str, str],
    trained: Trained,
    data: JudgeData,
    report: JudgeReport,
    sources: Sources,
    settings: DistilSettings,
    seed: int,
) -> Card:
    return Card(
        name=name,
        base=str(base),
        base_files=base_files,
        files=file_hashes(trained.adapter),
        prompt_hash=PROMPT_HASH,
        rank=settings.lora_rank,
        modules=settings.lora_modules,
        seed=seed,
        settings=settings.model_dump(mode="json"),
        data=_data_card(data, sources, trained.result),
        against=report.against,
        figures={judge: figures_of(found) for judge, found in report.by_judge.items()},
    )


def _data_card(data: JudgeData, sources: Sources, result: DistilResult) -> dict[str, Any]:
    sides = {}
    for side, examples in (("train", data.train), ("held_out", data.held_out)):
        sides[side] = {
            "examples": len(examples),
            "turns": len({example.turn_key for example in examples}),
            "scenarios": len({example.scenario_hash for example in examples}),
            "base_rate": base_rate(examples),
            "sources": dict(Counter(f"{e.source.value} {e.judge}" for e in examples)),
        }
    return {
        "sources": asdict(sources),
        "digest": data.digest(),
        **sides,
        "left_out": dict(data.left_out),
        "too_long": result.too_long,
        "steps": result.steps,
        "tokens": result.tokens,
        "loss": result.loss,
        "seconds": result.seconds,
    }


def _unfinished(log: Log, home: Path, made_of: dict[str, Any], seed: int) -> str | None:
    """The newest run that made a judge of the same things and did not end well."""
    for run in reversed(list_runs(log)):
        if run.kind is RunKind.DISTIL and run.status is not JobStatus.DONE:
            if (judges_folder(home) / run.name).exists():
                # Killed between the judge's rename and the end of its run.
                finish_run(log, start_run(log, run.name, run.kind, None, run.seed, run.settings), JobStatus.DONE)
            elif run.seed == seed and canonical_json(run.settings) == canonical_json(made_of):
                return run.name
    return None


def _next_name(log: Log, home: Path) -> str:
    runs = [run.name for run in list_runs(log) if run.kind is RunKind.DISTIL]
    return next_judge_name([*runs, *judge_names(home)])
