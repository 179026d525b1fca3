"""Everything that the dashboard can change is also a command: a new action without one fails here."""

import importlib
from pathlib import Path

import pytest
import typer

import dashboard
from agent.chat_terminal import COMMANDS
from checkloop import app
from dashboard.boundary import ACTIONS

IN_CHAT = {command.split()[0] for command in COMMANDS}
BY_COMMAND = {
    "chat_actions.comment": "chat /rate",
    "chat_actions.decide": "chat y",
    "chat_actions.delete": "chat delete",
    "chat_actions.rate": "chat /rate",
    "chat_actions.rename": "chat rename",
    "chat_actions.say_instead": "chat /again",
    "chat_actions.say_text": "chat",
    "chat_actions.say_typed": "chat",
    "chat_actions.stop": "chat Ctrl-C",
    "chat_actions.unlist": "chat remove",
    "checklist_editor.store": "checklist edit",
    "job_actions.cancel": "job cancel",
    "job_actions.pause": "schedule pause",
    "job_actions.queue_job": "job submit",
    "job_actions.remove": "schedule remove",
    "job_actions.resume": "schedule resume",
    "job_actions.retry": "job retry",
    "job_actions.run_now": "schedule run",
    "job_actions.submit_typed": "job submit",
    "people_actions.add": "people add",
    "people_actions.change": "people role",
    "people_actions.remove": "people remove",
    "review_actions.keep_reason": "judge say",
    "review_actions.move": "judge next",
    "review_actions.settle": "judge say",
    "review_actions.settle_bad": "judge bad",
    "review_actions.settle_rest": "judge agree",
    "review_actions.undo_last": "judge undo",
    "scenario_import.import_file": "import",
    "schedule_form.change_typed": "schedule edit",
    "schedule_form.create_typed": "schedule add",
    "trajectory_details.promote": "annotate",
    "version_actions.refuse": "policy refuse",
    "version_actions.set_pin": "policy pin",
    "version_actions.start_promotion": "policy promote",
}
"""What each action does by command; words after `chat` that begin with a slash are typed in it. (What stands in the
field Reason is said with `judge say --reason`.)"""
KEYS = {"y", "Ctrl-C"}
"""What one types or presses in a chat that is no command of it."""


def test_every_action_of_the_dashboard_is_also_a_command() -> None:
    root = Path(dashboard.__file__).parent
    for file in root.glob("*.py"):
        if file.stem not in {"__init__", "app"}:
            importlib.import_module(f"dashboard.{file.stem}")
    actions = {name.removeprefix("dashboard.") for name in ACTIONS}
    assert actions == BY_COMMAND.keys(), "an action needs a command that calls the same function; name it above"


@pytest.mark.parametrize("words", sorted(set(BY_COMMAND.values())))
def test_the_command_is_there(words: str) -> None:
    command = typer.main.get_command(app)
    for word in words.split():
        if word.startswith("/"):
            assert word in IN_CHAT
        elif word not in KEYS:
            assert word in command.commands, f"there is no checkloop {words}"  # type: ignore[attr-defined]
            command = command.commands[word]  # type: ignore[attr-defined]
