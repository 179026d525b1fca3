"""Ports of this machine: whether one is free, and ones that stay free until they are used."""

import errno
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from agent.vllm_client import ServerError

FIRST, BEYOND = 10_000, 65_536
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def check_port_free(host: str, port: int, owner: str) -> None:
    """Raises ServerError if something listens there already, or `host` is no address."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServerError(f"{host!r} for the {owner} is no address: {error.strerror or error}") from error
    for family, kind, protocol, _, address in places:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(places) > 1:
                    continue  # localhost is also ::1, where a machine has that
                raise ServerError(
                    f"port {port} for the {owner} is in use: stop what listens there, or choose another port "
                    f"(server.port or gateway.port in checkloop.toml)"
                ) from error


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    return _free_run(1)


def free_ports() -> tuple[int, int]:
    """Ports for a gateway and a server that nobody listens on, nor on the one after the server's."""
    return _free_run(1), _free_run(2)


def _free_run(length: int) -> int:
    """The first of `length` neighbouring free ports.

    None that the system gives to outgoing connections, where it says which (Linux): such a port may be one's own for
    a minute, while a server starts, or between a server and the next in its place, and then be somebody's connection.
    """
    for first in _candidates(length):
        probes = [socket.socket() for _ in range(length)]
        try:
            for port, probe in enumerate(probes, first):
                probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise ServerError(f"no {length} neighbouring ports of 127.0.0.1 are free")


def _candidates(length: int) -> Iterator[int]:
    low, high = _given_to_outgoing()
    wanted = [first for first in range(FIRST, BEYOND - length + 1) if first + length - 1 < low or first > high] or list(
        range(FIRST, BEYOND - length + 1)
    )
    drawn = random.SystemRandom()  # workers that were all seeded alike draw different ones
    return (drawn.choice(wanted) for _ in range(1000))


def _given_to_outgoing() -> tuple[int, int]:
    try:
        low, high = OUTGOING.read_text().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 49_152, BEYOND - 1  # RFC 6335's dynamic ports, which macOS and Windows give
