"""Settings of rollouts, cold starts, GRPO runs, the selection of groups, the loop and its gate, and small judges."""

from typing import Any, Literal

from pydantic import Field, model_validator

from store.endpoint_settings import Endpoint, Section
from store.vocabulary import Split, TurnBaseline

LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LearnerSettings(Section):
    """How a run trains: all weights, or an adapter that is merged into them at the end."""

    method: Literal["full", "lora"] = "full"
    """"lora": an adapter is trained and merged into the weights at the end."""
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_modules: tuple[str, ...] = LORA_MODULES
    """Layers that the adapter changes, by the model's names."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the passes; weights, gradients and optimizer are float32. "auto": bfloat16 where the hardware multiplies it,
    else float32 (agent/precision.py)."""
    gradient_checkpointing: bool = False
    """Keep one activation a layer and compute the rest again in the backward pass: the same gradient, less memory, one
    more forward pass."""

    @model_validator(mode="after")
    def _adapter_is_trained(self) -> "LearnerSettings":
        given = [name for name in ("lora_rank", "lora_alpha", "lora_modules") if self._differs(name)]
        if self.method == "full" and given:
            raise ValueError(
                f'{given[0]} is for an adapter, but method is "full": set method to "lora", or leave {given[0]} out'
            )
        return self

    def _differs(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)


