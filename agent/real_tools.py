"""Two small tools that do what they say, for chats without a simulated world; they read the clock and nothing else."""

import ast
import operator
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from store.records import ToolSpec
from store.trajectories import ToolAnswer
from store.vocabulary import ToolSource

OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}

SYSTEM = "You help people by calling tools. Ask for what is missing; say so when no tool fits."


def current_time(timezone: str) -> str:
    """The present date and time in a time zone such as Europe/Berlin."""
    try:
        return datetime.now(ZoneInfo(timezone)).isoformat(timespec="minutes")
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"there is no time zone {timezone!r}; one is Europe/Berlin") from error


def calculate(expression: str) -> str:
    """The value of an arithmetic expression of numbers, + - * / and parentheses."""
    return f"{_value(ast.parse(expression, mode='eval').body):g}"


TOOLS: dict[str, tuple[Callable[[str], str], str]] = {
    "current_time": (current_time, "timezone"),
    "calculate": (calculate, "expression"),
}
"""Name -> the function and its one parameter."""


def real_specs() -> tuple[ToolSpec, ...]:
    return tuple(
        ToolSpec(
            name=name,
            description=function.__doc__ or "",
            parameters={"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]},
        )
        for name, (function, parameter) in TOOLS.items()
    )


async def answer_really(name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
    """What the tool says to one call; what is wrong with the call is told as its answer."""
    function, parameter = TOOLS[name]
    value = arguments.get(parameter)
    try:
        if not isinstance(value, str) or set(arguments) != {parameter}:
            raise ValueError(f"{name} takes one argument, the text {parameter!r}, not {sorted(arguments)}")
        said, failed = function(value), False
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        said, failed = f"error: {error}", True
    return ToolAnswer(call_id, said, failed, ToolSource.REAL)


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.operand))
    raise ValueError(f"not an arithmetic expression: {ast.unparse(node)}")
