"""Who may see and do what: roles in the log, the guard of every action, and pages as each role meets them."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit import config

import dashboard
from agent.ports import free_port
from dashboard import access as door
from dashboard import boundary
from dashboard.access import Visitor, check_address, is_loopback, name_of
from dashboard.boundary import ACTIONS, may
from dashboard.links import CHAT, JOBS, OVERVIEW, PAGES, PEOPLE, REVIEW, TRAINING, TRAJECTORIES, PageSpec
from dashboard.process import DashboardProcess
from store.access import add_person, change_role, list_people, remove_person, role_of
from store.database import Log, LogError
from store.jobs import NewJob, count_jobs, submit_pipeline
from store.settings import Settings, SettingsError, load_settings
from store.vocabulary import AccessRole, JobKind
from tests.pages import ids, open_page, shown

ADA = "ada@example.org"
VIEWER, REVIEWER, OPERATOR = AccessRole
NAVIGATION = {
    "_add", "_list_more", "clear_item_filter", "close_scenario", "focus_item", "go", "leave", "look_everywhere",
    "on_click", "only_chosen_item", "only_item", "open_scenario", "open_trajectory", "show_more", "start_queue",
    "forget_seed", "logout",
}  # fmt: skip
"""Callbacks that only change what is looked at. (`on_click` hands on the callback that its caller names.)"""


@pytest.fixture(autouse=True)
def nobody_at_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(free_port()))


def signed_in(email: str = ADA, **claims: object) -> dict[str, object]:
    return {"is_logged_in": True, "email": email, "email_verified": True, "sub": "4711"} | claims


def let_in(log: Log, role: AccessRole) -> dict[str, object]:
    """Ada, in this role; what `st.user` says of her."""
    add_person(log, ADA, role, given_by="root")
    return signed_in()


def test_the_newest_role_counts_and_the_last_operator_stays(log: Log) -> None:
    assert role_of(log, ADA) is None
    add_person(log, "Ada@Example.org ", OPERATOR, given_by="root")
    add_person(log, "sub:Xy@issuer", VIEWER, given_by=ADA)
    with pytest.raises(LogError, match="is operator already"):
        add_person(log, ADA, VIEWER, given_by="root")
    for refused in (lambda: remove_person(log, ADA, given_by=ADA), lambda: change_role(log, ADA, VIEWER, given_by=ADA)):
        with pytest.raises(LogError, match="last operator"):
            refused()
    change_role(log, "sub:Xy@issuer", OPERATOR, given_by=ADA)
    remove_person(log, ADA, given_by="sub:Xy@issuer")
    assert role_of(log, ADA) is None
    assert [(one.person, one.role, one.given_by) for one in list_people(log)] == [("sub:Xy@issuer", OPERATOR, ADA)]
    with pytest.raises(LogError, match="nobody is known as"):
        change_role(log, ADA, VIEWER, given_by="root")
    add_person(log, ADA, REVIEWER, given_by="root")
    assert role_of(log, ADA) is REVIEWER


@pytest.mark.parametrize("name", ["", "  ", "a b", "x" * 129, "a\u202eb", "a\x00b"])
def test_what_nobody_can_sign_in_with_is_refused(sqlite_log: Log, name: str) -> None:
    with pytest.raises(LogError, match="is no name to sign in with"):
        add_person(sqlite_log, name, VIEWER, given_by="root")


def test_only_a_verified_address_is_a_name() -> None:
    issuer = {"sub": "4711", "iss": "https://accounts.test/a"}
    assert name_of({"email": "Ada@Example.org", "email_verified": True} | issuer) == ADA
    assert name_of({"email": ADA, "email_verified": "true"} | issuer) == ADA
    for unverified in ({"email": ADA}, {"email": ADA, "email_verified": False}, {"name": ADA}):
        assert name_of(unverified | issuer) == "sub:4711@accounts.test/a"
    assert name_of({"email": ADA, "name": ADA}) == ""


def test_people_are_added_and_changed_by_commands(sqlite_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_log.url)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "checkloop", "people", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run("add", ADA, "operator").stdout == f"{ADA} is operator\n"
    refused = run("remove", ADA)
    assert refused.returncode == 1 and "last operator" in refused.stderr
    assert f"{ADA}  operator" in run("list").stdout


# --- every action asks


def _modules() -> list[str]:
    root = Path(dashboard.__file__).parent
    return sorted(f"dashboard.{file.stem}" for file in root.glob("*.py") if file.stem not in {"__init__", "app"})


def _callbacks() -> Iterator[tuple[str, str]]:
    """Every function that a widget of some page calls back: where, and its name."""
    for file in sorted(Path(dashboard.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg in {"on_click", "on_change", "on_submit"}:
                ends = [n for n in _ends(node.value) if not isinstance(n, ast.Constant)]  # "ignore" calls nothing
                names = [n.attr if isinstance(n, ast.Attribute) else n.id for n in ends]
                yield from ((file.name, name) for name in names)


def _ends(value: ast.expr) -> list[Any]:
    return [*_ends(value.body), *_ends(value.orelse)] if isinstance(value, ast.IfExp) else [value]


def test_every_callback_of_every_page_is_an_action_or_only_navigates() -> None:
    for module in _modules():
        importlib.import_module(module)
    known = {name.rpartition(".")[2] for name in ACTIONS}
    callbacks = list(_callbacks())
    assert len(callbacks) > 30
    strangers = {(file, name) for file, name in callbacks if name not in known | NAVIGATION}
    assert not strangers, "make them actions (dashboard.boundary.action), or they only navigate"
    assert not known & NAVIGATION


@contextmanager
def acting(monkeypatch: pytest.MonkeyPatch, role: AccessRole | None) -> Iterator[dict[str, Any]]:
    """Actions called outside of a page, by somebody with this role; gives the session's state."""
    state: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.setattr(st, "session_state", state)
        patch.setattr(boundary, "looking", lambda: Visitor(ADA, role, signed_in=True))
        yield state


