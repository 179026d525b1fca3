"""Everything that the dashboard can change is also a command, through one function: an action without one fails here.

What a page's action and its command come to is read from their text: which functions they name, and those name in turn.
"""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
import typer

import dashboard
from agent.chat_terminal import COMMANDS, Terminal
from checkloop import app
from dashboard.boundary import ACTIONS

OURS = {"agent", "checkloop", "dashboard", "env_sim", "reward", "store", "train"}
BY_COMMAND: dict[str, tuple[str, tuple[str, ...]]] = {
    "chat_actions.comment": ("store.ratings.rate_turn", ("chat rate", "chat /rate")),
    "chat_actions.decide": ("agent.chat.ChatSession.decide", ("chat",)),
    "chat_actions.delete": ("store.chats.delete_chat", ("chat delete",)),
    "chat_actions.rate": ("store.ratings.rate_turn", ("chat rate", "chat /rate")),
    "chat_actions.rename": ("store.chats.rename_chat", ("chat rename",)),
    "chat_actions.say_instead": ("agent.chat.ChatSession.say", ("chat /again",)),
    "chat_actions.say_text": ("agent.chat.ChatSession.say", ("chat",)),
    "chat_actions.say_typed": ("agent.chat.ChatSession.say", ("chat",)),
    "chat_actions.unlist": ("store.chats.unlist_chat", ("chat remove",)),
    "checklist_editor.store": ("reward.checklist_edits.store_edit", ("checklist edit",)),
    "job_actions.cancel": ("store.jobs.cancel_job", ("job cancel",)),
    "job_actions.pause": ("train.scheduler.pause_schedule", ("schedule pause",)),
    "job_actions.queue_job": ("store.jobs.submit_pipeline", ("job submit",)),
    "job_actions.remove": ("store.schedules.remove_schedule", ("schedule remove",)),
    "job_actions.resume": ("train.scheduler.resume_schedule", ("schedule resume",)),
    "job_actions.retry": ("store.jobs.retry_job", ("job retry",)),
    "job_actions.run_now": ("train.scheduler.run_schedule", ("schedule run",)),
    "job_actions.submit_typed": ("store.jobs.submit_pipeline", ("job submit",)),
    "people_actions.add": ("store.access.add_person", ("people add",)),
    "people_actions.change": ("store.access.change_role", ("people role",)),
    "people_actions.remove": ("store.access.remove_person", ("people remove",)),
    "review_actions.move": ("reward.review.take_turn", ("judge next",)),
    "review_actions.settle": ("reward.people.say_together", ("judge say",)),
    "review_actions.settle_bad": ("reward.people.call_bad", ("judge bad",)),
    "review_actions.settle_rest": ("reward.review.agree", ("judge agree",)),
    "review_actions.undo_last": ("reward.review.undo", ("judge undo",)),
    "scenario_import.import_file": ("store.scenarios.add_scenarios", ("import",)),
    "schedule_form.change_typed": ("train.scheduler.edit_schedule", ("schedule edit",)),
    "schedule_form.create_typed": ("train.scheduler.create_schedule", ("schedule add",)),
    "trajectory_details.promote": ("env_sim.chat_worlds.promote_chat", ("chat promote", "annotate")),
    "version_actions.refuse": ("agent.promotion.refuse_version", ("policy refuse",)),
    "version_actions.set_pin": ("store.traffic.pin_version", ("policy pin", "policy unpin")),
    "version_actions.end_share": ("agent.promotion.split_traffic", ("policy split",)),
    "version_actions.start_share": ("agent.promotion.split_traffic", ("policy split",)),
    "version_actions.start_promotion": ("agent.promotion.promote_version", ("policy promote", "policy rollback")),
}
"""The function that each action comes to, and the commands that do; words that begin with a slash are typed in a chat.
"""
NO_COMMAND = {
    "chat_actions.stop": "it cancels the task that says the turn, as Ctrl-C does in a chat",
    "review_actions.keep_reason": "half a sentence in the field Reason; a command is given its reason whole (--reason)",
}
TYPED: dict[str, Callable[..., Any]] = {"/rate": Terminal.rate, "/again": Terminal.say_again}


