"""Distilling: the packed loss is the plain one, a handful is learnt by heart, a killed run goes on, no half judges."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import checkloop
from store.database import Log, LogError
from store.run_dialogues import page_of_run_dialogues
from store.runs import get_run, list_runs, metrics_of
from store.settings import Settings, load_settings
from store.training_settings import DistilSettings
from store.versions import add_version, set_version_state
from store.vocabulary import JobStatus, Outcome, RunKind, Split, VersionState
from tests.distil_log import CITIES, a_card, city_log, write_small_model
from train import distil_run
from train.checkpoints import CheckpointError, file_hashes
from train.distil import train_judge
from train.distil_run import Distilled, distil_judge
from train.errors import TrainingFailed
from train.judge_batches import collate, make_families, tokenize_example
from train.judge_examples import JudgeExample, Sources, class_weights, gather_examples
from train.judge_files import SavedJudge, judge_names, read_judge, write_card
from train.judge_generation import GreedyJudge
from train.judge_report import MAJORITY, figures_of
from train.judge_serving import check_base, judge_section, own_server_settings, why_not_beside
from train.packed import token_logprobs
from train.progress import StageProgress
from train.training_run import TrainingError, load_policy

torch.set_num_threads(1)

SMALL = {"lora_layers": 0, "batch_turns": 4, "epochs": 2, "learning_rate": 1e-2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("models") / "small")


def some_examples(log: Log, cities: Sequence[str] = CITIES) -> list[JudgeExample]:
    city_log(log, cities)
    data = gather_examples(log, Sources(), seed=1, max_train=99, max_held_out=99, held_out_share=0.3)
    return data.train


def test_the_packed_loss_is_the_weighted_loss_of_each_example_alone(sqlite_log: Log, model_dir: Path) -> None:
    """FAIL is rarer here, so it weighs more; so does the verdict."""
    examples = some_examples(sqlite_log)
    del examples[1]
    weights = class_weights(examples)
    model, tokenizer = load_policy(model_dir)
    families, _ = make_families(examples, tokenizer, 1024, weights)
    assert len(families) < len(examples), "the items of a turn share its tokens"
    losses = []
    for micro in collate(families)["micro_batches"]:
        logprobs, _ = token_logprobs(model, micro.row, micro.sources, micro.targets)
        losses.append((-(logprobs * micro.weights).sum(), micro.weights.sum()))
    packed = sum(loss for loss, _ in losses) / sum(weight for _, weight in losses)

    plain = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    total = weight = 0.0
    for example in examples:
        tokenized = tokenize_example(example, tokenizer)
        ids = [*tokenized.question, *tokenized.answer]
        logprobs = plain(torch.tensor([ids])).logits[0].log_softmax(-1).detach()
        first = len(tokenized.question)
        nats = [-float(logprobs[first + i - 1, token]) for i, token in enumerate(tokenized.answer)]
        total += weights[example.outcome] * sum(w * n for w, n in zip(tokenized.weights, nats, strict=True))
        weight += weights[example.outcome] * sum(tokenized.weights)
        heavy = [tokenizer.decode([t]) for t, w in zip(tokenized.answer, tokenized.weights, strict=True) if w > 1]
        assert "".join(heavy) == example.outcome.value
    assert packed.item() == pytest.approx(total / weight, rel=1e-4)


def test_a_handful_is_learnt_by_heart_and_said_under_the_grammar(
    sqlite_log: Log, model_dir: Path, tmp_path: Path
) -> None:
    examples = some_examples(sqlite_log)[:4]
    assert {example.outcome for example in examples} == {Outcome.PASS, Outcome.FAIL}
    losses: list[float] = []
    settings = DistilSettings(**SMALL | {"epochs": 60, "lora_rank": 64, "checkpoint_every": 1000})
    run, out = tmp_path / "run", tmp_path / "adapter"
    train_judge(model_dir, out, examples, settings, 1, lambda s, n, m: losses.append(m["loss"]), run_dir=run)
    assert losses[0] > 5 > 0.1 > losses[-1]
    assert sorted(path.name for path in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert {tensor.dtype for tensor in load_file(out / "adapter_model.safetensors").values()} == {torch.float32}
    verdicts = GreedyJudge(model_dir, out).judge(examples)
    assert [verdict.outcome for verdict in verdicts] == [example.outcome for example in examples]


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_with_the_same_result(sqlite_log: Log, model_dir: Path, tmp_path: Path) -> None:
    examples = some_examples(sqlite_log)
    settings = DistilSettings(**SMALL)
    whole = train_judge(model_dir, tmp_path / "whole", examples, settings, 1, run_dir=tmp_path / "run-whole")
    steps: list[int] = []

    def kill(step: int, count: int, metrics: dict[str, float]) -> None:
        steps.append(step)
        if step == 5:
            raise Killed

    again = {"run_dir": tmp_path / "run"}
    with pytest.raises(Killed):
        train_judge(model_dir, tmp_path / "cut", examples, settings, 1, kill, **again)
    assert not (tmp_path / "cut").exists()
    with pytest.raises(TrainingError, match="other data, settings, seed or start"):
        train_judge(model_dir, tmp_path / "cut", examples[1:], settings, 1, **again)
    cut = train_judge(model_dir, tmp_path / "cut", examples, settings, 1, lambda s, n, m: steps.append(s), **again)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-3), "of the last epoch, whichever steps came before the kill"
    assert steps == [1, 2, 3, 4, 5, *range(5, whole.steps + 1)] and not (tmp_path / "run").exists()
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert all(torch.allclose(one[key], other[key], atol=1e-5) for key in one)


def test_the_loss_is_known_of_a_training_killed_after_its_last_step(
    sqlite_log: Log, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, settings, seen = some_examples(sqlite_log), DistilSettings(**SMALL), list[float]()

    def killed(path: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("train.distil.new_directory", killed)
        train_judge(
            model_dir, tmp_path / "out", examples, settings, 1, lambda s, n, m: seen.append(m["loss"]),
            run_dir=tmp_path / "run",
        )  # fmt: skip
    result = train_judge(model_dir, tmp_path / "out", examples, settings, 1, run_dir=tmp_path / "run")
    last = seen[-(result.steps // 2) :]
    assert result.loss == pytest.approx(sum(last) / len(last))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_modules": ("q_proj", "wqkv")}, r"names wqkv, which .* does not have: it has down_proj, gate_proj"),
        ({"lora_layers": 3}, "has 2 layers: set it to 0"),
        ({"max_tokens": 128}, "none of 8 examples has at most 128 tokens"),
    ],
)
def test_a_training_that_cannot_be_is_refused(
    sqlite_log: Log, model_dir: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    settings = DistilSettings.model_validate(SMALL | changes)
    with pytest.raises(TrainingError, match=message):
        train_judge(model_dir, tmp_path / "a", some_examples(sqlite_log)[:8], settings, 1, run_dir=tmp_path / "run")
    assert not (tmp_path / "a").exists()


def make(log: Log, settings: Settings, name: str = "", seed: int = 1) -> Distilled:
    return distil_judge(log, settings, Sources(), name=name, seed=seed, progress=StageProgress({}))


def small_settings(home: Path, model_dir: Path) -> Settings:
    return load_settings(home=home, distil=SMALL | {"base": str(model_dir), "held_out_share": 0.3})


def test_a_judge_is_made_whole_recorded_and_refused_once_damaged(
    sqlite_log: Log, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the held-out questions are asked: the same command asks them again and trains nothing twice."""
    city_log(sqlite_log)
    home = tmp_path / "home"
    settings = small_settings(home, model_dir)

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(distil_run, "report_on", kill)
        with pytest.raises(Killed):
            make(sqlite_log, settings)
    assert judge_names(home) == [] and get_run(sqlite_log, "judge-0001").status is JobStatus.FAILED
    with monkeypatch.context() as patched:
        patched.setattr(distil_run, "train_judge", kill)
        made = make(sqlite_log, settings)

    assert [path.name for path in (home / "judges").iterdir()] == ["judge-0001"]
    card = made.judge.card
    run = get_run(sqlite_log, "judge-0001")
    metrics = metrics_of(sqlite_log, run.id)
    assert (run.kind, run.status) == (RunKind.DISTIL, JobStatus.DONE)
    assert [step for step, _ in metrics["loss"]] == list(range(1, made.result.steps + 1))
    assert metrics["held_out_pairs"][0][1] + metrics["held_out_unscored"][0][1] == card.data["held_out"]["examples"]
    assert card.figures["judge-0001"] == figures_of(made.report.by_judge["judge-0001"])
    assert made.report.by_judge[f"{MAJORITY} (PASS)"].kappa.value == 0.0
    listed = page_of_run_dialogues(sqlite_log, run.id, limit=1000)
    used = {split: {one.scenario_hash for one in listed if one.split is split} for split in Split}
    assert used[Split.TRAIN] == {example.scenario_hash for example in made.data.train}
    assert used[Split.VALIDATION] == {example.scenario_hash for example in made.data.held_out}
    assert card.against == f"checks ({len(made.data.held_out)})"

    with pytest.raises(TrainingFailed, match="judge-0001 is there already"):
        make(sqlite_log, settings, "judge-0001")
    with pytest.raises(TrainingFailed, match="'best' is no name for a judge"):
        make(sqlite_log, settings, "best")
    with pytest.raises(TrainingFailed, match=r"there is no judge 'judge-0007'.*there are judge-0001"):
        read_judge(home, "judge-0007")
    (made.judge.path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors missing or changed"):
        read_judge(home, "judge-0001")


def test_an_unfinished_run_is_not_gone_on_with_on_other_data(
    sqlite_log: Log, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    city_log(sqlite_log)
    settings = small_settings(tmp_path / "home", model_dir)

    def kill(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(distil_run, "train_judge", kill)
    with pytest.raises(Killed):
        make(sqlite_log, settings)
    with pytest.raises(LogError, match="run 'judge-0001' was started with another seed, settings"):
        make(sqlite_log, settings, "judge-0001", seed=2)
    with pytest.raises(Killed):
        make(sqlite_log, settings, seed=2)
    with pytest.raises(Killed):
        make(sqlite_log, settings)
    assert [(run.name, run.seed) for run in list_runs(sqlite_log)] == [("judge-0001", 1), ("judge-0002", 2)]

    # A kill after the judge had its name, before its run had its end.
    (settings.home / "judges" / "judge-0002").mkdir(parents=True)
    with pytest.raises(Killed):
        make(sqlite_log, settings, seed=2)
    states = {run.name: run.status.value for run in list_runs(sqlite_log)}
    assert states == {"judge-0001": "failed", "judge-0002": "done", "judge-0003": "failed"}


def test_a_judge_stands_beside_the_policy_only_on_the_weights_that_it_was_trained_on(
    sqlite_log: Log, model_dir: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    judge = written_judge(home, model_dir)
    assert 'model = "judge-0001"' in judge_section(judge, "http://h") and 'mode = "small"' in judge_section(judge, "h")

    def why(**server: object) -> str | None:
        settings = load_settings(home=home, server={"max_loras": 3, **server})
        return why_not_beside(sqlite_log, settings, judge)

    assert "the judge a third" in str(why(max_loras=2))
    assert "no version is live" in str(why())
    version(sqlite_log, "v0001", None, model_dir)
    set_version_state(sqlite_log, "v0001", VersionState.LIVE, "first")
    assert "v0001 is full weights: the next promotion replaces" in str(why())
    (tmp_path / "v0002").mkdir()
    (tmp_path / "v0002" / "adapter_config.json").write_text("{}")
    version(sqlite_log, "v0002", "v0001", tmp_path / "v0002")
    set_version_state(sqlite_log, "v0002", VersionState.LIVE, "better")
    assert why() is None
    assert "rank is 16, and server.max_lora_rank is 8" in str(why(max_lora_rank=8))
    assert "changes down_proj, gate_proj" in str(why(lora_modules=("q_proj", "k_proj", "v_proj")))

    own = own_server_settings(load_settings(home=home).server, judge)
    assert (own.max_loras, own.max_lora_rank) == (1, 16)
    assert {"q_proj", "qkv_proj", "gate_up_proj", "down_proj"} <= set(own.lora_modules)

    assert check_base(judge) == model_dir.resolve()
    other = write_small_model(tmp_path / "other", seed=1)
    moved = written_judge(home, model_dir, base=other, name="judge-0002")
    with pytest.raises(TrainingFailed, match="not those that judge-0002 was trained on"):
        check_base(moved)


def written_judge(home: Path, model_dir: Path, *, base: Path | None = None, name: str = "judge-0001") -> SavedJudge:
    """A judge whose card says that it was trained on the weights of `model_dir`, in the directory `base`."""
    place = home / "judges" / name
    place.mkdir(parents=True)
    settings = DistilSettings()
    card = a_card(name, model_dir, rank=settings.lora_rank, modules=settings.lora_modules)
    write_card(place, card.model_copy(update={"base": str((base or model_dir).resolve())}))
    return read_judge(home, name)


def version(log: Log, name: str, parent: str | None, path: Path) -> None:
    add_version(log, name, parent=parent, path=str(path), files=file_hashes(path))


def test_the_commands_say_what_is_missing(
    sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_log.engine.url.render_as_string())
    monkeypatch.setenv("CHECKLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CHECKLOOP_DISTIL__BASE", str(write_small_model(tmp_path / "model")))
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.setattr("checkloop._stop_in_order", lambda: None)
    for arguments, message in (
        (("distil",), "0 PASS and 0 FAIL are on the training side"),
        (("distil", "--no-people", "--no-checks"), "nobody is named to learn from"),
        (("serve", "judge-0001"), "there is no judge 'judge-0001'"),
    ):
        monkeypatch.setattr("sys.argv", ["checkloop", "judge", *arguments])
        with pytest.raises(SystemExit) as ended:
            checkloop.main()
        assert ended.value.code == 1 and message in capsys.readouterr().err
    assert list_runs(sqlite_log) == [] and not (tmp_path / "home" / "judges").exists()
