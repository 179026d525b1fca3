"""All that a model, tool, user or judge can write is hostile: every page shows it as text, and nothing happens."""

from datetime import UTC, datetime
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from agent.ports import free_port
from dashboard.links import (
    CHAT,
    COMPARE,
    ITEMS,
    JOBS,
    JUDGES,
    OVERVIEW,
    PEOPLE,
    REVIEW,
    SCENARIOS,
    TRAINING,
    TRAJECTORIES,
    PageSpec,
)
from dashboard.text import LONGEST, escape, escape_markdown, visible
from store.access import add_person
from store.database import Log
from store.job_log import add_lines
from store.leases import end_job
from store.runs import add_metrics, finish_run, start_run
from store.scenarios import add_scenarios, load_scenarios
from store.stages import fail_stage, open_loop, start_stage
from store.traffic import pin_version
from store.trajectories import end_trajectory
from store.verdicts import Reward, add_rewards
from store.versions import add_gate_decision, add_version
from store.vocabulary import AccessRole, ExitReason, Origin, RunKind, StopReason
from tests.job_examples import submit, take
from tests.pages import WORSE, hostile_trajectory, html, open_page
from tests.store_examples import start

UNSEEN = "\u202e\u2066\u200b\x1b\x07"
MARKDOWN = (
    "title", "header", "subheader", "markdown", "caption", "error", "info", "warning", "success", "toast", "metric",
    "button", "selectbox", "multiselect", "text_input", "text_area", "slider", "checkbox", "expander", "button_group",
    "popover", "number_input", "radio", "tab", "link_button", "page_link", "alert",
)  # fmt: skip
"""What renders Markdown in its body, label or help."""


@pytest.fixture(autouse=True)
def nobody_at_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))


def poison(log: Log) -> int:
    """Hostile text wherever the log takes any; the number of the job that has some, too."""
    hostile_trajectory(log, text=WORSE)
    for version in ("v0001", "v0003"):
        name = hostile_trajectory(log, f"played-{version}", Origin.EVALUATION, version, WORSE)
        end_trajectory(log, name, StopReason.COMPLETED)
        add_rewards(log, [Reward(name, float(version == "v0001"), (0.0,), False, 0)])
    batch = "batch ![i](http://evil.test/i) \u202e\u200b"
    tested, *_ = load_scenarios(log, split="test")
    start(log, "tested-0", "tested-1", scenario=tested, origin=Origin.EVALUATION, version="v0003", batch=batch)
    add_rewards(log, [Reward(f"tested-{n}", 0.5, (0.5,), False, 0) for n in range(2)])
    add_scenarios(log, [tested.model_copy(update={"name": WORSE, "source": "s\u202e![i](http://evil.test/i)"})])
    add_person(log, "![i](http://evil.test/i)<script>alert(1)</script>", AccessRole.OPERATOR, given_by=WORSE[:120])
    run = start_run(log, "hostile <b>run</b> ![i](http://evil.test/i)", RunKind.GRPO, "v0003", 7, {WORSE[:900]: WORSE})
    add_metrics(log, run, 1, {"<img src=x onerror=alert(1)>": 1.0, "reward_mean": 0.5})
    finish_run(log, run, "failed", WORSE)
    add_version(log, "v0009", parent="v0003", path="v0009", files={}, figures={WORSE[:99]: WORSE}, reason=WORSE)
    pin_version(log, "v0009", WORSE)
    add_gate_decision(log, "v0009", "v0003", False, {"note": WORSE}, WORSE)
    loop = "loop ![i](http://evil.test/i)"
    open_loop(log, loop, 1, {})
    start_stage(log, loop, "play")
    fail_stage(log, loop, "play", WORSE)
    (job,) = submit(log, "prune")
    taken = take(log)
    add_lines(log, taken, [(datetime(2026, 11, 20, 12, 1, tzinfo=UTC), WORSE)])
    end_job(log, taken, ExitReason.CRASHED, error=WORSE)
    return job


def rendered(app: AppTest) -> list[tuple[str, str]]:
    """Every string that the browser would render as Markdown, with what it belongs to."""
    found = []
    for kind in MARKDOWN:
        for element in app.get(kind):
            found += [(kind, text) for text in _strings(element.proto)]
    return found


def _strings(proto: Any) -> list[str]:
    if proto is None or not hasattr(proto, "ListFields"):
        return []
    texts = []
    for field, value in proto.ListFields():
        if field.name in {"body", "label", "help", "delta", "text", "caption"} and isinstance(value, str):
            texts.append(value)
    return texts


PAGES: tuple[tuple[PageSpec, dict[str, str], bool], ...] = (
    (OVERVIEW, {}, True),
    (TRAJECTORIES, {}, False),
    (TRAJECTORIES, {"trajectory": "hostile"}, True),
    (REVIEW, {"turn": "hostile:0"}, True),
    (COMPARE, {}, False),
    (COMPARE, {"scenario": "HASH"}, True),
    (ITEMS, {}, False),
    (JUDGES, {}, False),
    (TRAINING, {"run_b": "hostile <b>run</b> ![i](http://evil.test/i)"}, True),
    (JOBS, {}, False),
    (JOBS, {"job": "JOB"}, True),
    (CHAT, {"session": "hostile"}, True),
    (SCENARIOS, {}, False),
    (SCENARIOS, {"opened": "HASH", "edit": "true"}, True),
    (PEOPLE, {}, True),
)
"""Page, its address, and whether its own HTML has to say the hostile text."""


@pytest.mark.parametrize(("page", "query", "says"), PAGES, ids=lambda value: getattr(value, "path", ""))
def test_hostile_text_is_text_on_every_page(page: PageSpec, query: dict[str, str], says: bool, sample: Log) -> None:
    job = poison(sample)
    with sample.lookup() as connection:
        hashed = connection.exec_driver_sql("SELECT scenario_hash FROM trajectory WHERE id = 'hostile'").scalar()
    app = open_page(
        page, **{name: {"JOB": str(job), "HASH": str(hashed)}.get(value, value) for name, value in query.items()}
    )
    said = html(app)
    assert not app.error or "hostile" not in str(app.error[0].value)
    for tag in ("<script", "<img", "<svg", "<iframe", "<a href=javascript", 'javascript:alert(1)"'):
        assert tag not in said
    assert ("&lt;script&gt;" in said) is says or said.count("&lt;script&gt;") > 0
    assert max(map(len, said.split("&lt;script&gt;"))) < 60_000, "a line without an end is cut"
    assert not set(UNSEEN) & set(said), "what cannot be seen is made visible"
    for frame in app.dataframe:
        assert not set(UNSEEN) & set(frame.value.to_string())
    for kind, text in rendered(app):
        assert not set(UNSEEN) & set(text), (kind, text[:200])
        for live in ("![", "](http", "<img", "<script", ":material/delete:", "$\\href"):
            assert live not in text, (kind, text[:200])


def test_text_that_cannot_be_seen_is_shown() -> None:
    assert visible("a\u202eb\x1bc\u200bd\ne\tf") == "a<U+202E>b\u241bc<U+200B>d\ne\tf"
    assert escape("\u202e<") == "&lt;U+202E&gt;&lt;"
    assert visible("x" * (LONGEST + 7)).endswith("… (7 more characters)")


def test_markdown_is_taken_out_of_messages() -> None:
    said = escape_markdown("![p](http://evil.test) $x$ :material/delete: <img> **b** \u202e")
    assert said == (r"\!\[p\]\(http\://evil\.test\) \$x\$ \:material/delete\: \<img\> \*\*b\*\* \<U\+202E\>")
