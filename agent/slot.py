"""One server and what it holds: full weights, adapters on top of them, and the steps that run on it.

A step leases the slot. New weights are loaded behind a closed door: leases that can be interrupted are (their steps go
on afterwards), the others are waited for. Adapters come and go beside running steps. A slot whose server may hold other
weights than it should is `lost`: it is not able to answer until the right ones are in and proved (invariant 4).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.proof import Proof, read_probe, weigh_proof
from agent.vllm_client import SERVED_NAME, ServerError, Stuck
from agent.vllm_server import RunningServer, VllmServer

ADAPTER_FILE = "adapter_config.json"
ADAPTER_PREFIX = "adapter-"

logger = logging.getLogger(__name__)


def is_adapter(path: Path) -> bool:
    """Whether a version's directory holds a LoRA adapter, not full weights."""
    return (Path(path) / ADAPTER_FILE).is_file()


@dataclass(frozen=True)
class Weights:
    """A version as a server loads it; `base` is the full version below an adapter, None for full weights."""

    version: str
    path: Path
    base: "Weights | None" = None

    @property
    def full(self) -> "Weights":
        return self.base or self

    @property
    def adapter_name(self) -> str:
        """The adapter's name in the server: a new one for each version, so that no cache is ever shared."""
        return f"{ADAPTER_PREFIX}{self.version}"


@dataclass
class Lease:
    """A step's hold on a slot: while it lasts, `model` on `server` is `version`."""

    version: str
    model: str
    server: "VllmServer | RunningServer"
    interrupted: bool = False
    _cut: Callable[[], object] | None = None

    @contextmanager
    def interruptible(self, cut: Callable[[], object] | None) -> Iterator[None]:
        """While inside, a swap may call `cut` instead of waiting for the lease to end; None: it has to wait."""
        self._cut = cut
        try:
            yield
        finally:
            self._cut = None

    def interrupt(self) -> None:
        if self._cut is not None and not self.interrupted:
            self.interrupted = True
            self._cut()


@dataclass(frozen=True)
class Loaded:
    """How loading a version into one server went; seconds by stage."""

    server: str
    before: str
    drain_s: float
    reload_s: float
    proof_s: float
    proof: Proof | None

    @property
    def accepted(self) -> bool:
        return self.proof is None or self.proof.accepted


