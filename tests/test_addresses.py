"""Names of sessions and agents: in headers, as trajectories; and whose requests may change versions."""

import socket

import pytest

from agent.addresses import name_from_header, name_in_header, refuse_strangers, trajectory_id
from agent.openai_form import ApiError
from agent.ports import check_port_free
from agent.vllm_client import ServerError
from store.settings import load_settings


@pytest.mark.parametrize("name", ["desk-1", "Łódź 東京", "50%", "100%41", "a b/c?d#e", "é", "'\"<>"])
def test_names_survive_a_header(name: str) -> None:
    carried = name_in_header(name)
    assert carried.isascii() and carried.isprintable() and " " not in carried
    assert name_from_header("session", carried) == name


def test_common_names_stand_in_headers_as_they_are() -> None:
    assert name_in_header("desk-1.worker_2:x") == "desk-1.worker_2:x"
    with pytest.raises(ApiError, match="percent-encoded UTF-8"):
        name_from_header("agent", "%ff%fe")


def test_agents_of_sessions_are_told_apart_whatever_their_dots() -> None:
    pairs = [("a.b", "c"), ("a", "b.c"), ("a", "b"), ("a.", "b"), ("a", ".b"), ("a.b.c", "d"), ("a.b", "c.d")]
    made = [trajectory_id(session, agent) for session, agent in pairs]
    assert len(set(made)) == len(pairs) and max(map(len, made)) <= 64
    assert trajectory_id("a", "b") == "a.b", "where no name has a dot, ids are what they were"
    assert trajectory_id("a.b", None) == "a.b"
    long = "s" * 60
    assert trajectory_id(f"{long}.x", "y") != trajectory_id(long, "x.y")


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("127.0.0.1:8080", None, True),
        ("localhost:8080", None, True),
        ("[::1]:8080", None, True),
        ("10.0.0.7:8080", None, True),
        ("127.0.0.1:8080", "http://127.0.0.1:8501", True),
        ("127.0.0.1:8080", "https://evil.example", False),
        ("127.0.0.1:8080", "null", False),
        ("rebound.example:8080", None, False),
        ("", None, False),
        ("[::1", None, False),
        ("127.0.0.1.evil.example", None, False),
    ],
)
def test_pages_of_the_web_are_refused(host: str, origin: str | None, allowed: bool) -> None:
    if allowed:
        refuse_strangers(host, origin, "10.0.0.7")
        return
    with pytest.raises(ApiError) as refused:
        refuse_strangers(host, origin, "10.0.0.7")
    assert refused.value.status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_every_loopback_address_can_be_served(host: str) -> None:
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    with socket.socket(family) as taken:
        try:
            taken.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} for the gateway is in use"):
            check_port_free(host, port, "gateway")
    check_port_free(host, port, "gateway")
    shown = load_settings(gateway={"host": host, "port": 8080}).gateway_url
    assert shown == ("http://[::1]:8080" if host == "::1" else f"http://{host}:8080")


def test_what_is_no_address_is_said() -> None:
    with pytest.raises(ServerError, match="'no such host' for the gateway is no address"):
        check_port_free("no such host", 8080, "gateway")
