"""Which server holds which policy version: the alias `policy`, exact versions, the traffic split, swaps.

The alias is answered by a server that holds the live version (or, for the sessions of a traffic split, the candidate)
and by no other (invariant 4). A gate looks at a candidate on the `staging` server where there is one; with a single
server it borrows that one, and `policy` answers 503 with Retry-After until the candidate is promoted or the live
version is back.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.openai_form import ApiError
from agent.slot import Lease, Loaded, Slot, Weights, is_adapter
from agent.vllm_client import SERVED_NAME, ServerError
from agent.vllm_server import RunningServer, VllmServer, is_cpu_build
from agent.weight_files import damaged_files
from store.database import Log
from store.settings import Settings
from store.traffic import TrafficSplit, set_traffic_split, traffic_split
from store.versions import PRUNED, get_version, live_version, set_version_state
from store.vocabulary import VersionState

BUSY_RETRY_S = 2


@dataclass(frozen=True)
class Swap:
    """One swap as it went, over all servers concerned; seconds by stage are the slowest server's."""

    version: str
    servers: Sequence[Loaded]

    @property
    def accepted(self) -> bool:
        return all(loaded.accepted for loaded in self.servers)

    @property
    def worst(self) -> Loaded:
        refused = [loaded for loaded in self.servers if not loaded.accepted]
        return (refused or list(self.servers))[0]

    def figures(self) -> dict[str, Any]:
        worst = self.worst
        return {
            "server": ", ".join(loaded.server for loaded in self.servers),
            "version": self.version,
            "before": worst.before,
            "drain_s": max(loaded.drain_s for loaded in self.servers),
            "reload_s": max(loaded.reload_s for loaded in self.servers),
            "proof_s": max(loaded.proof_s for loaded in self.servers),
            "accepted": self.accepted,
            "proof": worst.proof.figures() if worst.proof else None,
        }


