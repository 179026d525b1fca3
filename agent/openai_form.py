"""The OpenAI form of requests and errors. What the gateway does not know it refuses (invariant 7)."""

import json
from functools import lru_cache
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator


class ApiError(Exception):
    """An error in OpenAI's form; `retry_after` in seconds where trying again makes sense."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        kind: str = "invalid_request_error",
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body = {"error": {"message": message, "type": kind, "code": code, "param": param}}


REMEMBERED_SCHEMA = 16_384
"""Characters: schemas up to this size are checked once. An agent sends the same tools with every request, and checking
them took longer than everything else that the gateway does."""


def schema_fault(schema: dict[str, Any]) -> str | None:
    """What keeps `schema` from being a JSON Schema (draft 2020-12), or None."""
    text = json.dumps(schema)
    return _remembered_fault(text) if len(text) <= REMEMBERED_SCHEMA else _fault(schema)


@lru_cache(maxsize=512)
def _remembered_fault(text: str) -> str | None:
    return _fault(json.loads(text))


def _fault(schema: dict[str, Any]) -> str | None:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return str(error.message)
    return None


class FunctionCall(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str
    arguments: str = "{}"


class MessageToolCall(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


MEANT = {
    "function_call": "calls are tool_calls here, with a tool message for each",
    "audio": "the policy reads text only",
    "refusal": "put its text into content",
}
"""Fields of messages that would change what is said; without a value they say nothing."""


class ChatMessage(BaseModel):
    """Other fields (annotations, cache_control, ids …) are no part of what is said: they are left out."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    name: str | None = None

    @field_validator("content")
    @classmethod
    def _text_only(cls, content: Any) -> Any:
        if isinstance(content, list):
            for part in content:
                if part.get("type") not in ("text", "refusal") or not isinstance(
                    part.get("text", part.get("refusal")), str
                ):
                    raise ValueError(f"content parts are text here, not {part.get('type')!r}")
        return content

    @model_validator(mode="before")
    @classmethod
    def _says_nothing_else(cls, message: Any) -> Any:
        if not isinstance(message, dict):
            return message
        for field, instead in MEANT.items():
            if message.get(field):
                raise ValueError(f"{field} is not supported: {instead}")
        thought = message.get("reasoning")  # vLLM's and OpenRouter's name for it
        if message.get("reasoning_content") is None and isinstance(thought, str):
            return {**message, "reasoning_content": thought}
        return message

    @model_validator(mode="after")
    def _answers_a_call(self) -> "ChatMessage":
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message names the call that it answers (tool_call_id)")
        return self


