"""`checkloop policy` as it is typed, against the real gateway before a stand-in for vLLM."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import checkloop
from agent.gateway import Gateway
from store.database import Log
from store.traffic import pinned_versions, traffic_split
from store.versions import live_version, state_changes
from tests.faulty_vllm import a_version, one_stand_in

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Gateway, Log]]:
    """v0001 is live; v0002 is a candidate of full weights, v0004 an adapter on v0001."""
    with one_stand_in(tmp_path, max_loras=2) as (_, gateway, log, _):
        a_version(log, tmp_path, "v0002")
        a_version(log, tmp_path, "v0004", adapter=True)
        yield gateway, log


@pytest.fixture
def policy(
    running: tuple[Gateway, Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `checkloop policy …`: (status, output, errors)."""
    gateway, log = running
    file = tmp_path / "checkloop.toml"
    file.write_text(f'home = "{tmp_path}"\ndatabase_url = "{log.url}"\n[gateway]\nport = {gateway.settings.port}\n')

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["checkloop", "policy", *arguments, "--config", str(file)])
        status = 0
        try:
            checkloop.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def live(log: Log) -> str:
    found = live_version(log)
    assert found is not None
    return found.name


def test_a_version_is_promoted_and_rolled_back(policy: Command, running: tuple[Gateway, Log]) -> None:
    gateway, log = running
    status, _, complaint = policy("rollback")
    assert status == 1 and "nothing to roll back to" in complaint and live(log) == "v0001"
    status, said, _ = policy("promote", "v0002", "--reason", "tried it")
    assert status == 0 and said.startswith("v0002 is live after") and "(before: v0001)" in said
    assert (live(log), gateway.fleet.live_version) == ("v0002", "v0002")
    assert state_changes(log, "v0002")[-1].reason == "tried it"
    status, said, _ = policy("rollback")
    assert status == 0 and "v0001 is live" in said and live(log) == "v0001"
    status, _, complaint = policy("promote", "v0099")
    assert status == 1 and "404" in complaint and "v0099" in complaint


def test_versions_are_listed_and_shown(policy: Command) -> None:
    policy("pin", "v0002", "--reason", "the customer's")
    status, said, _ = policy("list")
    assert status == 0
    rows = {line.split()[1]: line for line in said.splitlines() if " v000" in line}
    assert "live" in rows["v0001"] and "candidate, pinned" in rows["v0002"] and "adapter" in rows["v0004"]
    status, said, _ = policy("show", "v0002")
    assert status == 0 and "candidate  parent v0001" in said and "pinned: the customer's" in said
    assert policy("show", "v0099")[0] == 1


def test_a_version_is_pinned_until_it_is_unpinned(policy: Command, running: tuple[Gateway, Log]) -> None:
    _, log = running
    assert policy("pin", "v0002") == (0, "v0002 is pinned\n", "")
    assert pinned_versions(log) == {"v0002": "pinned by hand"}
    assert policy("unpin", "v0002") == (0, "v0002 is not pinned\n", "")
    assert pinned_versions(log) == {}
    assert policy("pin", "v0099")[0] == 1


def test_a_candidate_gets_a_share_until_it_is_off(policy: Command, running: tuple[Gateway, Log]) -> None:
    gateway, log = running
    status, said, _ = policy("split", "v0004", "10%")
    assert (status, said) == (0, "10 % of the sessions go to v0004\n")
    split = traffic_split(log)
    assert split is not None and (split.candidate, split.share) == ("v0004", 0.1)
    assert gateway.fleet.split == split
    assert "10 % of sessions" in policy("list")[1]
    status, said, _ = policy("split", "off")
    assert (status, said) == (0, "all sessions go to the live version\n") and traffic_split(log) is None
    status, _, complaint = policy("split", "v0002", "10%")
    assert status == 1 and "server.staging" in complaint
    status, _, complaint = policy("split", "v0004", "much")
    assert status == 2 and "is no share" in complaint


def test_without_a_gateway_it_says_what_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkloop.toml"
    file.write_text(f'home = "{tmp_path}"\n[gateway]\nport = 9\n')
    monkeypatch.setattr("sys.argv", ["checkloop", "policy", "promote", "v0001", "--config", str(file)])
    with pytest.raises(SystemExit):
        checkloop.main()
    assert "is `checkloop up` or `checkloop serve` running" in capsys.readouterr().err
