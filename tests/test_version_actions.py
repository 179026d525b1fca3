"""Promote, refuse, roll back and pin on the training page: asked twice, done by the gateway, said when it cannot be."""

from collections.abc import Iterator
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

import checkloop
from agent.gateway_process import GatewayProcess
from agent.ports import free_port
from agent.promotion import refuse_version
from agent.vllm_client import ServerError
from dashboard import promotions as going_on
from dashboard.beside import AlreadyRunning
from dashboard.gateway_status import GatewayState
from dashboard.links import TRAINING
from dashboard.promotions import Promotions
from store.database import Log, LogError
from store.settings import load_settings
from store.traffic import pinned_versions, set_traffic_split, traffic_split
from store.versions import (
    PRUNED,
    add_figures,
    add_gate_decision,
    add_version,
    get_version,
    live_version,
    state_changes,
)
from store.vocabulary import VersionState
from tests.pages import html, open_page
from tests.scripted_gateway import RunningGateway, Says


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Promotions:
    """Nothing was promoted in this process yet."""
    made = Promotions()
    monkeypatch.setattr("dashboard.version_actions.promotions", lambda: made)
    return made


@pytest.fixture
def gateway(sample: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningGateway]:
    with RunningGateway(sample, lambda body: Says("hello")) as running:
        monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(running.port))
        yield running


def press(app: AppTest, key: str) -> AppTest:
    app.button(key=key).click().run()
    assert not app.exception
    return app


def wait(fresh: Promotions) -> None:
    assert fresh.newest is not None and fresh.newest.over.wait(20)


def test_a_candidate_is_promoted_and_the_one_before_comes_back(
    sample: Log, fresh: Promotions, gateway: RunningGateway
) -> None:
    add_version(sample, "v0004", parent="v0003", path="versions/v0004", files={})
    add_gate_decision(sample, "v0004", "v0003", False, {"difference": -0.01}, "not better: -1.0 points <b>")
    app = open_page(TRAINING, version="v0004")
    press(app, "promote")
    assert live_version(sample).name == "v0003", "nothing happens before it is confirmed"  # type: ignore[union-attr]
    assert "not better: -1.0 points &lt;b&gt;" in html(app) and "✗ refused" in html(app)
    app.text_input(key="version-reason").set_value("the chat team asked for it")
    press(app, "promote-yes")
    wait(fresh)
    app.run()
    assert get_version(sample, "v0004").state is VersionState.LIVE
    assert state_changes(sample, "v0004")[-1].reason == "the chat team asked for it"
    assert "v0004 is live after 0\\.6 s" in app.success[0].value
    assert app.button(key="promote").disabled
    rollback = app.button(key="rollback")
    assert rollback.label == "Roll back to v0003 …"
    press(app, "rollback")
    press(app, "promote-yes")
    wait(fresh)
    assert get_version(sample, "v0003").state is VersionState.LIVE
    assert get_version(sample, "v0004").state is VersionState.RETIRED


def test_without_a_gateway_it_is_said_what_to_start(
    sample: Log, fresh: Promotions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))
    app = press(open_page(TRAINING, version="v0002"), "promote")
    assert "The gateway is not running" in html(app) and "checkloop up" in html(app)
    assert "mean validation reward rose by" in html(app), "the gate's decision stands beside the button"
    assert app.button(key="promote-yes").disabled
    assert fresh.newest is None


