"""The real thing for tests: the bundled model behind real vLLM servers and the real gateway, started once a session."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.bundled_model import prepare_bundled_model
from agent.gateway_process import GatewayProcess
from agent.ports import free_ports
from store.database import Log, open_log
from store.settings import Settings, load_settings
from store.versions import add_version, set_version_state
from store.vocabulary import VersionState

MODEL = Path(__file__).resolve().parent.parent / ".checkloop" / "model"
"""Shared with `make demo`: converting the model takes half a minute."""


@dataclass(frozen=True)
class Serving:
    """A running gateway with a live and a staging server, its log and its settings."""

    gateway: GatewayProcess
    log: Log
    settings: Settings

    @property
    def url(self) -> str:
        return self.gateway.url


def serving_settings(home: Path, **overrides: object) -> Settings:
    gateway, server = free_ports()
    small = {"port": server, "max_model_len": 2048, "max_num_seqs": 32}
    return load_settings(home=home, gateway={"port": gateway, "request_timeout_s": 600}, server=small, **overrides)


@contextmanager
def start_serving(home: Path) -> Iterator[Serving]:
    """v0001 is the bundled model as it comes, without a probe."""
    settings = serving_settings(home)
    log = open_log(settings.url)
    add_version(log, "v0001", parent=None, path=str(prepare_bundled_model(MODEL).resolve()), files={})
    set_version_state(log, "v0001", VersionState.LIVE, "first")
    with GatewayProcess(settings) as gateway:
        yield Serving(gateway, log, settings)