def test_every_action_of_the_dashboard_is_also_a_command() -> None:
    for file in Path(dashboard.__file__).parent.glob("*.py"):
        if file.stem not in {"__init__", "app"}:
            importlib.import_module(f"dashboard.{file.stem}")
    actions = {name.removeprefix("dashboard.") for name in ACTIONS}
    known = BY_COMMAND.keys() | NO_COMMAND
    assert actions == known, "an action needs a command that calls the same function; name both above"


@pytest.mark.parametrize("name", sorted(BY_COMMAND))
def test_an_action_and_its_commands_come_to_the_same_function(name: str) -> None:
    shared, commands = BY_COMMAND[name]
    importlib.import_module(f"dashboard.{name.partition('.')[0]}")
    assert shared in reached_from(ACTIONS[f"dashboard.{name}"].run), f"the action {name} does not come to {shared}"
    for words in commands:
        assert shared in reached_from(_callback(words)), f"checkloop {words} does not come to {shared}"


def test_what_a_command_does_not_do_it_does_not_come_to() -> None:
    """Otherwise the test above would prove nothing."""
    assert "store.jobs.retry_job" not in reached_from(_callback("job cancel"))
    assert "agent.promotion.refuse_version" not in reached_from(_callback("policy promote"))
    assert "agent.chat.ChatSession.decide" not in reached_from(Terminal.rate)
    assert "reward.annotator.annotate_scenarios" not in reached_from(_callback("chat promote"))


def _callback(words: str) -> Callable[..., Any]:
    """What runs when these words follow `checkloop`, or are typed in a chat."""
    command: Any = typer.main.get_command(app)
    for word in words.split():
        if word.startswith("/"):
            assert word in {known.split()[0] for known in COMMANDS}
            return TYPED[word]
        assert word in command.commands, f"there is no checkloop {words}"
        command = command.commands[word]
    return command.callback


def reached_from(start: Callable[..., Any]) -> set[str]:
    """Functions of this project that `start` comes to, each as "module.name" or "module.Class.name".

    A method counts where its class is named (or has a field of it, or one of its methods is reached), and somewhere an
    attribute of its name.
    """
    functions: set[FunctionType] = set()
    classes: set[type] = set()
    attributes = {"__init__", "__enter__", "__post_init__"}
    todo: list[Any] = [start]
    while todo:
        named = inspect.unwrap(todo.pop())
        if isinstance(named, type):
            classes.add(named)
            fields = vars(named).get("__annotations__", {}).values()
            todo += [one for one in fields if isinstance(one, type) and _is_ours(one) and one not in classes]
        elif isinstance(named, FunctionType) and named not in functions:
            functions.add(named)
            objects, spoken_of = _named_in(named)
            owner = getattr(sys.modules[named.__module__], named.__qualname__.partition(".")[0], None)
            if isinstance(owner, type):
                todo.append(owner)
            attributes |= spoken_of
            todo += [one for one in objects if one not in classes]
        if not todo:
            members = [vars(cls)[name] for cls in classes for name in attributes & vars(cls).keys()]
            methods = {inspect.unwrap(member) for member in members if isinstance(member, FunctionType)}
            todo += methods - functions
    return {f"{one.__module__}.{one.__qualname__}" for one in functions}


@cache
def _named_in(function: FunctionType) -> tuple[frozenset[Any], frozenset[str]]:
    """Functions and classes of this project that its text names, and the attributes that it speaks of."""
    if function.__code__.co_filename.startswith("<"):  # a dataclass's own
        return frozenset(), frozenset()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = dict(function.__globals__)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            module = importlib.import_module(node.module)
            names |= {alias.asname or alias.name: getattr(module, alias.name, None) for alias in node.names}
    found = frozenset(one for one in _objects(tree, names) if _is_ours(one))
    return found, frozenset(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def _objects(tree: ast.AST, names: dict[str, Any]) -> Iterator[Any]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield names.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id)
            if isinstance(module, ModuleType):
                yield getattr(module, node.attr, None)


def _is_ours(one: Any) -> bool:
    if not callable(one):
        return False
    one = inspect.unwrap(one)
    return isinstance(one, type | FunctionType) and one.__module__.partition(".")[0] in OURS
