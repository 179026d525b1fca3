"""Which MCP servers there are: a JSON file in the form that other MCP clients use.

    {"mcpServers": {"files": {"command": "mcp-server-files", "args": ["/srv/files"], "env": {"MODE": "read"}},
                    "shop": {"url": "https://shop.example/mcp", "headers": {"Authorization": "Bearer ${SHOP_KEY}"}}}}

`${NAME}` in a text is taken from the environment, so that keys stay out of the file.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from store.settings import SettingsError


class McpServer(BaseModel):
    """How to reach one server: a command that speaks MCP on its standard input and output, or a URL (streamable
    HTTP)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    """Added to a minimal environment (PATH, HOME …): the rest of this process's variables stays here."""
    cwd: Path | None = None
    url: str | None = None
    headers: dict[str, str] = {}
    type: Literal["stdio", "http", "streamable-http"] | None = None
    """Follows from `command` or `url`; other clients write it too."""
    disabled: bool = False
    timeout_s: float = Field(default=60.0, gt=0)
    """Of one call."""

    @model_validator(mode="after")
    def _one_transport(self) -> "McpServer":
        if (self.command is None) == (self.url is None):
            raise ValueError("a server has either a command or a url")
        if self.type is not None and (self.type == "stdio") != (self.url is None):
            raise ValueError(f"type {self.type!r} goes with a {'command' if self.type == 'stdio' else 'url'}")
        misplaced = ("args", "env", "cwd") if self.url else ("headers",)
        if wrong := sorted(self.model_fields_set.intersection(misplaced)):
            raise ValueError(f"{', '.join(wrong)} mean nothing to a server with a {'url' if self.url else 'command'}")
        return self


def read_mcp_config(file: Path) -> dict[str, McpServer]:
    """The servers of a configuration file, by name, without the disabled ones. Raises SettingsError."""
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"the MCP servers' file cannot be read: {error}") from error
    except ValueError as error:
        raise SettingsError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("mcpServers"), dict):
        raise SettingsError(f'{file} has no object "mcpServers": {{"NAME": {{"command": …}} or {{"url": …}}}}')
    servers = {}
    for name, values in found["mcpServers"].items():
        if isinstance(values, dict) and values.get("disabled") is True:
            continue
        try:
            servers[name] = McpServer.model_validate(_with_environment(values))
        except (ValidationError, KeyError) as error:
            if isinstance(error, KeyError):
                raise SettingsError(
                    f"{file}, server {name!r}: ${{{error.args[0]}}} is not in the environment"
                ) from None
            said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors())
            raise SettingsError(f"{file}, server {name!r}: {said}") from error
    return servers


def _with_environment(value: Any) -> Any:
    """Raises KeyError for a variable that is not set."""
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda found: os.environ[found[1]], value)
    if isinstance(value, list):
        return [_with_environment(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_environment(item) for key, item in value.items()}
    return value