@pytest.mark.parametrize("role", [None, *AccessRole])
def test_every_action_refuses_whoever_lacks_its_role(
    role: AccessRole | None, sqlite_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body is not reached: with nine arguments it would raise a TypeError, as it does for who may; that is said."""
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_log.url)
    for module in _modules():
        importlib.import_module(module)
    assert len(ACTIONS) >= 25
    for name, action in ACTIONS.items():
        with acting(monkeypatch, role) as state:
            if role is not None and role.includes(action.needs):
                action.run(object(), object(), object(), object(), object(), object(), object(), object(), object())
                (problem,) = state.values()
                assert problem.startswith("This could not be done: TypeError: "), f"{name} took nine arguments"
            else:
                action.run()
                (problem,) = state.values()
                assert "has no role here" in problem if role is None else f"needs the role {action.needs}" in problem


def test_what_each_role_may_do_is_what_the_page_of_the_docs_says() -> None:
    by_role = {
        role: {name.rpartition(".")[2] for name, one in ACTIONS.items() if one.needs is role} for role in AccessRole
    }
    assert by_role[VIEWER] == set()
    assert {"settle", "settle_bad", "settle_rest", "undo_last", "move", "say_typed", "rate"} <= by_role[REVIEWER]
    assert {"cancel", "submit_typed", "remove", "create_typed", "start_promotion", "set_pin", "delete", "add"} <= (
        by_role[OPERATOR]
    )


# --- pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_viewer_sees_every_page_and_no_button_that_changes_anything(page: PageSpec, sample: Log) -> None:
    (job,) = submit_pipeline(sample, [NewJob(JobKind.PRUNE, {})])
    trajectory = ids(sample)[0]
    query = {
        JOBS: {"job": str(job)}, REVIEW: {"turn": f"{trajectory}:0"}, CHAT: {"session": trajectory},
        TRAJECTORIES: {"trajectory": trajectory},
    }  # fmt: skip
    app = open_page(page, let_in(sample, VIEWER), **query.get(page, {}))
    offered = {button.label for button in app.button} - {"Sign out"}
    assert offered <= {"List", "Previous", "Next", "All jobs and schedules", "Clear"}, offered
    assert not app.get("feedback") and all(one.disabled for one in app.chat_input)
    assert not app.error and ADA in shown(app)


def test_a_viewer_cannot_act_through_a_button_that_was_drawn_before(sample: Log) -> None:
    """The role goes while the page is open: the button is still there, the function refuses."""
    (job,) = submit_pipeline(sample, [NewJob(JobKind.PRUNE, {})])
    add_person(sample, "eve@example.org", OPERATOR, given_by="root")
    app = open_page(JOBS, let_in(sample, OPERATOR), job=str(job))
    change_role(sample, ADA, VIEWER, given_by="eve@example.org")
    app.button(key="cancel").click().run()
    assert "needs the role operator" in app.error[0].value.replace("\\", "")
    assert count_jobs(sample, status=None) == 1 and "queued" in shown(app)
    assert "cancel" not in {button.key for button in app.button}
    remove_person(sample, ADA, given_by="eve@example.org")
    app.run()
    assert "checkloop people add" in shown(app) and "queued" not in shown(app)


def test_a_reviewer_judges_under_the_name_of_the_sign_in_and_runs_no_job(sample: Log) -> None:
    ada = let_in(sample, REVIEWER)
    app = open_page(REVIEW, ada, reviewer="somebody-else")
    app.button(key="pass").click().run()
    assert not app.exception
    with sample.lookup() as connection:
        said = connection.exec_driver_sql("SELECT judge FROM verdict WHERE source = 'human'").scalars().all()
    assert said == [ADA]
    assert not {"New schedule", "Queue jobs"} & {button.label for button in open_page(JOBS, ada).button}
    assert "promote" not in {button.key for button in open_page(TRAINING, ada).button}
    assert "needs the role operator" in shown(open_page(JOBS, ada, form="schedule"))
    (behind_tools,) = open_page(CHAT, ada).segmented_control
    assert "Real tools" not in behind_tools.options and "Simulated world" in behind_tools.options


def test_a_viewer_takes_no_turn_from_reviewers(sample: Log) -> None:
    open_page(REVIEW, let_in(sample, VIEWER), turn=f"{ids(sample)[0]}:0")
    with sample.lookup() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM review_claim").scalar() == 0


@pytest.mark.parametrize("page", [OVERVIEW, TRAJECTORIES, TRAINING], ids=lambda page: page.path)
@pytest.mark.parametrize(
    ("user", "says"),
    [
        ({"is_logged_in": False}, "Sign in to see"),
        (signed_in("stranger@example.org"), "checkloop people add stranger@example.org viewer"),
        (signed_in(email_verified=False, iss="https://idp.test"), "checkloop people add sub:4711@idp.test viewer"),
        ({"is_logged_in": True, "name": ADA}, "Nobody knows who you are"),
    ],
)
def test_nobody_else_sees_anything(page: PageSpec, user: dict[str, object], says: str, sample: Log) -> None:
    add_person(sample, ADA, OPERATOR, given_by="root")
    app = open_page(page, user)
    assert says in shown(app)
    assert "v0003" not in shown(app) and not app.dataframe and not app.metric and not app.title


def test_an_operator_gives_and_takes_roles_on_the_page(sample: Log) -> None:
    app = open_page(PEOPLE, let_in(sample, OPERATOR))
    app.text_input(key="person-name").set_value("Bob@example.org")
    app.selectbox(key="person-role").set_value("reviewer")
    app.button(key="person-add").click().run()
    assert role_of(sample, "bob@example.org") is REVIEWER
    app.selectbox(key="role-bob@example.org").set_value("viewer").run()
    assert [(one.person, one.role, one.given_by) for one in list_people(sample)][1] == ("bob@example.org", VIEWER, ADA)
    app.button(key=f"remove-{ADA}").click().run()
    assert "last operator" in app.error[0].value and app.selectbox(key=f"role-{ADA}").value == "operator"
    app.selectbox(key=f"role-{ADA}").set_value("viewer").run()
    assert "last operator" in app.error[0].value and app.selectbox(key=f"role-{ADA}").value == "operator"
    app.button(key="remove-bob@example.org").click().run()
    assert [one.person for one in list_people(sample)] == [ADA]


# --- without sign-in: this machine alone


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)]
    + [(far, False) for far in ("", "0.0.0.0", "::", "192.168.1.7", "loop.example.org", "127.0.0.1.evil.test")],
)
def test_loopback_is_this_machine(address: str, local: bool) -> None:
    assert is_loopback(address) is local


def test_without_sign_in_another_address_lets_nobody_in(sample: Log) -> None:
    assert "v0003" in shown(open_page(OVERVIEW))
    for address in (None, "0.0.0.0"):
        app = open_page(OVERVIEW)
        config.set_option("server.address", address)
        app.run()
        assert "nobody is let in" in shown(app) and "v0003" not in shown(app)


def test_a_sign_in_whose_file_is_gone_lets_nobody_in(sample: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_DASHBOARD__SECRETS", "gone.toml")
    said = shown(open_page(OVERVIEW))
    assert "gone.toml" in said and "nobody is let in" in said and "v0003" not in said


SECRETS = """[auth]
redirect_uri = "https://loop.test/oauth2callback"
cookie_secret = "0123456789abcdef"
client_id = "checkloop"
client_secret = "hush"
server_metadata_url = "https://idp.test/.well-known/openid-configuration"
"""


def test_the_dashboard_refuses_an_address_or_a_sign_in_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(**chosen: Any) -> Settings:
        return load_settings(None, home=tmp_path, dashboard=chosen)

    with pytest.raises(SettingsError, match=r"no sign-in.*0\.0\.0\.0"):
        DashboardProcess(settings(address="0.0.0.0"), 8501)
    file = tmp_path / "secrets.toml"
    with pytest.raises(SettingsError, match="cannot be read"):
        DashboardProcess(settings(address="0.0.0.0", secrets=file), 8501)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    file.write_text(SECRETS)
    assert DashboardProcess(settings(address="0.0.0.0", secrets=file), 8501).address == "0.0.0.0"
    for line in SECRETS.splitlines()[1:]:
        file.write_text(SECRETS.replace(line, ""))
        with pytest.raises(SettingsError, match=line.split(" ")[0]):
            check_address(settings(secrets=file), "127.0.0.1")
    file.write_text(SECRETS)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="Authlib"):
        check_address(settings(secrets=file), "127.0.0.1")


def test_may_is_asked_of_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    assert door.Visitor(ADA, REVIEWER, signed_in=True).may(VIEWER)
    monkeypatch.setattr(boundary, "looking", lambda: Visitor(ADA, None, signed_in=True))
    assert not may(VIEWER)


def test_settings_are_read_anew_where_the_file_or_the_environment_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "checkloop.toml"
    monkeypatch.setenv("CHECKLOOP_CONFIG", str(file))
    with pytest.raises(SettingsError, match="there is no settings file"):
        boundary.current_settings()
    file.write_text("[gateway]\nmax_in_flight = 7\n")
    first = boundary.current_settings()
    assert first.gateway.max_in_flight == 7 and boundary.current_settings() is first, "nothing changed: not read again"
    file.write_text("[gateway]\nmax_in_flight = 11\n")
    assert boundary.current_settings().gateway.max_in_flight == 11
    monkeypatch.setenv("CHECKLOOP_GATEWAY__MAX_IN_FLIGHT", "13")
    assert boundary.current_settings().gateway.max_in_flight == 13
    file.write_text("[gateway]\nmax_in_flight = -1\nx = ")
    for _ in range(2):
        with pytest.raises(SettingsError, match="not valid TOML"):
            boundary.current_settings()
