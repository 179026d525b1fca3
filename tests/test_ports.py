"""Ports that are chosen for a server: free, neighbouring where asked for, and never an outgoing connection's."""

import socket
from pathlib import Path

import pytest

from agent import ports
from agent.ports import free_port, free_ports
from agent.vllm_client import ServerError


def test_chosen_ports_are_free_and_no_outgoing_connections() -> None:
    """As CI once met it: the gateway of a loop that went on found its port taken by somebody's connection."""
    low, high = ports._given_to_outgoing()
    chosen = [port for _ in range(50) for gateway, server in [free_ports()] for port in (gateway, server, server + 1)]
    assert not [port for port in chosen if low <= port <= high]
    assert all(ports.FIRST <= port < ports.BEYOND for port in chosen)
    assert len(set(chosen)) > 100, "drawn, not always the same ones"
    with socket.socket() as outgoing, socket.socket() as listening:
        listening.bind(("127.0.0.1", free_port()))
        listening.listen()
        outgoing.connect(listening.getsockname())
        assert low <= outgoing.getsockname()[1] <= high, "what is left out is what the system gives away"


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        first = ports._free_run(3)
        taken.bind(("127.0.0.1", first + 1))
        monkeypatch.setattr(ports, "_candidates", lambda length: iter([first, first + 1, first + 2]))
        assert free_port() == first
        assert ports._free_run(2) not in (first, first + 1)
        monkeypatch.setattr(ports, "_candidates", lambda length: iter([first, first + 1]))
        with pytest.raises(ServerError, match=r"no 2 neighbouring ports of 127\.0\.0\.1 are free"):
            ports._free_run(2)


@pytest.mark.parametrize("said", [None, "", "10000 65535", "1024\t65535"])
def test_ports_are_found_whatever_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    """No such file (macOS), nothing in it, or all of the ports given to outgoing connections."""
    if said is not None:
        (tmp_path / "range").write_text(said)
    monkeypatch.setattr(ports, "OUTGOING", tmp_path / "range")
    for length in (1, 2):
        assert ports.FIRST <= ports._free_run(length) <= ports.BEYOND - length