class FunctionTool(BaseModel):
    """A tool as OpenAI has it; kept as it came for the template."""

    model_config = ConfigDict(extra="forbid")

    class Function(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
        description: str | None = None
        parameters: dict[str, Any] | None = None
        strict: bool | None = None

        @field_validator("parameters")
        @classmethod
        def _is_a_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
            if fault := schema_fault(schema or {}):
                raise ValueError(f"no JSON Schema: {fault}")
            return schema

    type: Literal["function"]
    function: Function


class NamedTool(BaseModel):
    model_config = ConfigDict(extra="forbid")

    class Name(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: str

    type: Literal["function"] = "function"
    function: Name


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool | None = None


class JsonSchemaFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    name: str = "response"
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "ResponseFormat":
        if self.type == "json_schema":
            if self.json_schema is None or self.json_schema.schema_ is None:
                raise ValueError("type json_schema needs json_schema.schema")
            if fault := schema_fault(self.json_schema.schema_):
                raise ValueError(f"json_schema.schema is no JSON Schema: {fault}")
        return self


PASSED_ON = (
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
)
"""Sampling parameters that go to vLLM as they are and change the distribution."""

MOST_METADATA = 16_384
"""Characters of JSON; OpenAI's own limits (16 pairs of 64 and 512) stay below."""


class ChatRequest(BaseModel):
    """`POST /v1/chat/completions`; an unknown or unsupported parameter is an error, never dropped."""

    model_config = ConfigDict(extra="forbid")
    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0)
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int = Field(default=1, ge=1, le=64)
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    user: str | None = Field(default=None, max_length=512)
    """Recorded with the step, as is `metadata`; neither changes the answer."""
    metadata: dict[str, Any] | None = None

    @field_validator(
        "temperature", "top_p", "n", "stream", "logprobs", "tool_choice", "parallel_tool_calls", mode="before"
    )
    @classmethod
    def _null_is_the_default(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.model_fields[str(info.field_name)].default if value is None else value

    @field_validator("metadata")
    @classmethod
    def _is_small(cls, metadata: dict[str, Any] | None) -> dict[str, Any] | None:
        if (size := len(json.dumps(metadata))) > MOST_METADATA:
            raise ValueError(f"{size} characters of JSON; at most {MOST_METADATA} are recorded with every step")
        return metadata

    @field_validator("tools")
    @classmethod
    def _are_tools(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        names = [FunctionTool.model_validate(tool).function.name for tool in tools or ()]
        if len(set(names)) != len(names):
            raise ValueError(f"two tools of one name: {sorted(n for n in set(names) if names.count(n) > 1)}")
        return tools

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.tool_choice == "required" and not self.tools:
            raise ValueError("tool_choice required needs tools")
        if isinstance(self.tool_choice, NamedTool):
            wanted = self.tool_choice.function.name
            if wanted not in [tool["function"]["name"] for tool in self.tools or ()]:
                raise ValueError(f"tool_choice names {wanted!r}, which is not among the tools")
        given = self.max_tokens, self.max_completion_tokens
        if None not in given and len(set(given)) == 2:
            raise ValueError(f"max_tokens is {given[0]} and max_completion_tokens {given[1]}: give one of them")
        if self.forced_tools and self.grammar:
            raise ValueError("tool_choice required or named and response_format json exclude each other")
        return self

    def dumped_messages(self) -> list[dict[str, Any]]:
        return [m.model_dump(exclude_none=True) for m in self.messages]

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def forced_tools(self) -> list[dict[str, Any]]:
        """The functions of which at least one must be called; none where the policy decides."""
        functions = [tool["function"] for tool in self.tools or ()]
        if self.tool_choice == "required":
            return functions
        if isinstance(self.tool_choice, NamedTool):
            return [f for f in functions if f["name"] == self.tool_choice.function.name]
        return []

    @property
    def one_call(self) -> bool:
        """Whether an answer may hold one call at most: a function that is named is called once."""
        return not self.parallel_tool_calls or isinstance(self.tool_choice, NamedTool)

    @property
    def grammar(self) -> dict[str, Any] | None:
        """`response_format` where it restricts what may be sampled."""
        if self.response_format is None or self.response_format.type == "text":
            return None
        return self.response_format.model_dump(
            by_alias=True, exclude_none=True, exclude={"json_schema": {"description"}}
        )

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """What `grammar` asks of the whole answer, as a JSON Schema."""
        if self.grammar is None or self.response_format is None:
            return None
        wanted = self.response_format.json_schema
        return {"type": "object"} if wanted is None else wanted.schema_

    @property
    def offered_tools(self) -> list[dict[str, Any]] | None:
        """The tools that the template shows."""
        return self.tools if self.tools and self.tool_choice != "none" else None

    def sampling(self) -> dict[str, Any]:
        """What the log keeps of how the step was asked for; defaults are left out."""
        names = {"temperature", "top_p", "seed", "stop", "tool_choice", "parallel_tool_calls", "n", *PASSED_ON}
        names |= {"user", "metadata"}
        kept = self.model_dump(include=names, exclude_none=True, exclude_defaults=True)
        return {"temperature": self.temperature} | kept | ({"response_format": self.grammar} if self.grammar else {})


def parse_request(body: bytes) -> ChatRequest:
    """Raises ApiError (400) that names the parameter."""
    try:
        body.decode()
        return ChatRequest.model_validate_json(body)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: {error.reason} at byte {error.start}", "invalid_body") from error
    except ValidationError as error:
        parts = []
        for e in error.errors(include_url=False, include_input=False)[:5]:
            place = ".".join(str(p) for p in e["loc"]) or "body"
            parts.append("unknown parameter: " + place if e["type"] == "extra_forbidden" else f"{place}: {e['msg']}")
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, parts[0], "invalid_body") from error
        param = str(first["loc"][0]) if first["loc"] else None
        code = "invalid_tools" if param == "tools" else "invalid_parameter"
        raise ApiError(400, "; ".join(parts), code, param=param) from error
    except RecursionError as error:
        raise ApiError(400, "the body is nested too deeply", "invalid_body") from error
