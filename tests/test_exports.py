"""Finding and exporting trajectories: every format is read back, every filter leaves what it says."""

import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from checkloop import app
from dashboard.links import TRAJECTORIES
from store import exports
from store.browsing import count_trajectories, neighbours, page_of_trajectories
from store.database import Log
from store.exports import ExportFormat, export_trajectories
from store.scenarios import add_scenarios
from store.tokens import token_sequences
from store.trajectories import (
    NewTrajectory,
    StepToRecord,
    ToolAnswer,
    create_trajectories,
    end_trajectory,
    get_trajectory,
    record_step,
    record_tool_answers,
)
from store.trajectory_filters import TrajectoryFilter, TrajectoryOrder
from store.turns import get_turns
from store.verdicts import Reward, add_rewards, rewards_of
from store.vocabulary import Origin, Split, ToolSource
from tests.pages import open_page
from tests.sample_log import DOMAINS, scenario_of

SAID = "Zürich 100 % \"quoted\" 'x' \\ <b>"
"""What a text search and three formats have to carry unharmed."""


def dialogue(log: Log, name: str, *, tool: str, said: str, answer: str, reward: float | None, scenario: str) -> None:
    create_trajectories(log, [NewTrajectory(name, Origin.ROLLOUT, scenario, version="v0001")])
    call = {"id": "c1", "name": tool, "arguments": json.dumps({"q": said})}
    first = record_step(log, _step(name, None, [{"role": "user", "content": said}], {"tool_calls": [call]}))
    record_tool_answers(log, name, [ToolAnswer("c1", answer, False, ToolSource.WORLD, 1.0)])
    heard = [{"role": "tool", "tool_call_id": "c1", "content": answer}]
    record_step(log, _step(name, first, heard, {"content": f"Done, {said}", "reasoning": "a secret thought"}))
    end_trajectory(log, name, "completed")
    if reward is not None:
        add_rewards(log, [Reward(name, value, (value,), None, 0) for value in (1 - reward, reward)])


def _step(name: str, parent: int | None, new: list[dict[str, Any]], message: dict[str, Any]) -> StepToRecord:
    return StepToRecord(
        trajectory_id=name,
        turn_index=0,
        index=0 if parent is None else 1,
        parent_id=parent,
        user=str(new[0]["content"]),
        version="v0001",
        new_messages=new,
        tools_hash=None,
        message=message,
        delta_ids=[1, 2, 3],
        sampled_ids=[4, 5],
        logprobs=[-0.5, -0.25],
        context_tokens=3 if parent is None else 8,
        finish_reason="stop" if parent else "tool_calls",
        latency_ms=1.0,
        sampling={},
    )


@pytest.fixture
def played(log: Log) -> Log:
    """Four dialogues, `a` the oldest; the rewards of `a`, `b`, `c` are 0.9, 0.2, 0.2, that of `d` unknown."""
    scenario = scenario_of(DOMAINS[0], 1, Split.TRAIN)
    add_scenarios(log, [scenario])
    for name, tool, said, answer, reward in (
        ("a", "book_seat", SAID, "seat 14A", 0.9),
        ("b", "search_trains", "to Porto", "AP-131", 0.2),
        ("c", "search_trains", "to Faro", "nothing", 0.2),
        ("d", "book_seat", "any_seat", "100", None),
    ):
        dialogue(log, name, tool=tool, said=said, answer=answer, reward=reward, scenario=scenario.hash)
    return log


def found(log: Log, order: TrajectoryOrder = TrajectoryOrder.NEWEST, **wanted: Any) -> str:
    chosen = TrajectoryFilter(**wanted)
    listed = [row.id for row in page_of_trajectories(log, chosen, limit=10, offset=0, order=order)]
    assert count_trajectories(log, chosen, order) == len(listed)
    return "".join(listed)


def test_text_tool_scenario_and_time_are_looked_for(played: Log) -> None:
    assert found(played, text="ZüRICH 100 %") == "a"  # % is a character
    assert found(played, text='"quoted"') == "a"
    assert found(played, text="ap-131") == "b"  # a tool said it
    assert found(played, text="SECRET thought") == "dcba"  # the policy thought it
    assert found(played, text="any_seat") == "d" and found(played, text="anyxseat") == ""
    assert found(played, text="tool_calls") == ""  # a word of the log's own form
    assert found(played, tool="search_trains") == "cb" and found(played, tool="search_train") == ""
    assert found(played, scenario="travel-TRAIN") == "dcba" and found(played, scenario="shop") == ""
    digest = str(get_trajectory(played, "a").scenario_hash)
    assert found(played, scenario=digest[:9]) == "dcba"
    began = get_trajectory(played, "c").created_at
    assert found(played, since=began) == "dc" and found(played, until=began) == "ba"
    assert found(played, since=began + timedelta(days=1)) == ""


def test_text_is_looked_for_in_the_newest_dialogues_alone(played: Log) -> None:
    assert found(played, text="to", tool="search_trains", searched=1) == "c"
    assert found(played, text="to", tool="search_trains", searched=None) == "cb"
    assert found(played, text="Zürich", searched=3) == ""


