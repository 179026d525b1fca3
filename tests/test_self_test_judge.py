"""`checkloop annotate --with-judge`: the self-test asks the judge of the settings as `checkloop judge` would."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import checkloop
from reward.llm_judge import PROMPTS
from store.checklists import current_checklists
from store.database import Log, open_log
from store.scenarios import add_scenarios
from store.schema import ModelCallRow
from store.vocabulary import FocusOn, JudgeMode, ModelRole
from tests.annotation_examples import FIRST_TURN, OFFER, item, trip
from tests.role_server import RoleServer, role_server
from tests.scripted_annotator import as_answer, as_text

TRIP = trip()
ASKS = item("asks", FocusOn.REPLY, 0, "book F84?", question="Does the reply ask whether it is wanted?")
"""Without a check, like the offer: two items for the judge, both about the reply of the second turn."""
OFFERED = "Shall I book F84?"
Command = Callable[..., tuple[int, str, str]]


def says(body: dict[str, Any]) -> str:
    """The annotator's checklists; a judge that sees the offer where it is, and one that sees it everywhere."""
    if body["model"] == "annotator":
        return as_text(as_answer(FIRST_TURN, 0), as_answer((OFFER, ASKS), 1))
    offered = body["model"].startswith("gullible") or any(OFFERED in message["content"] for message in body["messages"])
    asked = body["response_format"]["json_schema"]
    if asked["name"] == "evaluation_verdict":
        return json.dumps({name: offered if name == "answer" else "so" for name in asked["schema"]["properties"]})
    verdict = {
        "quote": OFFERED if OFFERED in str(body) else "Okay",
        "step": 0,
        "verdict": "PASS" if offered else "FAIL",
    }
    if asked["name"] == "verdict":
        return json.dumps(verdict)
    ids = asked["schema"]["properties"]["verdicts"]["properties"]
    return json.dumps({"verdicts": {key: {"reason": "so"} | verdict for key in ids}})


@pytest.fixture
def server() -> Iterator[RoleServer]:
    with role_server(says) as serving:
        yield serving


@pytest.fixture
def annotate(
    server: RoleServer,
    sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Runs `checkloop annotate --with-judge` on the trip; (status, output, errors)."""

    def run(*options: str, judge: str = "", judging: str = "") -> tuple[int, str, str]:
        file = tmp_path / "checkloop.toml"
        at = f'base_url = "{server.url}"\nretries = 0\n'
        file.write_text(
            f'database_url = "{sqlite_url}"\n[annotator]\n{at}model = "annotator"\n'
            f'[judge]\n{at}model = "right"\n{judge}\n[prices.right]\nprompt = 10.0\ncompletion = 10.0\n'
            + judging.replace("AT", at)
        )
        monkeypatch.setattr("sys.argv", ["checkloop", "annotate", "--config", str(file), "--with-judge", *options])
        status = 0
        try:
            checkloop.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    add_scenarios(open_log(sqlite_url), [TRIP])
    return run


def asked_as(mode: JudgeMode, body: dict[str, Any]) -> bool:
    """Whether a question has the form and the prompt of the mode."""
    messages, asked = body["messages"], body["response_format"]["json_schema"]
    prompt = (PROMPTS / f"judge_{mode.value}.md").read_text(encoding="utf-8")
    if mode is JudgeMode.PAPER:
        filled = prompt.split("{", 1)[0] in messages[0]["content"] and "{question}" not in messages[0]["content"]
        return len(messages) == 1 and filled and asked["name"] == "evaluation_verdict"
    if mode is JudgeMode.SMALL:
        return len(messages) == 1 and messages[0]["content"].startswith(prompt) and asked["name"] == "verdict"
    items = len(asked["schema"]["properties"]["verdicts"]["required"])
    return messages[0]["content"] == prompt and items == (1 if mode is JudgeMode.ITEM else 2)


@pytest.mark.parametrize("mode", list(JudgeMode))
def test_every_mode_is_asked_in_its_own_way(mode: JudgeMode, annotate: Command, server: RoleServer) -> None:
    """Both replies that are damaged fail both items: without a reply by rule, which CM2's procedure does not have."""
    status, said, _ = annotate(judging=f'[judging]\nmode = "{mode.value}"\n')
    assert status == 0 and "5 tried on damaged references, 0 of them do not discriminate" in said
    asked = server.of("right")
    assert all(asked_as(mode, body) for body in asked)
    calls = {JudgeMode.TURN: 2, JudgeMode.STEP: 2, JudgeMode.ITEM: 4, JudgeMode.SMALL: 4, JudgeMode.PAPER: 6}[mode]
    assert len(asked) == calls and f"self-test by right: {calls} calls, {100 * calls} tokens sent" in said


def test_a_question_is_logged_with_its_scenario(annotate: Command, sqlite_url: str) -> None:
    assert annotate()[0] == 0
    with open_log(sqlite_url).lookup() as connection:
        rows = connection.execute(select(ModelCallRow.scenario_hash).where(ModelCallRow.role == ModelRole.JUDGE.value))
        assert [row.scenario_hash for row in rows] == [TRIP.hash] * 2


def test_the_whole_panel_votes(annotate: Command, server: RoleServer) -> None:
    """Two of three see the offer everywhere: the reply "Okay." passes, so the items do not discriminate."""
    gullible = "".join(f'[[judging.panel]]\nATmodel = "gullible-{n}"\n' for n in range(2))
    status, said, _ = annotate(judging=gullible)
    assert status == 0 and "5 tried on damaged references, 2 of them do not discriminate" in said
    assert [len(server.of(model)) for model in ("right", "gullible-0", "gullible-1")] == [2, 2, 2]


def test_a_limit_of_the_judge_stops_it_with_nothing_stored(annotate: Command, sqlite_url: str) -> None:
    """Nobody was asked, so nothing is known of the two items: to store them as tested would be a lie."""
    status, said, _ = annotate(judge="max_usd = 0.000001")
    assert status == 1 and "stopped with 1 left" in said and "max_usd" in said
    assert stored(open_log(sqlite_url)) == [0, 0]
    assert annotate()[0] == 0 and stored(open_log(sqlite_url)) == [1, 1], "the same command goes on with it"


def test_a_limit_stops_a_person_s_checklists_too(annotate: Command, sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(as_text(as_answer(FIRST_TURN, 0), as_answer((OFFER, ASKS), 1)))
    given = ("--scenario", "trip", "--answer", str(file), "--person", "ada")
    status, _, complaint = annotate(*given, judge="max_usd = 0.000001")
    assert status == 1 and "max_usd" in complaint and stored(open_log(sqlite_url)) == [0, 0]
    assert annotate(*given)[0] == 0 and stored(open_log(sqlite_url)) == [1, 1]


def stored(log: Log) -> list[int]:
    """Checklists of each turn of the trip."""
    return [len(of) for of in current_checklists(log, [TRIP])[TRIP.hash]]
