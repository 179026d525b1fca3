"""The dashboard's pages as a test sees them, and a dialogue in which everything is hostile."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from streamlit import config
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from dashboard import counting
from dashboard.links import OVERVIEW, PageSpec
from store.database import Log
from store.scenarios import add_scenarios, item_ids
from store.trajectories import (
    NewTrajectory,
    StepToRecord,
    ToolAnswer,
    create_trajectories,
    list_trajectories,
    record_step,
    record_tool_answers,
)
from store.verdicts import Verdict, add_verdicts
from store.vocabulary import Origin, Outcome, Split, ToolSource, VerdictSource
from tests.sample_log import DOMAINS, scenario_of

APP = Path(__file__).parent.parent / "dashboard" / "app.py"
HOSTILE = (
    '<script>alert("x")</script><img src=x onerror=alert(1)> ![p](http://evil.test/p.png) [l](http://evil.test) # h'
)
WORSE = HOSTILE + (
    " <svg onload=alert(1)> <a href=javascript:alert(1)>j</a> </div></code><iframe src=//evil.test> http://evil.test/a"
    " $\\href{http://evil.test}{x}$ :material/delete: :red[r] :streamlit: `c` **b** ~~s~~ | t |"
    " \u202eesrever\u2066 \x1b[31mred\x07 a\u200bb " + "W" * 30_000
)
"""The same, with what Streamlit's Markdown knows beyond, text that cannot be seen or turns its direction, and a line
without an end."""

# Every AppTest looks through all packages that are installed, for half a second of a core each time.
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)
counting.PATIENCE_S = 60.0  # tests look at the figures of now, however busy the machine is


def open_page(page: PageSpec, /, user: Mapping[str, object] | None = None, **query: str | list[str]) -> AppTest:
    """`user`: what `st.user` says; None: nobody signs in here."""
    # As dashboard/.streamlit/config.toml has it, which AppTest does not read.
    config.set_option("runner.magicEnabled", False)
    config.set_option("server.address", "127.0.0.1")
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.user = dict(user or {})
    if page is not OVERVIEW:
        app._page_hash = calc_hash(page.path)  # as `switch_page` finds it, but only once the overview has been run
    app.query_params.update(query)
    app.run()
    assert not app.exception
    return app


def html(app: AppTest) -> str:
    """What the pages' own HTML says, without the style sheet."""
    return "\n".join(element.value for element in app.html if "<style>" not in element.value)


def shown(app: AppTest) -> str:
    """Everything a reader can read."""
    parts = [html(app)]
    for kind in ("title", "subheader", "markdown", "caption", "text", "code", "error", "info", "warning"):
        parts += [str(element.value) for element in app.get(kind)]
    parts += [f"{metric.label}: {metric.value} {metric.delta}" for metric in app.metric]
    parts += [frame.value.to_string() for frame in app.dataframe]
    return "\n".join(parts)


def ids(log: Log, **wanted: str) -> list[str]:
    return [summary.id for summary in list_trajectories(log, limit=10_000, **wanted)]


def hostile_trajectory(
    log: Log, name: str = "hostile", origin: Origin = Origin.CHAT, version: str = "v0003", text: str = HOSTILE
) -> str:
    """A dialogue in which everything that a model, tool, user or judge can write is `text`."""
    scenario = scenario_of(DOMAINS[0], 4711, Split.TRAIN)
    scenario = scenario.model_copy(
        update={
            "turns": (
                scenario.turns[0].model_copy(
                    update={
                        "checklist": tuple(
                            item.model_copy(update={"question": text}) for item in scenario.turns[0].checklist
                        )
                    }
                ),
            )
        }
    )
    add_scenarios(log, [scenario])
    new = NewTrajectory(id=name, origin=origin, scenario_hash=scenario.hash, version=version, title=text[:200])
    create_trajectories(log, [new])
    call_text = {"id": "c1", "name": "search_trains", "arguments": text}
    for index, message in enumerate(
        (
            {"content": "", "reasoning": text, "tool_calls": [call_text]},
            {"content": text, "reasoning": text, "tool_calls": []},
        )
    ):
        step = StepToRecord(
            trajectory_id=name,
            turn_index=0,
            index=index,
            parent_id=None,
            user=text,
            version=version,
            new_messages=[],
            tools_hash=None,
            message=message,
            delta_ids=[1, 2, 3],
            sampled_ids=[4],
            logprobs=[-0.1],
            context_tokens=3,
            finish_reason="stop" if index else "tool_calls",
            latency_ms=1.0,
            sampling={},
        )
        record_step(log, step)
    record_tool_answers(log, name, [ToolAnswer("c1", text, True, ToolSource.WORLD, 1.0)])
    verdicts = [
        Verdict(name, 0, item, key, Outcome.FAIL, None, VerdictSource.LLM, text[:128], None, text, text)
        for (turn, key), item in item_ids(log, scenario.hash).items()
    ]
    add_verdicts(log, verdicts)
    return name
