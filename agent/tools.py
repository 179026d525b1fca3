"""Tools for the graph out of `ToolSpec`s and one function that answers every call; reads and writes nothing itself.

LangChain does not validate tools that are made from a JSON Schema: whoever answers validates the arguments.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from store.records import ToolSpec
from store.trajectories import ToolAnswer

Answer = Callable[[str, dict[str, Any], str], Awaitable[ToolAnswer]]
"""answer(name, arguments, call_id): what a tool says to one call."""


class ToolOutage(RuntimeError):
    """What stands behind a tool has failed, not the call: it ends the run instead of being told to the policy.

    Any other exception that leaves a tool becomes an error message to the policy.
    """


class SpecTool(BaseTool):
    """A tool whose schema reaches the model exactly as its `spec` says and whose calls go to `answer`.

    `ainvoke` takes the whole tool call as ToolNode hands it in. It goes past BaseTool's argument handling on purpose:
    that unpacks the arguments into keyword arguments, where a tool parameter named `config` or `run_manager` (or one
    that the policy made up) collides with LangChain's own.
    """

    spec: ToolSpec
    answer: Answer

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> ToolMessage:
        """Answer one tool call {"name", "args", "id"}; raises ToolOutage."""
        if not isinstance(input, dict) or not input.get("id"):
            raise TypeError(f"{self.name} is called with a tool call that has an id, not with {input!r}")
        answer = await self.answer(self.name, input["args"], input["id"])
        return ToolMessage(
            content=answer.response,
            name=self.name,
            tool_call_id=answer.call_id,
            status="error" if answer.is_error else "success",
        )

    def _run(self, **arguments: Any) -> str:
        raise TypeError(f"tool {self.name} is asynchronous: run the graph with ainvoke or astream")


def make_tools(specs: Sequence[ToolSpec], answer: Answer) -> list[BaseTool]:
    """One tool for each spec, all answered by `answer`. Raises ValueError for two specs of one name."""
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ValueError(f"tool names are not unique: {names}")
    return [
        SpecTool(
            name=spec.name,
            description=spec.description,
            args_schema=spec.parameters,
            spec=spec,
            answer=answer,
        )
        for spec in specs
    ]
