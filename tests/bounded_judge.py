"""The LLM judge with reasons and quotes of at most a line: the small real model fills a string until it is cut off."""

import json
from collections.abc import Sequence
from typing import Any

from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema

from agent.role_endpoint import Said
from reward.llm_judge import Dialogue, LlmJudge

LONGEST = 60
"""Characters of a reason or a quote."""
TOKENS = 100
"""Room for an item's verdict."""


class BoundedJudge(LlmJudge):
    async def send(
        self,
        messages: Sequence[ChatCompletionMessageParam],
        dialogue: Dialogue,
        response_format: ResponseFormatJSONSchema,
        max_tokens: int,
        items: int,
        draw: int,
    ) -> Said:
        bounded: Any = json.loads(json.dumps(response_format))
        _bound(bounded["json_schema"]["schema"])
        return await super().send(messages, dialogue, bounded, min(max_tokens, TOKENS * (items + 1)), items, draw)


def _bound(schema: Any) -> None:
    """Every free string below gets a greatest length."""
    if isinstance(schema, dict):
        if schema.get("type") == "string" and not schema.keys() & {"enum", "const", "pattern"}:
            schema["maxLength"] = LONGEST
        for part in schema.values():
            _bound(part)
    elif isinstance(schema, list):
        for part in schema:
            _bound(part)
