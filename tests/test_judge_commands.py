"""`checkloop judge` on a real log, with a scripted judge behind a real socket."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import checkloop
from store.database import Log
from store.verdicts import verdicts_of
from store.vocabulary import Outcome, VerdictSource
from tests.judged_log import CODE_ITEMS, LLM_ITEMS, asked_ids, item, record, say, scenario
from tests.turn_records import call, turn


class Server(ThreadingHTTPServer):
    """Passes "polite" and "right_city" with their quotes; remembers who was asked what."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        proofs = {"polite": ("my pleasure", 1), "right_city": ("Paris", 0), "vague": ("nowhere", 1)}
        text = say(request, **{key: proof for key, proof in proofs.items() if key in asked_ids(request)})
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 500, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 300}}
        body = json.dumps({"id": "1", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on standard error."""


@pytest.fixture
def server(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Named as the judge in the settings file of the working directory, with a price."""
    running = Server()
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.chdir(tmp_path)
    write_settings(running)
    yield running
    running.shutdown()
    running.server_close()


def write_settings(server: Server, judge: str = "", more: str = "") -> None:
    text = f'[judge]\nbase_url = "{server.url}"\nmodel = "big"\n{judge}\n[prices.big]\nprompt = 1.0\ncompletion = 4.0\n'
    with open("checkloop.toml", "w", encoding="utf-8") as file:
        file.write(text + more)


@pytest.fixture
def names(empty: Log) -> list[str]:
    """Three dialogues of two items for code and two for the LLM each."""
    half = dict.fromkeys(("call", "reply", "polite", "right_city"), 0.25)
    items = tuple(i.model_copy(update={"weight": half[i.id]}) for i in (*CODE_ITEMS, *LLM_ITEMS))
    played = scenario(items)
    turns = [
        turn([call("find", {"city": "Paris"})], "1200, my pleasure.", trajectory_id=f"t{n}", user=f"Question {n}")
        for n in range(3)
    ]
    return [record(empty, played, [one]) for one in turns]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of `checkloop judge ARGUMENTS`."""
    monkeypatch.setattr("sys.argv", ["checkloop", "judge", *arguments])
    status = 0
    try:
        checkloop.main()
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err


Run = tuple[pytest.MonkeyPatch, pytest.CaptureFixture[str]]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return monkeypatch, capsys


def test_it_says_what_it_would_cost_then_judges_and_is_done(
    server: Server, names: list[str], empty: Log, at: Run
) -> None:
    status, said, _ = run(*at, "--dry-run")
    assert status == 0 and server.requests == []
    assert "3 trajectories, 3 turns" in said
    assert "checks: 6, rules: 0, what was said before: 0, LLM: 6" in said
    assert "calls: at most 3" in said and " USD" in said
    assert verdicts_of(empty, names) == {}

    status, said, _ = run(*at)
    assert status == 0 and len(server.requests) == 3
    assert "verdicts: PASS 12" in said
    assert "big: 3 calls, 1500 tokens sent, 900 of them from its cache, 60 answered, 0.0017 USD" in said

    status, said, _ = run(*at)
    assert status == 0 and len(server.requests) == 3
    assert "0 turns with something to judge" in said


def test_filters_and_a_limit_that_goes_on(server: Server, names: list[str], empty: Log, at: Run) -> None:
    assert run(*at, "--batch", "nobody's")[1].startswith("0 trajectories")
    assert run(*at, "--trajectory", "t1")[0] == 0
    assert set(verdicts_of(empty, names)) == {"t1"}
    assert run(*at, "--origin", "rollout", "--domain", "travel", "--limit", "1")[0] == 0
    assert len(verdicts_of(empty, names)) == 2
    run(*at, "--limit", "1")
    assert len(verdicts_of(empty, names)) == 3


def test_a_limit_stops_cleanly_and_says_what_is_left(server: Server, names: list[str], empty: Log, at: Run) -> None:
    """An answer costs 0.00058 USD, and for each question some 0.003 is put aside."""
    write_settings(server, "max_usd = 0.0038\nmax_concurrency = 1")
    status, _, errors = run(*at)
    done = len(server.requests)
    assert status == 1 and 0 < done < 3
    assert "max_usd" in errors and f"left: {2 * (3 - done)} items of {3 - done} turns" in errors
    outcomes = [v.outcome for verdicts in verdicts_of(empty, names).values() for v in verdicts]
    assert outcomes.count(Outcome.PASS) == 6 + 2 * done == len(outcomes)


def test_another_judge_and_mode_speak_beside(server: Server, names: list[str], empty: Log, at: Run) -> None:
    run(*at)
    status, _, _ = run(*at, "--beside", "--model", "other", "--mode", "item", "--trajectory", "t0")
    assert status == 0
    assert [(request["model"], len(asked_ids(request))) for request in server.requests[3:]] == [("other", 1)] * 2
    beside = [v for v in verdicts_of(empty, ["t0"], all_rows=True)["t0"] if not v.counts]
    assert [v.judge for v in beside] == ["other", "other"]
    asked = len(server.requests)
    run(*at, "--beside", "--base-url", server.url, "--trajectory", "t0")
    assert len(server.requests) == asked, "the log holds what this judge said"
    run(*at, "--beside", "--base-url", server.url, "--name", "big elsewhere", "--trajectory", "t0")
    assert [request["model"] for request in server.requests[asked:]] == ["big"]
    beside = [v for v in verdicts_of(empty, ["t0"], all_rows=True)["t0"] if not v.counts]
    assert [v.judge for v in beside][2:].count("big elsewhere") == 2


def test_calibration(server: Server, names: list[str], empty: Log, at: Run) -> None:
    run(*at)
    assert run(*at, "--calibrate", "--trajectory", "t0")[0] == 0
    beside = [v for v in verdicts_of(empty, ["t0"], all_rows=True)["t0"] if not v.counts]
    assert [(v.item_key, v.source) for v in beside] == [("call", VerdictSource.LLM), ("reply", VerdictSource.LLM)]


def test_reasons_of_unscored_are_shown_and_it_is_tried_again(server: Server, empty: Log, at: Run) -> None:
    played = scenario((item("vague", LLM_ITEMS[0].focus_on, 1.0),), name="vague")
    record(empty, played, [turn([call("find")], "Done.", trajectory_id="v")])
    _, said, _ = run(*at)
    assert "verdicts: UNSCORED 1" in said
    assert "UNSCORED 1: the judge's quote … does not occur in step n, user_visible_reply" in said
    asked = len(server.requests)
    assert asked == 2, "asked again once"
    assert run(*at)[0] == 0 and len(server.requests) == asked
    assert run(*at, "--unscored")[0] == 0 and len(server.requests) == 2 * asked


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--beside",), 1, "there is no LLM judge"),
        (("--mode", "step"), 1, "there is none: name it in section"),
        (("--model", "x"), 1, "judge.base_url"),
        (("--beside", "--calibrate"), 2, "leave --beside out"),
        (("--unscored", "--beside"), 2, "verdicts that count"),
        (("--trajectory", "a", "--batch", "b"), 2, "leave the other filters out"),
        (("--trajectory", "nobody"), 1, "there is no trajectory 'nobody'"),
        (("--prompt", "nowhere.md", "--model", "m", "--base-url", "http://x/v1"), 1, "nowhere.md"),
    ],
)
def test_what_cannot_be_is_refused(
    empty: Log, tmp_path: Any, at: Run, arguments: tuple[str, ...], status: int, said: str
) -> None:
    at[0].chdir(tmp_path)
    ended, _, errors = run(*at, *arguments)
    assert ended == status and said in " ".join(errors.replace("│", " ").split())