class Fleet:
    """The servers of one checkloop. Raises ServerError where no version is live."""

    def __init__(self, log: Log, settings: Settings) -> None:
        live = live_version(log)
        if live is None:
            raise ServerError(
                "there is no live version to serve: run `make demo`, or `checkloop init` for your own model"
            )
        self._log = log
        self._settings = settings
        self.live_version = live.name
        self.split: TrafficSplit | None = traffic_split(log)
        self._swapping = asyncio.Lock()
        self._tidying: asyncio.Future[Any] | None = None
        weights = self._weights(live.name, whole=True)
        self.live_slots = [Slot(server, weights) for server in self._live_servers(weights.full.path)]
        staging = self._started("staging", 1, weights.full.path) if settings.server.staging else None
        self.staging = Slot(staging, weights) if staging else None

    @property
    def slots(self) -> dict[str, Slot]:
        """By the part that they play now: `live` (or `live-0`, `live-1` …), `staging`."""
        many = len(self.live_slots) > 1
        named = {f"live-{n}" if many else "live": slot for n, slot in enumerate(self.live_slots)}
        return named | ({"staging": self.staging} if self.staging else {})

    @property
    def live(self) -> Slot:
        return self.live_slots[0]

    async def start(self) -> None:
        """Starts all servers at once; if one fails, all are stopped and ServerError is raised."""
        try:
            for slot in self.slots.values():
                slot.server.launch()
            await asyncio.gather(*(slot.server.wait_ready() for slot in self.slots.values()))
            for slot in self.slots.values():
                if isinstance(slot.server, RunningServer):
                    await slot.bring_in()
                if slot.weights.base is not None:
                    await slot.load_beside(slot.weights)
                await slot.server.complete({"model": SERVED_NAME, "prompt": [1], "max_tokens": 1})
                await self._prove_start(slot)
        except BaseException:
            self.stop()
            raise

    async def close(self) -> None:
        """Stops the servers that are ours, and talks to none any more."""
        self.stop()
        for slot in self._all():
            await slot.server.close()

    def stop(self) -> None:
        for slot in self.slots.values():
            slot.server.stop()

    async def _prove_start(self, slot: Slot) -> None:
        """What is about to be served must be the live version from the first answer on."""
        proof = (await slot.prove(slot.weights, slot.weights)).proof
        if proof is not None and not proof.accepted:
            raise ServerError(
                f"vLLM server {slot.server.name!r} does not answer with {slot.version}: {proof.reason}. "
                f"Are the files in {slot.weights.path} those that were trained?"
            )

    async def watch(self) -> None:
        """Starts a server again that died; its requests have failed with 503 and may be tried again."""
        while True:
            await asyncio.sleep(1.0)
            for slot in self.slots.values():
                if isinstance(slot.server, RunningServer):
                    was_alive = slot.server.alive
                    if await slot.server.look() and not was_alive:
                        await slot.bring_in()
                elif not slot.server.alive and slot.is_open:
                    await slot.revive()

    def version_for(self, session: str, model: str) -> str:
        """The version that `model` means for `session`. Raises ApiError 404 for another name than `policy`."""
        alias, _, wanted = model.partition("@")
        if alias != SERVED_NAME:
            raise ApiError(
                404, f"model {model!r} does not exist here; use 'policy' or 'policy@v0001'", "model_not_found"
            )
        if wanted:
            return wanted
        split = self.split
        if split is not None and _point(session) < split.share and self._holds(split.candidate):
            return split.candidate
        return self.live_version

    def route(self, session: str, model: str) -> tuple[Slot, str]:
        """The slot and version that answer. Raises ApiError 404 (not loaded) or 503 (the server is borrowed)."""
        version = self.version_for(session, model)
        holding = [slot for slot in self.live_slots if slot.holds(version)]
        if not holding and self.staging is not None and self.staging.holds(version):
            holding = [self.staging]
        if holding:
            able = [slot for slot in holding if slot.server.alive] or holding
            return max(able, key=lambda slot: _rank(session, slot.server.name)), version
        held = ", ".join(f"{slot.version} ({name})" for name, slot in self.slots.items())
        if version == self.live_version:
            raise ApiError(
                503,
                f"the only server is looking at a candidate: {held}",
                "policy_busy",
                "server_error",
                retry_after=BUSY_RETRY_S,
            )
        raise ApiError(404, f"version {version!r} is not loaded; loaded are {held}", "model_not_found")

    @asynccontextmanager
    async def lease(self, session: str, model: str) -> AsyncIterator[Lease]:
        """Waits out a swap, then leases what `model` means for `session`. Raises ApiError as `route`."""
        while True:
            slot, version = self.route(session, model)
            if slot.is_open:
                break
            await slot.opened()
        with slot.lease(version) as lease:
            yield lease

    async def stage(self, version: str) -> Swap:
        """Loads a version where a gate can look at it: on the staging server, or else on the only one."""
        slot = self.staging or self.live
        if self.staging is None and len(self.live_slots) > 1:
            slot = self.live_slots[-1]
        async with self._swapping:
            weights = await asyncio.to_thread(self._weights, version, whole=True)
            async with slot.closed(interrupt=slot is self.staging):
                loaded = await slot.load(weights)
        return Swap(version, [loaded])

    async def promote(self, version: str, reason: str) -> Swap:
        """Makes a version live on all live servers: load, proof, then the log, then the doors open.

        A failed proof marks it refused and brings the old one back everywhere.
        """
        async with self._swapping:
            new = await asyncio.to_thread(self._weights, version, whole=True)
            old = await asyncio.to_thread(self._weights, self.live_version)
            if self.staging is not None and self.staging.version == version and len(self.live_slots) == 1:
                swap = await self._exchange(new, old, reason)
            elif new.base is not None and all(
                slot.weights.full.version == new.full.version for slot in self.live_slots
            ):
                swap = await self._promote_beside(new, old, reason)
            else:
                swap = await self._promote_behind_doors(new, old, reason)
            if not swap.accepted and (proof := swap.worst.proof) is not None:
                await asyncio.to_thread(self._refuse, version, f"proof failed: {proof.reason}")
            if self.split is not None and self.split.candidate == version:
                ended = "it is live" if swap.accepted else "its proof failed"
                await self._record_split(None, 0.0, f"{version}: {ended}")
            # An adapter goes when the last step on it has ended, which nobody has to wait for.
            keep = {self.live_version, *([self.split.candidate] if self.split else [])}
            self._tidying = asyncio.gather(*(slot.unload_unused(keep) for slot in self._all()), return_exceptions=True)
            return swap

    async def set_split(self, candidate: str | None, share: float, reason: str) -> None:
        """Loads the candidate beside the live version and gives it its share of the sessions.

        Raises ApiError 409 where there is no place for it: no staging server, and it is no adapter; LogError for what
        is no candidate or share.
        """
        if candidate is not None and not self._holds(candidate):
            weights = await asyncio.to_thread(self._weights, candidate, whole=True)
            if weights.base is not None and self.live.weights.full.version == weights.base.version:
                async with self._swapping:
                    outcomes = [await slot.load_beside(weights) for slot in self.live_slots]
            elif self.staging is not None:
                outcomes = list((await self.stage(candidate)).servers)
            else:
                raise ApiError(
                    409,
                    f"{candidate} cannot be loaded beside the live version: set server.staging = true",
                    "no_place_for_candidate",
                )
            if not all(outcome.accepted for outcome in outcomes):
                raise ApiError(409, f"{candidate} failed its proof: it takes no sessions", "proof_failed")
        await self._record_split(candidate, share, reason)

    async def _record_split(self, candidate: str | None, share: float, reason: str) -> None:
        await asyncio.to_thread(set_traffic_split, self._log, candidate, share, reason)
        self.split = await asyncio.to_thread(traffic_split, self._log)

    async def _exchange(self, new: Weights, old: Weights, reason: str) -> Swap:
        """The staging server, which holds the candidate already, becomes the live one."""
        assert self.staging is not None
        loaded = self.staging.loaded_before(old)
        # It was proved when it was loaded; only one that held it from the start was not held against the old version.
        swap = Swap(new.version, [loaded if loaded.proof is not None else await self.staging.prove(new, old)])
        if swap.accepted:
            await asyncio.to_thread(self._make_live, new.version, reason)
            self.live_slots, self.staging = [self.staging], self.live_slots[0]
            self.live_version = new.version
            if is_cpu_build():
                # Two servers that sample at once on the same cores slow each other down tenfold.
                self.staging.interrupt()
        return swap

    async def _promote_beside(self, new: Weights, old: Weights, reason: str) -> Swap:
        loaded = [await slot.load_beside(new) for slot in self.live_slots]
        swap = Swap(new.version, loaded)
        if swap.accepted:
            await asyncio.to_thread(self._make_live, new.version, reason)
            for slot in self.live_slots:
                slot.answer_with(new)
            self.live_version = new.version
        return swap

    async def _promote_behind_doors(self, new: Weights, old: Weights, reason: str) -> Swap:
        async with AsyncExitStack() as doors:
            for slot in self.live_slots:
                await doors.enter_async_context(slot.closed(interrupt=True))
            outcomes = await asyncio.gather(
                *(slot.load(new, against=old) for slot in self.live_slots), return_exceptions=True
            )
            failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            loaded = [outcome for outcome in outcomes if isinstance(outcome, Loaded)]
            swap = Swap(new.version, loaded)
            if not failures and swap.accepted:
                await asyncio.to_thread(self._make_live, new.version, reason)
                self.live_version = new.version
                return swap
            for slot in self.live_slots:
                if slot.version != old.version:
                    await slot.load(old)
            if failures:
                raise failures[0]
            return swap

    def _make_live(self, version: str, reason: str) -> None:
        if version != self.live_version:
            set_version_state(self._log, version, VersionState.LIVE, reason)

    def _refuse(self, version: str, reason: str) -> None:
        if get_version(self._log, version).state is VersionState.CANDIDATE:
            set_version_state(self._log, version, VersionState.REFUSED, reason)

    def _weights(self, version: str, *, whole: bool = False) -> Weights:
        """Raises LogError for an unknown version, ServerError for a pruned one and for an adapter without full weights
        below it; with `whole` also for one whose files, which are all read, are not what they were."""
        found = get_version(self._log, version)
        path = Path(found.path)
        if (pruned := found.figures.get(PRUNED)) is not None and not path.is_dir():
            raise ServerError(
                f"{version} was pruned at {pruned['at']}: its weights are gone and cannot be served again"
            )
        if whole:
            _check_whole(version, path, found.files)
        if not is_adapter(path):
            return Weights(version, path)
        if not self._settings.server.max_loras:
            raise ServerError(f"{version} is an adapter: set server.max_loras to 2 to serve adapters")
        below = found.parent
        while below is not None:
            parent = get_version(self._log, below)
            if not is_adapter(Path(parent.path)):
                if whole:
                    _check_whole(parent.name, Path(parent.path), parent.files)
                return Weights(version, path, Weights(parent.name, Path(parent.path)))
            below = parent.parent
        raise ServerError(f"{version} is an adapter, but none of its parents has full weights")

    def _live_servers(self, model_dir: Path) -> list[VllmServer | RunningServer]:
        urls = self._settings.server.urls
        if not urls:
            return [self._started("live", 0, model_dir)]
        patience = self._settings.server.start_timeout_s
        return [RunningServer(f"live-{n}", url, model_dir, patience) for n, url in enumerate(urls)]

    def _started(self, name: str, offset: int, model_dir: Path) -> VllmServer:
        server = self._settings.server
        return VllmServer(name, server.port + offset, model_dir, server, self._settings.home / "servers")

    def _holds(self, version: str) -> bool:
        return any(slot.holds(version) for slot in self._all())

    def _all(self) -> list[Slot]:
        return [*self.live_slots, *([self.staging] if self.staging else [])]


def _check_whole(version: str, path: Path, files: Mapping[str, str]) -> None:
    if damage := damaged_files(path, files):
        raise ServerError(
            f"{version} is damaged and is not served: {', '.join(damage)} in {path} missing or changed since it was "
            "registered; bring the files back from a copy, or make another version live"
        )


def _point(session: str) -> float:
    """Where a session falls in [0, 1): the same at every request of it, whatever the process."""
    return int.from_bytes(hashlib.sha256(session.encode()).digest()[:8]) / 2**64


def _rank(session: str, server: str) -> bytes:
    """Rendezvous hashing: a session keeps its server while that lives, and only its own move when one dies."""
    return hashlib.sha256(f"{server}\0{session}".encode()).digest()
