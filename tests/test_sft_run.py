"""A cold start from an SFT set: the gateway's ids, the best weights, a killed run, LoRA, special tokens, commands."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from agent.ports import free_ports
from agent.renderer_choice import load_renderer
from agent.rendering import Renderer
from agent.special_tokens import start_from_words
from checkloop import app
from env_sim.scenario_generator import generate_scenarios
from store.database import Log
from store.run_dialogues import page_of_run_dialogues
from store.runs import get_run, list_runs, metrics_of
from store.scenarios import add_scenarios
from store.settings import DataSettings, SettingsError, load_settings
from store.sft_sets import get_sft_set
from store.tokens import token_sequences
from store.training_settings import SftSettings
from store.versions import add_version, get_version, live_version, set_version_state
from store.vocabulary import JobStatus, Split, VersionState
from tests.faulty_vllm import faulty_servers, gateway_over
from tests.serving import MODEL
from tests.test_library_rendering import spans
from tests.test_sft import dialogues
from tests.tiny_model import load_tiny_model, write_small_base, write_tiny_model
from train.best_weights import Best
from train.checkpoints import check_files
from train.references import reference_messages
from train.scenario_filters import filter_scenarios
from train.sft import train_sft
from train.sft_dialogues import read_dialogues, render_dialogues
from train.sft_rollouts import settings_beside
from train.sft_run import with_special_tokens
from train.sft_set import make_set
from train.training_run import TrainingError

torch.set_num_threads(1)

SETTINGS = SftSettings(learning_rate=1e-2, epochs=3, batch_size=8, checkpoint_every=4, evaluate_every=2)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def test_the_ids_are_those_that_the_gateway_records_for_the_same_dialogue(
    renderer: Renderer, tmp_path: Path, sqlite_log: Log
) -> None:
    """A whole dialogue of a set, said by the policy through the real gateway: token for token what SFT trains on."""
    scenario = next(
        s
        for s in generate_scenarios(Split.TRAIN, 40, 3)
        if len(s.turns) > 1 and sum(len(t.reference) for t in s.turns) > 3
    )
    add_scenarios(sqlite_log, [scenario])
    filtered = filter_scenarios(sqlite_log, DataSettings())
    made = make_set(sqlite_log, tmp_path, filtered, {}, DataSettings(), lambda _: 1).set
    (example,), (used,), left_out = render_dialogues(read_dialogues(made), renderer, 10_000)
    assert not left_out and used == scenario.hash

    dialogue = reference_messages(scenario)
    tools: Any = [tool.as_openai() for tool in scenario.tools]
    port, server_port = free_ports()
    with faulty_servers() as (vllm,):
        settings = load_settings(
            home=tmp_path, database_url=sqlite_log.url, gateway={"port": port},
            server={"port": server_port, "urls": [vllm.url], "start_timeout_s": 5},
        )  # fmt: skip
        add_version(sqlite_log, "v0001", parent=None, path=str(MODEL), files={})
        set_version_state(sqlite_log, "v0001", VersionState.LIVE, "first")
        with gateway_over(sqlite_log, settings) as (address, _):
            vllm.spell = renderer.decode
            vllm.script = [sampled for _, sampled in spans(example.ids, example.loss_mask)]
            api = openai.OpenAI(base_url=f"{address}/sessions/s/v1", api_key="none", max_retries=0)
            sent: list[Any] = []
            waiting: list[Any] = []
            for message in dialogue:
                if message["role"] == "tool":
                    sent.append({**message, "tool_call_id": waiting.pop(0).id})
                elif message["role"] != "assistant":
                    sent.append(message)
                else:
                    said = api.chat.completions.create(model="policy", messages=sent, tools=tools).choices[0].message
                    assert (said.content or "") == message["content"]
                    waiting = list(said.tool_calls or ())
                    sent.append(said.model_dump(exclude_none=True))
    sequence = token_sequences(sqlite_log, ["s"])["s"]
    assert [*sequence.prompt_ids, *sequence.completion_ids] == example.ids
    assert [0] * len(sequence.prompt_ids) + [int(one) for one in sequence.sampled] == example.loss_mask


def test_the_best_weights_are_kept_not_the_last(model_dir: Path, tmp_path: Path) -> None:
    examples, held_out = dialogues(16), dialogues(4, seed=1)
    seen: dict[int, dict[str, float]] = {}
    train_sft(
        model_dir, tmp_path / "by-loss", examples, SETTINGS, 0, lambda step, _, metrics: seen.update({step: metrics}),
        validation=held_out, run_dir=tmp_path / "run",
    )  # fmt: skip
    assert [step for step, metrics in seen.items() if "validation_loss" in metrics] == [2, 4, 6]
    assert seen[6]["validation_loss"] < seen[4]["validation_loss"] < seen[2]["validation_loss"]
    trained = load_tiny_model(tmp_path / "by-loss")
    nats = count = 0.0
    for example in held_out:
        logprobs = trained(torch.tensor([example.ids])).logits[0].log_softmax(-1).detach()
        kept = [i for i, scored in enumerate(example.loss_mask) if scored]
        nats -= sum(float(logprobs[i - 1, example.ids[i]]) for i in kept)
        count += len(kept)
    assert seen[6]["validation_loss"] == pytest.approx(nats / count, rel=0.05)

    rewards = {2: 0.1, 4: 0.9, 6: 0.9}
    played: list[tuple[int, torch.Tensor]] = []

    def play(directory: Path, step: int) -> float:
        played.append((step, weights(directory)["model.norm.weight"]))
        return rewards[step]

    result = train_sft(
        model_dir, tmp_path / "by-reward", examples, SETTINGS, 0,
        validation=held_out, play=play, run_dir=tmp_path / "played", probe_ids=[[30, 31, 10]],
    )  # fmt: skip
    assert result.best is not None and (result.best.step, result.best.reward) == (4, 0.9)
    assert [step for step, _ in played] == [2, 4, 6]
    kept = weights(tmp_path / "by-reward")["model.norm.weight"]
    assert torch.equal(kept, played[1][1]) and not torch.equal(kept, played[2][1])
    check_files(tmp_path / "by-reward", result.files)

    again = train_sft(  # killed before the version was registered
        model_dir, tmp_path / "again", examples, SETTINGS, 0,
        validation=held_out, play=play, run_dir=tmp_path / "played", probe_ids=[[30, 31, 10]],
    )  # fmt: skip
    assert len(played) == 3 and (again.files, again.best) == (result.files, result.best)
    assert again.loss == pytest.approx(result.loss)


def test_weights_of_which_nothing_is_known_are_beaten_by_any(model_dir: Path, tmp_path: Path) -> None:
    """Nothing was scored at the first look: that is no reward, neither the best nor one to be written down."""
    rewards = {2: float("nan"), 4: 0.2, 6: 0.1}
    result = train_sft(
        model_dir, tmp_path / "made", dialogues(16), SETTINGS, 0,
        play=lambda _, step: rewards[step], run_dir=tmp_path / "run",
    )  # fmt: skip
    assert result.best == Best(4, None, 0.2)
    nothing = Best(2, None, None)
    assert not nothing.beats(Best(1, 0.5, None)) and Best(2, 0.5, None).beats(nothing) and not nothing.beats(nothing)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_killed_run_goes_on_with_the_same_result(model_dir: Path, tmp_path: Path, method: str) -> None:
    settings = SETTINGS.model_copy(update={"method": method, "lora_rank": 4})
    examples, held_out = dialogues(16), dialogues(2, seed=1)

    def run(out: str, on_step: Any = lambda *_: None) -> None:
        where = tmp_path / f"{out}-run"
        train_sft(model_dir, tmp_path / out, examples, settings, 3, on_step, validation=held_out, run_dir=where)

    run("whole")

    def kill_at(last: int) -> Any:
        def on_step(step: int, steps: int, metrics: dict[str, float]) -> None:
            if step == last:
                raise KeyboardInterrupt

        return on_step

    with pytest.raises(KeyboardInterrupt):
        run("cut", kill_at(5))
    steps: list[int] = []
    run("cut", lambda step, count, metrics: steps.append(step))
    assert steps == [5, 6], "it began where it was, not anew"
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys() == weights(model_dir).keys(), "full weights, an adapter is merged"
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert not torch.equal(whole["model.layers.0.self_attn.q_proj.weight"],
                           weights(model_dir)["model.layers.0.self_attn.q_proj.weight"])  # fmt: skip
    same = torch.equal(whole["model.embed_tokens.weight"], weights(model_dir)["model.embed_tokens.weight"])
    assert same == (method == "lora")
    with pytest.raises(TrainingError, match="need a run_dir"):
        train_sft(model_dir, tmp_path / "x", examples, settings, 3, validation=held_out)


def test_special_tokens_start_from_their_words(model_dir: Path, tmp_path: Path) -> None:
    words = {"<call>": ("w50", "w60"), "w30": ("w40",)}
    settings = load_settings(home=tmp_path, sft={"special_tokens": words})
    made = with_special_tokens(settings, model_dir)
    assert with_special_tokens(settings, model_dir) == made, "made once"
    assert [place.name for place in made.parent.iterdir()] == [made.name]
    tokenizer = AutoTokenizer.from_pretrained(made)
    table = load_tiny_model(made).get_input_embeddings().weight
    before = load_tiny_model(model_dir).get_input_embeddings().weight
    (token,) = tokenizer("<call>", add_special_tokens=False).input_ids
    assert token == len(before)
    assert torch.equal(table[token], (before[50] + before[60]) / 2)
    assert torch.equal(table[30], before[40]) and torch.equal(table[31], before[31])
    assert with_special_tokens(load_settings(home=tmp_path), model_dir) == model_dir
    with pytest.raises(ValueError, match="no words"):
        start_from_words(load_tiny_model(model_dir), tokenizer, {"<x>": ()})
    with pytest.raises(SettingsError, match="needs words"):
        load_settings(sft={"special_tokens": {"<x>": []}})


def test_rollouts_of_half_trained_weights_have_a_server_and_a_log_of_their_own(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", server={"urls": ["http://gpu:8000"], "max_loras": 2})
    beside = settings_beside(settings, tmp_path / "aside", tmp_path / "weights")
    assert beside.url != settings.url and str(tmp_path / "aside") in beside.url
    ports = {beside.gateway.port, beside.server.port, beside.server.port + 1}
    assert not ports & {settings.gateway.port, settings.server.port, settings.server.port + 1} and len(ports) == 3
    assert beside.server.urls == () and beside.model.source == str(tmp_path / "weights")


def test_the_commands_from_scenarios_to_a_version(
    sqlite_log: Log, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_small_base(model_dir, tmp_path / "base")
    train = generate_scenarios(Split.TRAIN, 4, 3)
    add_scenarios(sqlite_log, [*train, *generate_scenarios(Split.VALIDATION, 1, 3)])
    named = {"HOME": tmp_path / "home", "DATABASE_URL": sqlite_log.url, "MODEL__SOURCE": base, "SFT__EPOCHS": 1,
             "SFT__BATCH_SIZE": 4}  # fmt: skip
    for name, value in named.items():
        monkeypatch.setenv(f"CHECKLOOP_{name}", str(value))
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # else the command would start this process again
    runner = CliRunner()

    dry = runner.invoke(app, ["data", "--dry-run"], catch_exceptions=False)
    assert "5 of 5 scenarios would be taken; nothing was written" in dry.output
    made = runner.invoke(app, ["data"], catch_exceptions=False)
    assert "there is no compressor" in made.output
    assert "data-0001: 5 dialogues (4 of split train, 1 of split validation) of 5 scenarios" in made.output
    assert "the newest set holds the same already" in runner.invoke(app, ["data"], catch_exceptions=False).output
    assert "data-0001" in runner.invoke(app, ["data", "--list"], catch_exceptions=False).output

    first = runner.invoke(app, ["train", "sft"], catch_exceptions=False)
    assert "v0001 is live" in first.output and "validation loss" in first.output
    run = get_run(sqlite_log, "sft-0001")
    data = get_sft_set(sqlite_log)
    assert (run.status, run.settings["data"], run.settings["data_sha256"]) == (JobStatus.DONE, "data-0001", data.sha256)
    assert len(metrics_of(sqlite_log, run.id)["validation_loss"]) == 1
    used = {one.scenario_hash: one.split for one in page_of_run_dialogues(sqlite_log, run.id, limit=100)}
    assert {name for name, split in used.items() if split is Split.TRAIN} == {scenario.hash for scenario in train}
    assert list(used.values()).count(Split.VALIDATION) == 1
    version = get_version(sqlite_log, "v0001")
    assert (version.run_id, version.parent, version.figures["sft_set"]) == (run.id, None, "data-0001")
    check_files(Path(version.path), version.files)
    assert load_renderer(Path(version.path)).name == load_renderer(MODEL).name

    second = runner.invoke(app, ["train", "sft", "--base", "v0001", "--seed", "2"], catch_exceptions=False)
    assert "v0002 is a candidate" in second.output
    assert get_version(sqlite_log, "v0002").parent == "v0001"
    live = live_version(sqlite_log)
    assert live is not None and live.name == "v0001"
    assert [r.name for r in list_runs(sqlite_log)] == ["sft-0001", "sft-0002"]
    assert not list((tmp_path / "home" / "runs").iterdir())
    lines = Path(data.path).read_text().splitlines()
    assert {json.loads(line)["scenario"] for line in lines} >= {scenario.hash for scenario in train}
