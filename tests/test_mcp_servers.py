"""The file that names MCP servers: what it may say, and what is refused with which words."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.mcp_servers import read_mcp_config
from store.settings import SettingsError


def written(folder: Path, value: Any) -> Path:
    file = folder / "mcp.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return file


def test_servers_are_read_as_other_clients_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "k1")
    found = read_mcp_config(
        written(
            tmp_path,
            {
                "mcpServers": {
                    "files": {"command": "serve-files", "args": ["-v", "/srv"], "env": {"MODE": "read"}},
                    "shop": {
                        "type": "http",
                        "url": "https://shop.example/mcp",
                        "headers": {"Authorization": "Bearer ${SHOP_KEY}"},
                    },
                    "old": {"command": "x", "disabled": True, "env": {"KEY": "${NOT_SET_ANYWHERE}"}},
                }
            },
        )
    )
    assert list(found) == ["files", "shop"]
    assert (found["files"].command, found["files"].args, found["files"].env) == (
        "serve-files",
        ("-v", "/srv"),
        {"MODE": "read"},
    )
    assert found["shop"].headers == {"Authorization": "Bearer k1"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "is not valid JSON"),
        ({"servers": {}}, 'has no object "mcpServers"'),
        ({"mcpServers": {"a": {}}}, "server 'a': .*either a command or a url"),
        ({"mcpServers": {"a": {"command": "x", "url": "http://x"}}}, "either a command or a url"),
        ({"mcpServers": {"a": {"command": "x", "headers": {"k": "v"}}}}, "headers mean nothing to a server with a c"),
        ({"mcpServers": {"a": {"url": "http://x", "args": ["y"]}}}, "args mean nothing to a server with a url"),
        ({"mcpServers": {"a": {"command": "x", "type": "http"}}}, "type 'http' goes with a url"),
        ({"mcpServers": {"a": {"url": "http://x", "type": "sse"}}}, "type: Input should be"),
        ({"mcpServers": {"a": {"command": "x", "autoApprove": []}}}, "autoApprove: Extra inputs are not permitted"),
        ({"mcpServers": {"a": {"command": "x", "args": ["${NOT_SET}"]}}}, r"server 'a': \$\{NOT_SET\} is not in the"),
        ({"mcpServers": {"a": "x"}}, "server 'a'"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_mcp_config(written(tmp_path, value))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.json"):
        read_mcp_config(tmp_path / "missing.json")
