"""Weights are written whole or not at all."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agent.proof import read_probe
from tests.tiny_model import load_tiny_model, write_tiny_model
from train.checkpoints import (
    COMPLETE,
    CheckpointError,
    check_files,
    file_hashes,
    load_state,
    move_into_place,
    newest_checkpoint,
    save_state,
    save_version,
    write_probe,
)

torch.set_num_threads(1)

ON_A_DISK_OF_64_KIB = """
import resource, sys, torch
from pathlib import Path
from tests.tiny_model import load_tiny_model
from train.checkpoints import CheckpointError, save_state, save_version
source, place = Path(sys.argv[1]), Path(sys.argv[2])
model = load_tiny_model(source)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
def version():
    save_version(model, source, place / "v1")
def state():
    save_state(model.state_dict(), place / "o.pt")
for write in (version, state):
    try:
        write()
    except CheckpointError as error:
        print("refused:", error)
"""


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "m")
    assert (source / "model.safetensors").stat().st_size > 65536
    place = tmp_path / "versions"
    place.mkdir()
    command = [sys.executable, "-c", ON_A_DISK_OF_64_KIB, str(source), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("refused:")]
    assert len(lines) == 2, done.stderr
    assert "could not write" in lines[0] and "v1" in lines[0] and "MiB free" in lines[0]
    assert "o.pt" in lines[1]
    assert list(place.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_version_keeps_tokenizer_and_template_and_drops_the_old_probe(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "m")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    write_probe(source, [[1, 2, 3]])
    files = save_version(load_tiny_model(source), source, tmp_path / "v1")
    assert files == file_hashes(tmp_path / "v1")
    assert {"chat_template.jinja", "tokenizer.json", "model.safetensors", "config.json"} <= files.keys()
    assert read_probe(tmp_path / "v1") is None


def test_damage_is_named(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "m")
    files = file_hashes(source)
    check_files(source, files)
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    (source / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"damaged: model\.safetensors, tokenizer\.json"):
        check_files(source, files)


def test_the_probe_holds_the_logprobs_of_the_version(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "m")
    prompts = [[5, 6, 7, 8], [9, 10]]
    write_probe(source, prompts)
    probe = read_probe(source)
    assert probe is not None
    assert [list(ids) for ids in probe.ids] == prompts
    model = load_tiny_model(source)
    for ids, logprobs in zip(prompts, probe.logprobs, strict=True):
        table = model(torch.tensor([ids])).logits[0].log_softmax(-1).detach()
        expected = [float(table[i - 1, ids[i]]) for i in range(1, len(ids))]
        assert list(logprobs) == pytest.approx(expected, abs=0.15)
    with pytest.raises(ValueError, match="at least two tokens"):
        write_probe(source, [[1]])


def test_moving_replaces_what_a_killed_try_left(tmp_path: Path) -> None:
    made = write_tiny_model(tmp_path / "made")
    hashes = file_hashes(made)
    target = tmp_path / "versions" / "v0003"
    target.mkdir(parents=True)
    (target / "half").write_text("x")
    move_into_place(made, target)
    assert file_hashes(target) == hashes
    assert not made.exists()
    with pytest.raises(CheckpointError, match="could not move"):
        move_into_place(tmp_path / "nothing", tmp_path / "versions" / "v0004")


def test_state_survives_and_damage_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "o.pt"
    save_state({"moments": torch.arange(4.0), "step": 3}, file)
    assert torch.equal(load_state(file)["moments"], torch.arange(4.0))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="could not read"):
        load_state(file)


def test_half_written_checkpoints_are_passed_over(tmp_path: Path) -> None:
    for step, complete in ((2, True), (10, True), (12, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert newest_checkpoint(tmp_path / "none") is None