@dataclass
class Slot:
    """`version` is what the slot answers the alias with; `holds` says what else it can answer, while it is `able`."""

    server: "VllmServer | RunningServer"
    weights: Weights
    adapters: dict[str, Weights] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    drained_s: float = 0.0
    proven: Proof | None = None
    """The proof of what it holds now, if it was asked for one."""
    noise: float | None = None
    """Error of the last accepted proof of full weights: what rounding alone makes, nats a token."""
    lost: str | None = None
    """Why nobody knows that the server holds what it should; None while that is known."""
    _returning: bool = False

    def __post_init__(self) -> None:
        self._open.set()

    @property
    def version(self) -> str:
        return self.weights.version

    def holds(self, version: str) -> bool:
        return version in (self.weights.version, self.weights.full.version) or version in self.adapters

    async def opened(self) -> None:
        await self._open.wait()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    @property
    def able(self) -> bool:
        """Whether the server is there and holds `weights`."""
        return self.lost is None and self.server.alive

    @property
    def answers(self) -> bool:
        """Whether steps may come: at once, or as soon as the door opens."""
        return self.able or (self._returning and not self.is_open)

    def doubt(self, reason: str) -> None:
        """A server that somebody else started was out of sight: it may have come back with other weights. One that is
        ours cannot: its process would have ended."""
        if isinstance(self.server, RunningServer):
            self.lost = self.lost or reason

    @contextmanager
    def lease(self, version: str) -> Iterator[Lease]:
        """Call it with the door open and `version` held; nothing is awaited in between."""
        lease = Lease(version, self._model_of(version), self.server)
        self.leases.append(lease)
        try:
            yield lease
        finally:
            self.leases.remove(lease)
            self._changed.set()

    def interrupt(self) -> None:
        """Cuts off the steps that can go on elsewhere, or under other weights."""
        for lease in list(self.leases):
            lease.interrupt()

    @asynccontextmanager
    async def closed(self, *, interrupt: bool) -> AsyncIterator[None]:
        """The door is closed and no step runs. With `interrupt`, steps that can be are cut off, not waited for."""
        async with self._turn:
            self._open.clear()
            began = time.perf_counter()
            try:
                while self.leases:
                    self._changed.clear()
                    if interrupt:
                        self.interrupt()
                    # A lease may become interruptible while it is waited for.
                    try:
                        await asyncio.wait_for(self._changed.wait(), 0.02 if interrupt else None)
                    except TimeoutError:
                        continue
                self.drained_s = time.perf_counter() - began
                yield
            finally:
                self._open.set()

    async def load(self, new: Weights, against: Weights | None = None) -> Loaded:
        """Loads `new` behind the closed door and proves it; `against` (what was there) comes back if that fails.

        Raises ServerError, with those weights back in place, or the slot lost.
        """
        back = against or self.weights
        began = time.perf_counter()
        try:
            if self.lost is not None or self.weights.full.version != new.full.version:
                await self._drop_adapters()
                await self.server.reload(new.full.path)
            if new.base is not None:
                await self._load_missing(new)
            reloaded = time.perf_counter()
            proof = await self._prove(new, back)
            proved = time.perf_counter()
        except Stuck as error:
            self.owe(back, f"loading {new.version} failed: {error}")
            raise
        except ServerError as error:
            await self.put_back(back, f"loading {new.version} failed: {error}", instead_of=new)
            raise
        except BaseException:
            self.owe(back, f"loading {new.version} was broken off")
            raise
        if proof is None or proof.accepted:
            self.answer_with(new)
            self.proven, self.lost = proof, None
        else:
            await self.put_back(back, f"{new.version} failed its proof", instead_of=new)
        return Loaded(self.server.name, back.version, self.drained_s, reloaded - began, proved - reloaded, proof)

    async def load_beside(self, new: Weights) -> Loaded:
        """Loads an adapter on the weights that are there, with the door open, and proves it. Raises ServerError.

        Nobody can ask for it before its proof.
        """
        began = time.perf_counter()
        try:
            await self._load_missing(new)
            loaded = time.perf_counter()
            proof = await self._prove(new, self.weights, beside=True)
            proved = time.perf_counter()
            if proof is None or proof.accepted:
                self.adapters[new.version] = new
            else:
                self.adapters.pop(new.version, None)
                await self.server.unload_adapter(new.adapter_name)
        except Stuck as error:
            self.doubt(str(error))
            raise
        return Loaded(self.server.name, self.version, 0.0, loaded - began, proved - loaded, proof)

    async def prove(self, new: Weights, against: Weights) -> Loaded:
        """The proof alone, of weights that are loaded. Raises ServerError."""
        began = time.perf_counter()
        proof = await self._prove(new, against)
        return Loaded(self.server.name, against.version, 0.0, 0.0, time.perf_counter() - began, proof)

    def answer_with(self, new: Weights) -> None:
        """The alias is `new` from now on, which the server holds already."""
        if self.weights.full.version != new.full.version:
            self.adapters.clear()
        if new.base is not None:
            self.adapters[new.version] = new
        self.weights = new
        self.server.model_dir = new.full.path

    async def unload_unused(self, keep: set[str]) -> None:
        """Unloads adapters that nobody leases any more, except those in `keep`; waits for those that are leased."""
        for version in [v for v in self.adapters if v not in keep and v != self.version]:
            while any(lease.version == version for lease in self.leases):
                self._changed.clear()
                await self._changed.wait()
            if version in self.adapters and version != self.version:
                await self._remove_adapter(version)

    def owe(self, weights: Weights, reason: str) -> None:
        """The server should hold `weights` and does not, or nobody knows: the slot is lost until they are in."""
        self.answer_with(weights)
        self.lost, self.proven = reason, None

    async def put_back(self, weights: Weights, reason: str, *, instead_of: Weights) -> None:
        """`weights` come back in behind the closed door. Where that fails too, the slot stays lost."""
        self.owe(weights, reason)
        if instead_of.version != weights.version:
            self.adapters.pop(instead_of.version, None)
        try:
            await self._restore(instead_of)
        except ServerError as error:
            self.lost = f"{reason}; and {weights.version} did not come back: {error}"
            logger.warning("server %s is lost: %s", self.server.name, self.lost)

    async def bring_in(self) -> None:
        """Nobody knows what a server holds that somebody else started: it gets what it should hold, and proves it.

        Raises ServerError, and the slot is lost.
        """
        self._returning = True
        try:
            async with self.closed(interrupt=True):
                self.lost = self.lost or "what it holds is not known"
                await self._restore(self.weights)
        finally:
            self._returning = False

    async def revive(self) -> None:
        """Starts the server again, with the weights that it should hold, and proves them. Raises ServerError, and the
        slot is lost."""
        async with self._turn:
            self._open.clear()
            self.proven = None
            self.lost = self.lost or f"its process ended: {self.server.last_words()}"
            try:
                await asyncio.to_thread(self.server.stop)
                weights = self.weights
                self.server.launch()
                await self.server.wait_ready()
                await self._settle(weights, weights)
            finally:
                self._open.set()

    def _model_of(self, version: str) -> str:
        return self.adapters[version].adapter_name if version in self.adapters else SERVED_NAME

    async def _restore(self, instead_of: Weights) -> None:
        weights = self.weights
        await self.server.reload(weights.full.path)
        await self._settle(weights, instead_of)

    async def _settle(self, weights: Weights, instead_of: Weights) -> None:
        """`weights.full` is in: its adapters follow, and the proof. The slot is lost no more, unless it came to owe
        others meanwhile."""
        wanted = {adapter.adapter_name for adapter in self.adapters.values()}
        for name in await self.server.adapters():
            if name.startswith(ADAPTER_PREFIX) and name not in wanted | {weights.adapter_name}:
                await self.server.unload_adapter(name)
        if weights.base is not None:
            await self._load_missing(weights)
        proof = await self._prove(weights, instead_of)
        if proof is not None and not proof.accepted:
            raise ServerError(
                f"vLLM server {self.server.name!r} does not answer with {weights.version}: {proof.reason}. "
                f"Are the files in {weights.path} those that were trained?"
            )
        for beside in [adapter for adapter in self.adapters.values() if adapter.version != weights.version]:
            try:
                await self.load_beside(beside)
            except Stuck:
                raise
            except ServerError as error:
                self.adapters.pop(beside.version, None)
                logger.warning("adapter %s is not loaded again: %s", beside.version, error)
        if self.weights is weights:
            self.answer_with(weights)
            self.lost = None

    async def _load_missing(self, adapter: Weights) -> None:
        """An external server keeps its adapters while gateways come and go, and vLLM refuses a name that it has."""
        if adapter.adapter_name not in await self.server.adapters():
            await self.server.load_adapter(adapter.adapter_name, adapter.path)

    async def _remove_adapter(self, version: str) -> None:
        # First of all here: a step that came while the server unloads would be sent to what is gone.
        removed = self.adapters.pop(version)
        try:
            await self.server.unload_adapter(removed.adapter_name)
        except Stuck as error:
            self.doubt(str(error))
            raise
        except ServerError:
            self.adapters.setdefault(version, removed)  # the next one to tidy up tries again
            raise

    async def _drop_adapters(self) -> None:
        """All of them, also those that others loaded: on other weights a judge beside would judge otherwise, unnoticed;
        now its callers hear that it is not there."""
        for name in await self.server.adapters():
            await self.server.unload_adapter(name)
        self.adapters.clear()

    async def _prove(self, new: Weights, old: Weights, *, beside: bool = False) -> Proof | None:
        """`beside` running steps: prompt after prompt, so that none of them waits for the whole probe."""
        probe = read_probe(new.path)
        if probe is None:
            return None
        before = read_probe(old.path) if old.version != new.version else None
        earlier = before.logprobs if before is not None and before.ids == probe.ids else None
        model = SERVED_NAME if new.base is None else new.adapter_name
        parts = [[ids] for ids in probe.ids] if beside else [probe.ids]
        answered = [row for part in parts for row in await self.server.prompt_logprobs(part, model)]
        proof = weigh_proof(answered, probe.logprobs, earlier, self.noise)
        if proof.accepted and new.base is None:
            self.noise = proof.error
        return proof

    def loaded_before(self, against: Weights) -> Loaded:
        """What `load` said of the weights that it holds, for a promotion that has nothing to load."""
        return Loaded(self.server.name, against.version, 0.0, 0.0, 0.0, self.proven)