def test_what_the_gateway_refuses_is_said(
    sample: Log, fresh: Promotions, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise ServerError("v0002 was refused, v0003 stays live: the proof failed")

    monkeypatch.setattr(going_on, "promote_version", refuse)
    app = press(press(open_page(TRAINING, version="v0002"), "promote"), "promote-yes")
    wait(fresh)
    app.run()
    assert "the proof failed" in app.error[0].value
    assert live_version(sample).name == "v0003"  # type: ignore[union-attr]


def test_one_promotion_at_a_time(fresh: Promotions, monkeypatch: pytest.MonkeyPatch) -> None:
    started = fresh.start(load_settings(gateway={"port": free_port()}), "v0002", "by hand")
    started.over.wait(20)
    assert "is `checkloop up` or `checkloop serve` running" in started.problem
    started.over.clear()
    with pytest.raises(AlreadyRunning, match="v0002 is being loaded and proved right now"):
        fresh.start(load_settings(), "v0003", "by hand")


def test_versions_that_cannot_go_live_say_why(sample: Log, fresh: Promotions) -> None:
    add_figures(sample, "v0001", {PRUNED: {"bytes": 1}})
    app = open_page(TRAINING, version="v0001")
    assert app.button(key="promote").disabled and "have been pruned" in app.button(key="promote").help
    app.selectbox(key="version").set_value("v0003").run()
    assert "v0003 is live" in app.button(key="promote").help


def test_a_candidate_is_refused_by_a_person(sample: Log, fresh: Promotions) -> None:
    """Here and by the command alike; only a candidate, and only once it is confirmed."""
    for name in ("v0004", "v0005"):
        add_version(sample, name, parent="v0003", path=f"versions/{name}", files={})
    add_gate_decision(sample, "v0004", "v0003", None, {"excluded": 92}, "only 4 of 96 scenarios could be judged")
    app = press(open_page(TRAINING, version="v0004"), "refuse")
    assert get_version(sample, "v0004").state is VersionState.CANDIDATE, "nothing happens before it is confirmed"
    assert "? undecided" in html(app) and "only 4 of 96 scenarios" in html(app)
    app.text_input(key="version-reason").set_value("it swears")
    press(app, "refuse-yes")
    assert get_version(sample, "v0004").state is VersionState.REFUSED
    assert state_changes(sample, "v0004")[-1].reason == "it swears"
    assert app.button(key="refuse").disabled and "v0004 is refused" in app.button(key="refuse").help

    answer = CliRunner().invoke(checkloop.app, ["policy", "refuse", "v0005", "--reason", "so does this one"])
    assert answer.exit_code == 0 and "v0005 is refused" in answer.output
    assert state_changes(sample, "v0005")[-1].reason == "so does this one"
    with pytest.raises(LogError, match="cannot go from live to refused"):
        refuse_version(sample, load_settings(), "v0003", "no")


def test_a_candidate_keeps_its_state_where_its_sessions_cannot_be_taken_back(sample: Log, fresh: Promotions) -> None:
    add_version(sample, "v0004", parent="v0003", path="versions/v0004", files={})
    set_traffic_split(sample, "v0004", 0.1, "canary")
    with pytest.raises(ServerError, match="is `checkloop up` or `checkloop serve` running"):
        refuse_version(sample, load_settings(gateway={"port": free_port()}), "v0004", "no")
    assert get_version(sample, "v0004").state is VersionState.CANDIDATE


def test_a_candidate_is_given_a_share_of_the_sessions_and_it_is_taken_back(
    sample: Log, fresh: Promotions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the gateway, as by `checkloop policy split`."""
    add_version(sample, "v0004", parent="v0003", path="versions/v0004", files={})
    asked: list[tuple[str | None, float, str]] = []

    def split(gateway: GatewayProcess, candidate: str | None, share: float, reason: str) -> dict[str, Any]:
        asked.append((candidate, share, reason))
        set_traffic_split(sample, candidate, share, reason)
        return {}

    monkeypatch.setattr(GatewayProcess, "split", split)
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))
    app = open_page(TRAINING, version="v0003")
    assert app.button(key="share").disabled and "v0003 is live: no candidate" in app.button(key="share").help
    app = press(open_page(TRAINING, version="v0004"), "share")
    assert "The gateway is not running" in html(app) and app.button(key="share-yes").disabled
    monkeypatch.setattr("dashboard.version_actions.ask_gateway", lambda url: GatewayState.READY)
    app = press(open_page(TRAINING, version="v0004"), "share")
    app.number_input(key="share-percent").set_value(25)
    app.text_input(key="version-reason").set_value("canary")
    press(app, "share-yes")
    wait(fresh)
    assert asked == [("v0004", 0.25, "canary")]
    app = open_page(TRAINING, version="v0003")
    assert "25 % of the sessions go to v0004" in app.success[0].value
    assert app.button(key="share").label == "25 % to v0004 …"
    press(press(app, "share"), "share-back")
    wait(fresh)
    assert asked[1:] == [(None, 0.0, "by hand")] and traffic_split(sample) is None
    answer = CliRunner().invoke(checkloop.app, ["policy", "split", "v0004", "10%"])
    assert answer.exit_code == 0 and asked[2:] == [("v0004", 0.1, "set by hand")]


def test_a_version_is_pinned_and_unpinned(sample: Log, fresh: Promotions) -> None:
    app = press(open_page(TRAINING, version="v0001"), "pin")
    assert pinned_versions(sample) == {}
    app.text_input(key="version-reason").set_value("the paper's baseline")
    press(app, "pin-yes")
    assert pinned_versions(sample) == {"v0001": "the paper's baseline"}
    assert "pinned" in html(app)
    press(press(app, "pin"), "pin-yes")
    assert pinned_versions(sample) == {}
