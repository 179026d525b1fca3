"""Which server holds which policy version: the alias `policy`, exact versions, swaps and their proof.

The alias is answered by a server that holds the live version, and by no other (invariant 4). A gate looks at a
candidate on the `staging` server where there is one; with a single server it borrows that one, and `policy` answers
503 with Retry-After until the candidate is promoted or the live version is back. A step leases a server and keeps its
version: a swap waits for the leases to end, and new steps wait for the swap.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.openai_form import ApiError
from agent.proof import Proof, read_probe, weigh_proof
from agent.vllm_server import SERVED_NAME, ServerError, VllmServer
from store.database import Log
from store.settings import Settings
from store.versions import get_version, live_version, set_version_state
from store.vocabulary import VersionState


@dataclass(frozen=True)
class Swap:
    """One swap as it went; seconds by stage."""

    server: str
    version: str
    before: str
    drain_s: float
    reload_s: float
    proof_s: float
    proof: Proof | None

    @property
    def accepted(self) -> bool:
        return self.proof is None or self.proof.accepted

    def figures(self) -> dict[str, Any]:
        return {
            "server": self.server,
            "version": self.version,
            "before": self.before,
            "drain_s": self.drain_s,
            "reload_s": self.reload_s,
            "proof_s": self.proof_s,
            "accepted": self.accepted,
            "proof": self.proof.figures() if self.proof else None,
        }


class Slot:
    """A server and the version it holds."""

    def __init__(self, server: VllmServer, version: str) -> None:
        self.server = server
        self.version = version
        self._in_flight = 0
        self._swapping = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[str]:
        """Waits out a swap, then gives the version held; the server keeps it until the lease ends."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._swapping)
            self._in_flight += 1
        try:
            yield self.version
        finally:
            async with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    async def swap(self, version: str, path: Path, old_path: Path) -> Swap:
        """Loads `version` when no step is in flight, and proves it; the old weights come back if the proof fails."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._swapping)
            self._swapping = True
            began = time.perf_counter()
            await self._changed.wait_for(lambda: self._in_flight == 0)
        before = self.version
        try:
            drained = time.perf_counter()
            if before != version:
                await self.server.reload(path)
            reloaded = time.perf_counter()
            proof = await self._prove(path, old_path if old_path != path else None)
            proved = time.perf_counter()
            if proof is None or proof.accepted:
                self.version = version
                self.server.model_dir = path
            else:
                await self.server.reload(old_path)
            return Swap(
                self.server.name, version, before, drained - began, reloaded - drained, proved - reloaded, proof
            )
        except ServerError:
            # Nobody may be answered by weights that nobody can name: put the old ones back before the door opens.
            await self.server.reload(old_path)
            raise
        finally:
            async with self._changed:
                self._swapping = False
                self._changed.notify_all()

    async def revive(self) -> None:
        """Starts the server again after it died, with the weights of the version it held."""
        async with self._changed:
            self._swapping = True
        try:
            self.server.stop()
            self.server.launch()
            await self.server.wait_ready()
        finally:
            async with self._changed:
                self._swapping = False
                self._changed.notify_all()

    async def _prove(self, path: Path, old_path: Path | None) -> Proof | None:
        probe = read_probe(path)
        if probe is None:
            return None
        old = read_probe(old_path) if old_path else None
        answered = await self.server.prompt_logprobs(probe.ids)
        return weigh_proof(answered, probe.logprobs, old.logprobs if old and old.ids == probe.ids else None)


class Fleet:
    """The servers of one checkloop. Raises ServerError where no version is live."""

    def __init__(self, log: Log, settings: Settings) -> None:
        live = live_version(log)
        if live is None:
            raise ServerError(
                "there is no live version to serve: run `make demo`, or `checkloop init` for your own model"
            )
        self._log = log
        self.live_version = live.name
        names = ["live", "staging"] if settings.server.staging else ["live"]
        self.slots = {
            name: Slot(
                VllmServer(name, settings.server.port + i, Path(live.path), settings.server, settings.home / "servers"),
                live.name,
            )
            for i, name in enumerate(names)
        }

    @property
    def live(self) -> Slot:
        return self.slots["live"]

    async def start(self) -> None:
        """Starts all servers at once; if one fails, all are stopped and ServerError is raised."""
        try:
            for slot in self.slots.values():
                slot.server.launch()
            await asyncio.gather(*(slot.server.wait_ready() for slot in self.slots.values()))
            for slot in self.slots.values():
                await slot.server.complete({"model": SERVED_NAME, "prompt": [1], "max_tokens": 1})
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for slot in self.slots.values():
            slot.server.stop()

    def slot_of(self, model: str) -> Slot:
        """The slot that answers `policy` or `policy@v0007`. Raises ApiError 404; 503 while the server is borrowed."""
        alias, _, wanted = model.partition("@")
        if alias != SERVED_NAME:
            raise ApiError(
                404, f"model {model!r} does not exist here; use 'policy' or 'policy@v0001'", "model_not_found"
            )
        version = wanted or self.live_version
        for slot in self.slots.values():
            if slot.version == version:
                return slot
        held = ", ".join(f"{slot.version} ({name})" for name, slot in self.slots.items())
        if version == self.live_version:
            raise ApiError(503, f"the only server is looking at a candidate: {held}", "policy_busy", "server_error")
        raise ApiError(404, f"version {version!r} is not loaded; loaded are {held}", "model_not_found")

    async def stage(self, version: str) -> Swap:
        """Loads a version where a gate can look at it: on the staging server, or else on the only one."""
        return await self._swap(self.slots.get("staging", self.live), version)

    async def promote(self, version: str, reason: str) -> Swap:
        """Makes a version live: swap, proof, then the log. A failed proof marks it refused and keeps the old one."""
        swap = await self._swap(self.live, version)
        if not swap.accepted and swap.proof is not None:
            set_version_state(self._log, version, VersionState.REFUSED, f"proof failed: {swap.proof.reason}")
        elif version != self.live_version:
            set_version_state(self._log, version, VersionState.LIVE, reason)
            self.live_version = version
        return swap

    async def _swap(self, slot: Slot, version: str) -> Swap:
        # A borrowed server holds the candidate already: it is proved against the version that it is to replace.
        before = self.live_version if slot.version == version else slot.version
        old = await asyncio.to_thread(get_version, self._log, before)
        new = await asyncio.to_thread(get_version, self._log, version)
        return await slot.swap(version, Path(new.path), Path(old.path))