def test_every_order_is_paged_and_walked_alike(played: Log) -> None:
    for order, expected in (
        (TrajectoryOrder.NEWEST, "dcba"),
        (TrajectoryOrder.OLDEST, "abcd"),
        (TrajectoryOrder.LOWEST, "bca"),
        (TrajectoryOrder.HIGHEST, "acb"),
    ):
        assert found(played, order) == expected
        paged = [page_of_trajectories(played, TrajectoryFilter(), limit=1, offset=n, order=order)[0].id for n in (0, 1)]
        assert "".join(paged) == expected[:2]
        assert neighbours(played, TrajectoryFilter(), expected[1], order) == (expected[0], expected[2])
    assert neighbours(played, TrajectoryFilter(), "d", TrajectoryOrder.LOWEST) == (None, None)


def exported(log: Log, form: ExportFormat, **options: Any) -> bytes:
    sink = io.BytesIO()
    done = export_trajectories(log, TrajectoryFilter(**options.pop("wanted", {})), form, sink, **options)
    assert done.left_out == 0
    return sink.getvalue()


def test_json_lines_are_read_back_with_all_that_the_log_holds(played: Log) -> None:
    parts: list[tuple[int, int]] = []
    options = {"wanted": {"tool": "book_seat"}, "tokens": True, "on_part": lambda *part: parts.append(part)}
    newest, line = map(json.loads, exported(played, ExportFormat.JSONL, **options).splitlines())
    assert parts == [(2, 2)]
    assert newest["reward"] is None
    summary, turns = get_trajectory(played, "a"), get_turns(played, "a")
    assert line["id"] == "a" and line["created_at"] == summary.created_at.isoformat()
    assert [{**turn, "trajectory_id": "a"} for turn in line["turns"]] == [t.model_dump(mode="json") for t in turns]
    assert line["reward"]["value"] == rewards_of(played, ["a"])["a"].value == 0.9
    tokens = token_sequences(played, ["a"])["a"]
    assert line["tokens"]["completion_ids"] == tokens.completion_ids and line["tokens"]["logprobs"] == tokens.logprobs


def test_openai_s_messages_are_the_last_prompt_and_its_completion(played: Log) -> None:
    (line,) = map(json.loads, exported(played, ExportFormat.OPENAI, wanted={"text": SAID}).splitlines())
    user, call, answer, reply = line["messages"]
    assert user == {"role": "user", "content": SAID}
    (made,) = call["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == {"q": SAID} and made["id"] == answer["tool_call_id"]
    assert answer["content"] == "seat 14A" and reply == {"role": "assistant", "content": f"Done, {SAID}"}
    assert {tool["function"]["name"] for tool in line["tools"]} == {"search_trains", "book_seat"}


def test_parquet_is_read_back(played: Log) -> None:
    table = pq.read_table(io.BytesIO(exported(played, ExportFormat.PARQUET, order=TrajectoryOrder.OLDEST)))
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["reward"] for row in rows] == [0.9, 0.2, 0.2, None]
    assert rows[0]["created_at"] == get_trajectory(played, "a").created_at
    assert json.loads(rows[0]["messages"])[0]["content"] == SAID and rows[0]["steps"] == 2
    assert pq.read_table(io.BytesIO(exported(played, ExportFormat.PARQUET, wanted={"tool": "none"}))).num_rows == 0


def test_an_export_stops_at_a_part_once_it_is_large_enough(played: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "PART", 1)
    for form in (ExportFormat.JSONL, ExportFormat.OPENAI):
        sink = io.BytesIO()
        done = export_trajectories(played, TrajectoryFilter(), form, sink, most_bytes=1)
        lines = sink.getvalue().splitlines()
        assert len(lines) == done.written == 1 and json.loads(lines[0])
    sink = io.BytesIO()
    assert export_trajectories(played, TrajectoryFilter(), ExportFormat.PARQUET, sink, most_bytes=5).written == 1
    assert pq.read_table(io.BytesIO(sink.getvalue())).num_rows == 1, "its first bytes are no dialogue"


@pytest.mark.parametrize("form", list(ExportFormat))
def test_the_page_s_button_exports_what_its_list_shows(
    form: ExportFormat, sample: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: dict[str, Any] = {}

    def download_button(label: str, data: Callable[[], bytes], **options: Any) -> None:
        offered.update(options, data=data)

    monkeypatch.setattr("streamlit.download_button", download_button)
    app = open_page(TRAJECTORIES, domain="shop", order="highest reward")
    app.radio(key="export-format").set_value(form.value).run()
    assert not app.exception
    wanted = TrajectoryFilter(domain="shop")
    listed = page_of_trajectories(sample, wanted, limit=1000, offset=0, order=TrajectoryOrder.HIGHEST)
    content = offered["data"]()
    if form is ExportFormat.PARQUET:
        assert offered["file_name"] == "trajectories.parquet"
        assert pq.read_table(io.BytesIO(content)).column("id").to_pylist() == [row.id for row in listed]
    else:
        lines = [json.loads(line) for line in content.splitlines()]
        assert offered["file_name"] == "trajectories.jsonl" and len(lines) == len(listed) > 5
        if form is ExportFormat.JSONL:
            assert [line["id"] for line in lines] == [row.id for row in listed]


def test_the_command_writes_a_whole_file_or_none(sample: Log, tmp_path: Path) -> None:
    file = tmp_path / "out" / "dialogues.parquet"
    said = CliRunner().invoke(app, ["export", str(file), "--origin", "evaluation", "--version", "v0003"])
    rows = pq.read_table(file).to_pylist()
    assert {(row["origin"], row["version"]) for row in rows} == {("evaluation", "v0003")}
    assert f"{len(rows)} trajectories" in said.output
    refused = CliRunner().invoke(app, ["export", str(file), "--tokens"])
    assert "no place for them" in str(refused.exception)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
