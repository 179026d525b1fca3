"""Versions as a tree, and in which settings two runs differ: as functions, and on the training page."""

from datetime import UTC, datetime

from dashboard.lineage import Difference, branches, differences, newest_alike, shared
from dashboard.links import TRAINING
from store.database import Log
from store.figures import VersionFigures
from store.runs import RunRecord, start_run
from store.traffic import pin_version
from store.versions import add_version
from store.vocabulary import JobStatus, RunKind
from tests.pages import html, open_page

AT = datetime(2026, 11, 22, tzinfo=UTC)


def version(name: str, parent: str | None) -> VersionFigures:
    return VersionFigures(name, parent, None, "candidate", AT, "trained", {}, AT)


def run(name: str, seed: int = 7, kind: RunKind = RunKind.GRPO, **settings: object) -> RunRecord:
    return RunRecord(1, name, kind, "v0001", seed, settings, JobStatus.DONE, None, AT, AT)


def test_every_version_stands_below_its_parent_and_only_children_in_a_line() -> None:
    family = {
        "v1": None,
        "v2": "v1",
        "v3": "v2",
        "v4": "v2",
        "v5": "v3",
        "v6": "v4",
        "v7": "v6",
        "v8": "gone",
        "v9": "v6",
    }
    drawn = [one.lead + one.version.name for one in branches([version(*pair) for pair in family.items()])]
    assert drawn == ["v1", "v2", "├─ v3", "│  v5", "└─ v4", "   v6", "   ├─ v7", "   └─ v9", "v8"]


def test_a_thousand_rounds_are_no_staircase() -> None:
    line = [version(f"v{n}", f"v{n - 1}" if n else None) for n in range(1000)]
    assert [one.lead for one in branches(line)] == [""] * 1000


def test_only_what_differs_is_told_with_nested_names_and_exact_numbers() -> None:
    before = run("a", lr=1e-5, clip=0.2, lora={"rank": 8, "alpha": 16}, layers=["q", "k"], gone=True)
    after = run("b", seed=8, lr=1.0000001e-5, clip=0.2, lora={"rank": 16, "alpha": 16}, layers=["q"])
    assert differences(before, after) == [
        Difference("gone", "True", None),
        Difference("layers", "[q, k]", "[q]"),
        Difference("lora.rank", "8", "16"),
        Difference("lr", "1e-05", "1.0000001e-05"),
        Difference("seed", "7", "8"),
    ]
    assert shared(before, after) == 4  # clip, lora.alpha, kind, base version
    assert differences(before, before) == []


def test_runs_are_held_against_those_of_their_kind_where_there_are_any() -> None:
    start, first, small, second = run("s", kind=RunKind.SFT), run("1"), run("j", kind=RunKind.DISTIL), run("2")
    assert newest_alike([start, first, small, second]) == ("1", "2")
    assert newest_alike([start, first, second, small]) == ("1", "2")
    assert newest_alike([start, first, small]) == ("1", "j")


def test_the_page_shows_the_tree_the_pin_and_the_settings_of_two_runs(sample: Log) -> None:
    add_version(sample, "v0004", parent="v0002", path="v0004", files={})
    pin_version(sample, "v0004", "for the talk <b>")
    start_run(sample, "demo-round-9", RunKind.GRPO, "v0003", 7, {"learning_rate": 0.125, "new": {"deep": "<i>"}})
    app = open_page(TRAINING)
    now = [app.query_params[key] for key in ("run_a", "run_b")]
    assert now == [app.selectbox(key=key).value for key in ("run_a", "run_b")] == ["demo-round-2", "demo-round-9"]
    app = open_page(TRAINING, run_a="demo-round-2", run_b="demo-round-9")
    said = html(app)
    assert "├─ </span><b>v0003" in said and "└─ </span><b>v0004" in said
    assert 'title="for the talk &lt;b&gt;"' in said and "pinned" in said
    assert "<b>0.125</b>" in said and "new.deep" in said and "<b>&lt;i&gt;</b>" in said
    app.selectbox(key="run_b").set_value("demo-round-2").run()
    assert "are alike" in html(app)