class RolloutSettings(Section):
    group_size: int = Field(default=4, ge=2)
    """G of CM2, there 24. Small for the demo: twice as many scenarios teach more than twice as many tries at one."""
    concurrency: int = Field(default=96, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    evaluation_temperature: float = Field(default=1.0, ge=0)
    """Of evaluations and gates. 1: the policy as it is trained and as the gateway serves whoever asks for nothing else;
    0: its likeliest tokens alone."""
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


class GrpoSettings(LearnerSettings):
    learning_rate: float = Field(default=8e-5, gt=0)
    """For the bundled model on small steps; CM2 takes 3e-6 for 8B."""
    scenarios_per_step: int = Field(default=8, ge=1)
    epochs: int = Field(default=1, ge=1)
    """Times each group is trained on, in another order each time; the behaviour logprobs stay the logged ones."""
    clip_low: float = Field(default=0.2, gt=0)
    """Of the ratio that `correction` names: its token's, or its sequence's (GSPO clips that one at 3e-4 and 4e-4)."""
    clip_high: float = Field(default=0.28, gt=0)
    kl: float = Field(default=1e-3, ge=0)
    """CM2: 1e-3. Where `correction` is of sequences, which the penalty cannot honour, it is 0 unless given."""
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
    baseline: Literal["group", "state"] = "group"
    """Of trajectory advantages alone: the group's mean (CM2), or for each step that of the members that heard the same
    so far (`state_advantages`)."""
    turn_baseline: TurnBaseline = TurnBaseline.REACHED
    """Of turn and step advantages: the members that reached the turn, or all, those that did not counting 0."""
    divide_by_std: bool = False
    """F of equation 5: the group's standard deviation, or 1 (CM2's final runs)."""
    trained_layers: int = Field(default=10, ge=0)
    """How many of the last transformer layers learn (0: everything, embeddings too). The rest needs no backward pass
    and no optimizer state: for the bundled model's 30 layers a step takes 0.4 of the time, and less memory. Not with
    an adapter, which is in all layers: there it is 0."""
    micro_batch_tokens: int = Field(default=2048, ge=256)
    """Of a pass; what it keeps for the way back is most of the memory of training."""
    max_tokens: int = Field(default=0, ge=0)
    """A group with a longer trajectory is left out: that one has a pass of its own, whose memory grows with the square
    of its length. 0: as long as the model's context."""
    max_excluded: float = Field(default=0.2, ge=0, le=1)
    """A run refuses to train when a greater share of its trajectories is excluded (invariant 3)."""
    alerts: AlertSettings = AlertSettings()

    @model_validator(mode="before")
    @classmethod
    def _adapter_is_in_all_layers(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("method") == "lora":
            return {"trained_layers": 0} | given
        return given

    @model_validator(mode="before")
    @classmethod
    def _penalty_is_of_tokens(cls, given: Any) -> Any:
        if isinstance(given, dict) and str(given.get("correction", "")).startswith("sequence_"):
            return {"kl": 0.0} | given
        return given

    @model_validator(mode="after")
    def _adapter_fits(self) -> "GrpoSettings":
        if self.method == "lora" and self.trained_layers:
            raise ValueError(
                f'trained_layers = {self.trained_layers} is for method "full", but method is "lora", whose adapter is '
                "in all layers: leave trained_layers out"
            )
        if self.method == "lora" and self.reference != "parent":
            raise ValueError(
                f'reference = "{self.reference}" needs other weights beside the trained ones, but with method "lora" '
                'the frozen weights are the reference: leave reference out, or set method to "full"'
            )
        return self

    @model_validator(mode="after")
    def _turns_have_a_baseline(self) -> "GrpoSettings":
        if self.advantage == "trajectory" and self.turn_baseline is not TurnBaseline.REACHED:
            raise ValueError(
                f'turn_baseline = "{self.turn_baseline}" is for advantages of turns and steps, but advantage is '
                '"trajectory": set advantage to "turn" or "step", or leave turn_baseline out'
            )
        return self

    @model_validator(mode="after")
    def _trajectories_have_a_baseline(self) -> "GrpoSettings":
        if self.advantage != "trajectory" and self._differs("baseline"):
            raise ValueError(
                f'baseline = "{self.baseline}" is for advantages of trajectories, but advantage is "{self.advantage}": '
                'set advantage to "trajectory", or leave baseline out (turn_baseline is that of turns and steps)'
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
    """Runs that may train on the same group; failed runs do not count, unless their job waits to go on with them."""
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


class SftSettings(LearnerSettings):
    learning_rate: float = Field(default=5e-4, gt=0)
    epochs: int = Field(default=3, ge=1)
    dialogues: int = Field(default=64, ge=1)
    """Of the demo's cold start."""
    batch_size: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=0, ge=0)
    """Longer dialogues are left out and counted; 0: the model's context."""
    evaluate_every: int = Field(default=0, ge=0)
    """Steps between two looks at the validation dialogues; the best weights are kept. 0: once, at the end."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between two places where a killed run can go on."""
    special_tokens: dict[str, tuple[str, ...]] = Field(default_factory=dict)
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
    lora_modules: tuple[str, ...] = LORA_MODULES
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


class TrackingSettings(Section):
    """Where else the metrics of training runs go; to SQL they always do (docs/training.md)."""

    report_to: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Trackers that are installed; each finds its server and account by its own environment variables."""
    project: str = Field(default="checkloop", min_length=1)
    """Of wandb, mlflow (there the experiment) and trackio."""

    @model_validator(mode="after")
    def _each_once(self) -> "TrackingSettings":
        if len(set(self.report_to)) < len(self.report_to):
            raise ValueError(f"report_to names a tracker more than once: {', '.join(self.report_to)}")
        return self


class LoopSettings(Section):
    rounds: int = Field(default=7, ge=1)
    scenarios_per_round: int = Field(default=64, ge=1)
    test_scenarios: int = Field(default=256, ge=4)
    """One dialogue each: with 128 the error of a difference was four to five points."""
    gate_every: int = Field(default=7, ge=1)
    """A gate after so many rounds, and after the last. In between, rounds go on from the newest candidate, which only
    rollouts are sampled from: a gate costs as much as half a round, and what a few rounds gain is less than its error
    (some seven points on 48 scenarios), so that it would throw good ones away."""
    validation_scenarios: int = Field(default=96, ge=4)
    """Fresh ones for each gate."""
    gate_min_effect: float = 0.0
    """The candidate's mean validation reward must exceed the live one's by this much."""

    @property
    def gates(self) -> int:
        return -(-self.rounds // self.gate_every)


class OnlineSettings(Section):
    """`checkloop train online`: rounds of rollouts and training on a server apart (docs/training.md)."""

    rounds: int = Field(default=4, ge=1)
    scenarios_per_round: int = Field(default=64, ge=1)
    """Those of split train that were played least; `rollout.group_size` dialogues of each."""
    max_staleness: int = Field(default=1, ge=0)
    """Rounds that may be played while one is trained, so how many versions the one that sampled a group may lie behind
    the one that is trained on it. 0: rollouts and training take turns."""
    held_out_every: int = Field(default=2, ge=0)
    """Rounds between two looks at validation scenarios, which stop a run whose rollouts earn more while these earn less
    (train/held_out.py). 0: never; nor where the log has no validation scenario."""
    held_out_scenarios: int = Field(default=32, ge=4)
    """Those that evaluations played least; one dialogue of each."""
    gateway_port: int = Field(default=0, ge=0, le=65535)
    """Of the training server; 0: any that is free. So with `server_port`."""
    server_port: int = Field(default=0, ge=0, le=65535)
    devices: str = ""
    """GPUs of the training server ("1", "2,3"; its CUDA_VISIBLE_DEVICES). Empty: those of the trainer."""

    def looks_after(self, n: int) -> bool:
        """Whether a look at what is held out follows round n; after the last one a gate comes anyway."""
        return self.held_out_every > 0 and n < self.rounds and n % self.held_out_every == 0


class GateSettings(Section):
    """What a candidate must show beside a mean reward that exceeds the live one's by `loop.gate_min_effect`."""

    test: Literal["mean", "bootstrap", "permutation"] = "mean"
    """How sure that must be. "mean": the difference of the means counts as it is (its interval is shown), since one
    round's gain is less than a few dozen scenarios can prove; "bootstrap": the lower end of the paired interval must
    exceed it; "permutation": a one-sided sign-flip test must reject that it does not."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    parts: bool = True
    """No domain and no strict item significantly worse than the live version's (train/gate_items.py)."""
    max_excluded: float = Field(default=0.2, ge=0, lt=1)
    """Share of the pairs of dialogues that may be excluded (invariant 3); beyond, the gate does not decide."""
    safety_items: tuple[str, ...] = ("safety_*",)
    """Patterns of item keys: one that the live version passes and the candidate fails refuses it."""
    max_change: float = Field(default=5.0, gt=0)
    """Nats a token between the two versions' own logprobs of the probe: beyond, nothing is played at all."""
    judge: Endpoint | None = None
    """Judges at the gate in the place of [judge], so that a candidate which learned to please that one is found out."""
