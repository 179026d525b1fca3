"""Settings: every shipped file parses, unknown and contradictory ones are refused with the place."""

from pathlib import Path

import pytest

from store.settings import SettingsError, load_settings

JUDGE = 'base_url = "http://x/v1", model = "m"'
ELSEWHERE = JUDGE.replace("x", "y")
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("file", sorted(ROOT.glob("*.toml.example")) + sorted((ROOT / "examples").glob("*.toml")))
def test_every_shipped_settings_file_parses(file: Path) -> None:
    load_settings(file)


def test_something_is_shipped() -> None:
    assert sorted((ROOT / "examples").glob("*.toml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", "server.prot"),
        ("[server]\nport = 'x'", "server.port"),
        ("[gateway]\nport = 8100", "collides"),
        ("[rollout]\ngroup_size = 1", "rollout.group_size"),
        ("colour = 'red'", "colour"),
        ("[server\n", "not valid TOML"),
        ("[judging]\nmode = 'item'", r"\[judging\] says how an LLM judge is asked, but there is none"),
        (f"[judging]\npanel = [{{{JUDGE}}}]", "there is none"),
        (f"judge = {{{JUDGE}}}\n[judging]\nmode = 'chapter'", "judging.mode"),
        (f"judge = {{{JUDGE}}}\n[judging]\ndraws = 3", "temperature above 0"),
        (f"judge = {{{JUDGE}}}\n[judging]\npanel = [{{{JUDGE}}}]", "more than once: to ask it again set judging.draws"),
        (
            f"judge = {{{JUDGE}}}\n[judging]\npanel = [{{{ELSEWHERE}}}]",
            r"at http://x/v1 and http://y/v1 are both called 'm'.*give one of them a name",
        ),
        (f"judge = {{{JUDGE}}}\n[gate]\njudge = {{{ELSEWHERE}}}", r"are both called 'm'.*gate.judge.name"),
        (f"judge = {{{JUDGE}}}\n[judging]\ncombination = 'mean'", "gives a single vote"),
        (f"judge = {{{JUDGE}, max_usd = 1.0}}", r"price is not known: add \[prices"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "checkloop.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=said):
        load_settings(file)


def test_one_model_at_two_places_is_two_judges_by_name(tmp_path: Path) -> None:
    file = tmp_path / "checkloop.toml"
    file.write_text(f'judge = {{{JUDGE}}}\n[judging]\npanel = [{{{ELSEWHERE}, name = "m at y"}}]\n')
    settings = load_settings(file)
    assert settings.judge is not None
    assert [one.known_as for one in (settings.judge, *settings.judging.panel)] == ["m", "m at y"]


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checkloop.toml"
    file.write_text("[server]\nport = 9000\nmax_num_seqs = 8\n")
    monkeypatch.setenv("CHECKLOOP_SERVER__PORT", "9100")
    server = load_settings(file).server
    assert (server.port, server.max_num_seqs) == (9100, 8)


def test_an_unknown_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_SERVR__PORT", "1")
    with pytest.raises(SettingsError, match="CHECKLOOP_SERVR"):
        load_settings()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml")


def test_keys_come_from_the_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checkloop.toml"
    file.write_text('[judge]\nbase_url = "http://x/v1"\nmodel = "m"\napi_key = "secret"\n')
    with pytest.raises(SettingsError, match=r"judge\.api_key"):
        load_settings(file)
    file.write_text('[judge]\nbase_url = "http://x/v1"\nmodel = "m"\nkey_env = "MY_KEY"\n')
    monkeypatch.setenv("MY_KEY", "sesame")
    judge = load_settings(file).judge
    assert judge is not None and judge.api_key == "sesame"


def test_grpo_is_the_papers_unless_told_otherwise() -> None:
    """CM2's final runs: trajectories, F = 1, KL 1e-3 to the version before, weights cut at 2.0, veto at 1e-4."""
    grpo = load_settings().grpo
    assert (grpo.advantage, grpo.baseline, grpo.divide_by_std) == ("trajectory", "group", False)
    assert (grpo.kl, grpo.reference) == (1e-3, "parent")
    assert (grpo.correction, grpo.importance_cap, grpo.importance_veto) == ("token_truncate", 2.0, 1e-4)
    one_ratio = load_settings(grpo={"correction": "sequence_truncate"}).grpo
    assert one_ratio.kl == 0, "a penalty of tokens has no place there"
