"""One server and what it holds: full weights, adapters on top of them, and the steps that run on it.

A step leases the slot. New weights are loaded behind a closed door: leases that can be interrupted are (their steps go
on afterwards), the others are waited for. Adapters come and go beside running steps.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.proof import Proof, read_probe, weigh_proof
from agent.vllm_client import SERVED_NAME, ServerError
from agent.vllm_server import RunningServer, VllmServer

ADAPTER_FILE = "adapter_config.json"


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
        return f"adapter-{self.version}"


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
    """`version` is what the slot answers the alias with; `holds` says what else it can answer."""

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

        Raises ServerError, with those weights back in place (or the server gone).
        """
        old = self.weights
        back = against or old
        began = time.perf_counter()
        try:
            if old.full.version != new.full.version:
                await self._drop_adapters()
                await self.server.reload(new.full.path)
            if new.base is not None:
                await self._add_adapter(new)
            reloaded = time.perf_counter()
            proof = await self._prove(new, back)
            proved = time.perf_counter()
            if proof is None or proof.accepted:
                self.answer_with(new)
                self.proven = proof
            else:
                await self._take_back(new, back)
        except ServerError:
            # Nobody may be answered by weights that nobody can name.
            await self._take_back(new, back)
            raise
        return Loaded(self.server.name, back.version, self.drained_s, reloaded - began, proved - reloaded, proof)

    async def load_beside(self, new: Weights) -> Loaded:
        """Loads an adapter on the weights that are there, with the door open, and proves it. Raises ServerError."""
        began = time.perf_counter()
        await self._add_adapter(new)
        loaded = time.perf_counter()
        proof = await self._prove(new, self.weights, beside=True)
        proved = time.perf_counter()
        if proof is not None and not proof.accepted:
            await self._remove_adapter(new.version)
        return Loaded(self.server.name, self.version, 0.0, loaded - began, proved - loaded, proof)

    async def prove(self, new: Weights, against: Weights) -> Loaded:
        """The proof alone, of weights that are loaded. Raises ServerError."""
        began = time.perf_counter()
        proof = await self._prove(new, against)
        return Loaded(self.server.name, against.version, 0.0, 0.0, time.perf_counter() - began, proof)

    def answer_with(self, new: Weights) -> None:
        """The alias is `new` from now on, which the server holds already."""
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

    async def bring_in(self) -> None:
        """Nobody knows what a server holds that somebody else started: it gets what it should hold."""
        async with self.closed(interrupt=False):
            await self.server.reload(self.weights.full.path)
            await self._load_adapters_again()

    async def revive(self) -> None:
        """Starts the server again after it died, with the weights that it held."""
        async with self._turn:
            self._open.clear()
            self.proven = None
            try:
                self.server.stop()
                self.server.launch()
                await self.server.wait_ready()
                await self._load_adapters_again()
            finally:
                self._open.set()

    def _model_of(self, version: str) -> str:
        return self.adapters[version].adapter_name if version in self.adapters else SERVED_NAME

    async def _load_adapters_again(self) -> None:
        for weights in self.adapters.values():
            await self.server.load_adapter(weights.adapter_name, weights.path)

    async def _take_back(self, new: Weights, old: Weights) -> None:
        self.proven = None
        if new.version in self.adapters and new.version != old.version:
            await self._remove_adapter(new.version)
        if old.full.version != new.full.version:
            await self.server.reload(old.full.path)
        if old.base is not None:
            await self._add_adapter(old)
        self.answer_with(old)

    async def _add_adapter(self, weights: Weights) -> None:
        if weights.version not in self.adapters:
            await self.server.load_adapter(weights.adapter_name, weights.path)
            self.adapters[weights.version] = weights

    async def _remove_adapter(self, version: str) -> None:
        await self.server.unload_adapter(self.adapters[version].adapter_name)
        self.adapters.pop(version, None)

    async def _drop_adapters(self) -> None:
        """All of them, also those that others loaded: on other weights a judge beside would judge otherwise, unnoticed;
        now its callers hear that it is not there."""
        for version in list(self.adapters):
            await self._remove_adapter(version)
        for name in await self.server.adapters():
            await self.server.unload_adapter(name)

    async def _prove(self, new: Weights, old: Weights, *, beside: bool = False) -> Proof | None:
        """`beside` running steps: prompt after prompt, so that none of them waits for the whole probe."""
        probe = read_probe(new.path)
        if probe is None:
            return None
        before = read_probe(old.path) if old.version != new.version else None
        earlier = before.logprobs if before is not None and before.ids == probe.ids else None
        model = self._model_of(new.version)
        parts = [[ids] for ids in probe.ids] if beside else [probe.ids]
        answered = [row for part in parts for row in await self.server.prompt_logprobs(part, model)]
        proof = weigh_proof(answered, probe.logprobs, earlier, self.noise)
        if proof.accepted and new.base is None:
            self.noise = proof.error
        return proof

    def loaded_before(self, against: Weights) -> Loaded:
        """What `load` said of the weights that it holds, for a promotion that has nothing to load."""
        return Loaded(self.server.name, against.version, 0.0, 0.0, 0.0, self.proven)
