"""Which server holds which policy version: the alias `policy`, exact versions, the traffic split, swaps.

The alias is answered by a server that holds the live version (or, for the sessions of a traffic split, the candidate)
and by no other (invariant 4). A gate looks at a candidate on the `staging` server where there is one; with a single
server it borrows that one, and `policy` answers 503 with Retry-After until the candidate is promoted or the live
version is back. A server that may hold other weights than it should answers nothing until they are in and proved.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.openai_form import ApiError
from agent.proof import Proof
from agent.slot import Lease, Loaded, Slot, Weights, is_adapter
from agent.vllm_client import SERVED_NAME, ConnectionLost, ServerError
from agent.vllm_server import RunningServer, VllmServer, is_cpu_build
from agent.weight_files import damaged_files
from store.database import Log, LogError
from store.incidents import record_incident
from store.settings import Settings
from store.traffic import TrafficSplit, set_traffic_split, traffic_split
from store.versions import PRUNED, add_figures, get_version, live_version, set_version_state
from store.vocabulary import IncidentKind, VersionState

BUSY_RETRY_S = 2
LOOK_S, LONGEST_PAUSE_S = 1.0, 60.0
"""How often a server is looked at; after every failure to bring it back twice as long, up to the second."""

logger = logging.getLogger(__name__)


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
                elif slot.weights.base is not None:
                    await slot.load_beside(slot.weights)
                await slot.server.warm_up()
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
        """Brings back, for as long as it takes, what died or may hold other weights; it answers 503 meanwhile."""
        await asyncio.gather(*(self._watch(slot) for slot in self._all()))

    async def _watch(self, slot: Slot) -> None:
        pause = LOOK_S
        while True:
            await asyncio.sleep(pause)
            try:
                await _look_after(slot)
                pause = LOOK_S
            except Exception as error:  # whatever it was, the server is needed and the next try may succeed
                pause = min(2 * pause, LONGEST_PAUSE_S)
                logger.warning("server %s did not come back, again in %.0f s: %s", slot.server.name, pause, error)
                await asyncio.to_thread(self._record_trouble, slot, f"{slot.server.name} did not come back: {error}")

    def _record_trouble(self, slot: Slot, detail: str) -> None:
        try:
            record_incident(self._log, None, IncidentKind.SERVER_DOWN, detail, version=slot.version)
        except LogError as error:
            logger.warning("an incident could not be recorded (%s): %s", error, detail)

    def version_for(self, session: str, model: str) -> str:
        """The version that `model` means for `session`. Raises ApiError 404 for what names none."""
        alias, at, wanted = model.partition("@")
        if alias != SERVED_NAME or (at and not wanted):
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
        """The slot and version that answer. Raises ApiError 404 (not loaded) or 503 (no server that holds it is able,
        or it is borrowed)."""
        version = self.version_for(session, model)
        holding = [slot for slot in self.live_slots if slot.holds(version)]
        if not holding and self.staging is not None and self.staging.holds(version):
            holding = [self.staging]
        if able := [slot for slot in holding if slot.answers]:
            return max(able, key=lambda slot: _rank(session, slot.server.name)), version
        if holding:
            why = "; ".join(f"{slot.server.name}: {slot.lost or 'its process ended'}" for slot in holding)
            raise ApiError(
                503,
                f"no server is able to answer with {version} now ({why})",
                "policy_server_failed",
                "server_error",
                retry_after=BUSY_RETRY_S,
            )
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
            try:
                yield lease
            except ConnectionLost as error:
                if not lease.interrupted:
                    slot.doubt(str(error))
                raise

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
        """Makes a version live on all live servers that are able: load, proof, then the log, then the doors open. The
        others get it when they return.

        A failed proof marks it refused and brings the old one back everywhere.
        """
        async with self._swapping:
            new = await asyncio.to_thread(self._weights, version, whole=True)
            old = await asyncio.to_thread(self._weights, self.live_version)
            if self._is_staged(version) and len(self.live_slots) == 1:
                swap = await self._exchange(new, old, reason)
            else:
                able = self._able()
                if new.base is not None and all(slot.weights.full.version == new.base.version for slot in able):
                    swap = await self._promote_beside(able, new, reason)
                else:
                    swap = await self._promote_behind_doors(able, new, old, reason)
                if swap.accepted:
                    for slot in [slot for slot in self.live_slots if slot not in able]:
                        slot.owe(new, f"{version} went live without it")
            if not swap.accepted and (proof := swap.worst.proof) is not None:
                await asyncio.to_thread(self._refuse, version, proof)
            if self.split is not None and self.split.candidate == version:
                ended = "it is live" if swap.accepted else "its proof failed"
                await self._record_split(None, 0.0, f"{version}: {ended}")
            self._tidy()
            return swap

    async def set_split(self, candidate: str | None, share: float, reason: str) -> None:
        """Loads the candidate beside the live version and gives it its share of the sessions.

        Raises ApiError 409 where there is no place for it (no staging server, and it is no adapter) and where it fails
        its proof, which refuses it; LogError for what is no candidate or share.
        """
        if candidate is not None and not self._holds(candidate):
            weights = await asyncio.to_thread(self._weights, candidate, whole=True)
            if weights.base is not None and self.live.weights.full.version == weights.base.version:
                async with self._swapping:
                    able = self._able()
                    swap = Swap(candidate, [await slot.load_beside(weights) for slot in able])
                    if swap.accepted:
                        for slot in [slot for slot in self.live_slots if slot not in able]:
                            slot.adapters[candidate] = weights
                            # Another object: who is bringing it in at this moment has not seen the adapter.
                            slot.owe(replace(slot.weights), f"it was away when {candidate} was loaded")
            elif self.staging is not None:
                swap = await self.stage(candidate)
            else:
                raise ApiError(
                    409,
                    f"{candidate} cannot be loaded beside the live version: set server.staging = true",
                    "no_place_for_candidate",
                )
            if not swap.accepted and (proof := swap.worst.proof) is not None:
                await asyncio.to_thread(self._refuse, candidate, proof)
                self._tidy()
                raise ApiError(409, f"{candidate} is refused, its proof failed: {proof.reason}", "proof_failed")
        await self._record_split(candidate, share, reason)

    def _able(self) -> list[Slot]:
        """The live slots that can take a version. Raises ServerError if there is none."""
        if able := [slot for slot in self.live_slots if slot.able]:
            return able
        why = "; ".join(f"{slot.server.name}: {slot.lost or 'its process ended'}" for slot in self.live_slots)
        raise ServerError(f"no server is able to load a version now ({why}): try again when it is back")

    def _is_staged(self, version: str) -> bool:
        return self.staging is not None and self.staging.able and self.staging.version == version

    def _tidy(self) -> None:
        """An adapter goes when the last step on it has ended, which nobody has to wait for."""
        keep = {self.live_version, *([self.split.candidate] if self.split else [])}
        self._tidying = asyncio.gather(*(slot.unload_unused(keep) for slot in self._all()), return_exceptions=True)

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

    async def _promote_beside(self, slots: Sequence[Slot], new: Weights, reason: str) -> Swap:
        swap = Swap(new.version, [await slot.load_beside(new) for slot in slots])
        if swap.accepted:
            await asyncio.to_thread(self._make_live, new.version, reason)
            for slot in slots:
                slot.answer_with(new)
            self.live_version = new.version
        return swap

    async def _promote_behind_doors(self, slots: Sequence[Slot], new: Weights, old: Weights, reason: str) -> Swap:
        async with AsyncExitStack() as doors:
            for slot in slots:
                await doors.enter_async_context(slot.closed(interrupt=True))
            outcomes = await asyncio.gather(*(slot.load(new, against=old) for slot in slots), return_exceptions=True)
            failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            swap = Swap(new.version, [outcome for outcome in outcomes if isinstance(outcome, Loaded)])
            if not failures and swap.accepted:
                try:
                    await asyncio.to_thread(self._make_live, new.version, reason)
                except LogError as error:
                    failures = [error]
                else:
                    self.live_version = new.version
                    return swap
            because = f"{new.version} did not go live"
            await asyncio.gather(
                *(slot.put_back(old, because, instead_of=new) for slot in slots if slot.version != old.version)
            )
            if failures:
                raise failures[0]
            return swap

    def _make_live(self, version: str, reason: str) -> None:
        if version != self.live_version:
            set_version_state(self._log, version, VersionState.LIVE, reason)

    def _refuse(self, version: str, proof: Proof) -> None:
        """With the figures: what a version is refused for can be looked up later."""
        if get_version(self._log, version).state is VersionState.CANDIDATE:
            add_figures(self._log, version, {"proof": proof.figures()})
            set_version_state(self._log, version, VersionState.REFUSED, f"proof failed: {proof.reason}")

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


async def _look_after(slot: Slot) -> None:
    """Raises whatever keeps the slot's server from coming back."""
    if not slot.is_open:
        return  # a swap notices by itself; and a server that loads weights may be slow to say that it lives
    if not isinstance(slot.server, RunningServer):
        if not slot.able:
            await slot.revive()
    elif not await slot.server.look():
        if slot.is_open:
            slot.doubt(f"{slot.server.url} is not healthy")
    elif slot.lost is not None:
        await slot.bring_in()


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
