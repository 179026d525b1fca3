"""The gateway that a job talks to: the one that runs at the settings' address, or one that is started for the job.

A gate borrows the server that people are answered by, where there is no staging server. Whatever happens, the live
version is brought back: at the end, by the worker where a job's process was killed, and by the next job.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from agent.gateway_process import GatewayProcess
from agent.vllm_client import ServerError
from store.database import Log
from store.settings import Settings
from store.versions import list_versions, live_version


class JobGateway:
    """Opened when it is needed. Use it as a context manager."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        self._opened: GatewayProcess | None = None
        self._ours = False

    def __enter__(self) -> "JobGateway":
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is None:
            return
        if self._ours:
            self._opened.stop()
        else:
            bring_back_live(self._log, self._settings)

    def open(self) -> GatewayProcess:
        """Raises ServerError if none comes up, or if what answers there belongs to another log."""
        if self._opened is None:
            gateway = GatewayProcess(self._settings)
            if is_running(self._settings):
                _check_log(self._log, self._settings)
                self._opened = gateway
                bring_back_live(self._log, self._settings)
            else:
                self._ours = True
                self._opened = gateway
                gateway.launch()
                gateway.wait_ready()
        return self._opened

    def is_shared(self) -> bool:
        """Whether it is one that others use, not one that was started for the job."""
        return not self._ours and is_running(self._settings)

    def bring_back_live(self) -> None:
        """Where the live version has made room for another one. Raises ServerError."""
        self.open()
        bring_back_live(self._log, self._settings)

    @contextmanager
    def holding(self, version: str) -> Iterator[None]:
        """`version` can be asked for meanwhile: it is staged unless a server holds it. ServerError if it fails its
        proof."""
        gateway = self.open()
        if version in loaded_versions(self._settings):
            yield
            return
        try:
            staged = gateway.stage(version)
            if not staged["accepted"]:
                raise ServerError(f"the server does not answer with {version}: {staged['proof']['reason']}")
            yield
        finally:
            bring_back_live(self._log, self._settings)


def is_running(settings: Settings) -> bool:
    """Whether a gateway answers at the settings' address; its servers may be busy."""
    try:
        answer = httpx.get(f"{settings.gateway_url}/health", timeout=5.0)
    except httpx.TransportError:
        return False
    return answer.status_code in (200, 503)


def loaded_versions(settings: Settings) -> set[str]:
    """What can be asked for now. Raises ServerError."""
    return set(_versions(settings)["loaded"].values())


def bring_back_live(log: Log, settings: Settings) -> None:
    """Where no server of the running gateway holds the live version, it is loaded again. Raises ServerError."""
    live = live_version(log)
    if live is not None and live.name not in loaded_versions(settings):
        GatewayProcess(settings).stage(live.name)


def _check_log(log: Log, settings: Settings) -> None:
    theirs = _versions(settings)["states"]
    if missing := [version.name for version in list_versions(log) if version.name not in theirs]:
        raise ServerError(
            f"the gateway at {settings.gateway_url} does not know {missing[0]}: it belongs to another log. Stop it, or "
            "choose another gateway.port"
        )


def _versions(settings: Settings) -> dict[str, Any]:
    token = settings.gateway.token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(f"{settings.gateway_url}/admin/versions", headers=headers, timeout=30.0)
        answer.raise_for_status()
        found = dict(answer.json())
    except (httpx.HTTPError, ValueError) as error:
        raise ServerError(f"what answers at {settings.gateway_url} is no gateway of checkloop: {error}") from error
    if not {"loaded", "states"} <= found.keys():
        raise ServerError(f"what answers at {settings.gateway_url} is no gateway of checkloop")
    return found
