"""The gateway as a child process: started, waited for, told to load versions, stopped.

It ends with its parent: it reads its standard input, which closes when the parent goes, however it goes.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx

from agent.ports import check_port_free
from agent.startup import NotUp, wait_until_up
from agent.vllm_client import ServerError
from agent.vllm_server import KILLING_S, PATIENCE_S
from store.settings import Settings


class Child(Protocol):
    """Another process that is watched beside the gateway."""

    name: str
    log_file: Path

    @property
    def alive(self) -> bool: ...


class GatewayProcess:
    """`checkloop serve` of these settings. Use it as a context manager.

    `environment`: variables of the process that differ from this one's.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._environment = dict(environment or {})
        self._log_file = settings.home / "servers" / "gateway.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = settings.gateway_url
        token = settings.gateway.token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __enter__(self) -> "GatewayProcess":
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def launch(self) -> None:
        """Starts the process and returns at once; `wait_ready` waits for it.

        Raises ServerError where something listens at its address: a gateway there, perhaps one of another log, would
        answer in the place of this one.
        """
        check_port_free(self._settings.gateway.host, self._settings.gateway.port, "gateway")
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "checkloop", "serve", "--until-stdin-closes"]
        environment = os.environ | _as_environment(self._settings) | self._environment
        with self._log_file.open("wb") as sink:
            # A session of its own: Ctrl-C is for the parent, which stops it in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=environment, start_new_session=True
            )

    def wait_ready(self) -> None:
        """Returns when gateway and servers answer. Raises ServerError with what the gateway said."""
        if self._process is None:
            raise ServerError(f"the gateway was not started: {self._last_words()}")
        try:
            wait_until_up(self._process, f"{self.url}/health", self._settings.server.start_timeout_s + 30)
        except NotUp as error:
            raise ServerError(f"the gateway {error}: {self._last_words()}") from error

    def stop(self) -> None:
        if self._process is None:
            return
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(self._longest_stop_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def _longest_stop_s(self) -> float:
        """Connections have `gateway.shutdown_s` to end, then requests; then its servers are stopped in turn."""
        servers = (0 if self._settings.server.urls else 1) + self._settings.server.staging
        return 2 * self._settings.gateway.shutdown_s + servers * (PATIENCE_S + KILLING_S) + 10

    def wait_for_end_of(self, other: "Child") -> None:
        """Returns when the gateway or `other` ends; raises ServerError that says which and why."""
        while self._process is not None and self._process.poll() is None and other.alive:
            time.sleep(0.5)
        if other.alive:
            raise ServerError(f"the gateway ended: {self._last_words()}")
        raise ServerError(f"{other.name} ended: see {other.log_file}")

    def stage(self, version: str) -> dict[str, Any]:
        """Loads a version into the staging server; the swap's figures. Raises ServerError."""
        return self._admin(f"/admin/stage/{version}", {})

    def promote(self, version: str, reason: str) -> dict[str, Any]:
        """Makes a version live; the swap's figures. Raises ServerError."""
        return self._admin(f"/admin/promote/{version}", {"reason": reason})

    def split(self, candidate: str | None, share: float, reason: str) -> dict[str, Any]:
        """Gives a candidate a share of the sessions (None: takes it back). Raises ServerError."""
        params = {"share": str(share), "reason": reason} | ({"candidate": candidate} if candidate else {})
        return self._admin("/admin/split", params)

    def _admin(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        try:
            # Twice what one call to a server may take: a swap may also have to bring the old weights back.
            patience = 2 * self._settings.server.start_timeout_s + 60
            answer = httpx.post(f"{self.url}{path}", params=params, headers=self._headers, timeout=patience)
        except httpx.TransportError as error:
            raise ServerError(f"the gateway does not answer ({type(error).__name__}): {self._last_words()}") from error
        if answer.status_code != 200:
            said = answer.text[:300]
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = answer.json()["error"]["message"]
            raise ServerError(f"the gateway refused {path} ({answer.status_code}): {said}")
        return dict(answer.json())

    def _last_words(self) -> str:
        if self._process is None:
            return f"is `checkloop up` or `checkloop serve` running at {self.url}?"
        lines = [line for line in self._log_file.read_text(errors="replace").splitlines() if line.strip()]
        own = [line for line in lines if line.startswith("checkloop: ")]
        telling = own or lines
        return f"{telling[-1].strip() if telling else 'it wrote nothing'} (log: {self._log_file})"


def _as_environment(settings: Settings) -> dict[str, str]:
    """The parts of the settings that the gateway reads, so that it agrees with its parent on every one."""
    values = {"CHECKLOOP_HOME": str(Path(settings.home).resolve()), "CHECKLOOP_DATABASE_URL": settings.url}
    for section in ("server", "gateway", "model", "log"):
        values[f"CHECKLOOP_{section.upper()}"] = getattr(settings, section).model_dump_json()
    return values
