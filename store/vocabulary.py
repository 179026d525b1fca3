"""The closed sets of checkloop, one enum each; the same words stand in SQL, the CLI and the dashboard."""

from enum import StrEnum


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Origin(StrEnum):
    """Where a trajectory comes from."""

    CHAT = "chat"
    ROLLOUT = "rollout"
    EVALUATION = "evaluation"
    IMPORT = "import"


class AccessRole(StrEnum):
    """What somebody may do in the dashboard (docs/dashboard-access.md); each includes those before it."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    OPERATOR = "operator"

    def includes(self, other: "AccessRole") -> bool:
        order = list(AccessRole)
        return order.index(self) >= order.index(other)


class FocusOn(StrEnum):
    """The channel an item looks at (CM2 `focus_on`)."""

    TOOL_CALLS = "assistant_tool_calls"
    THINKING = "assistant_thinking"
    REPLY = "user_visible_reply"
    TOOL_RESPONSE = "tool_response"


class Outcome(StrEnum):
    """A verdict's outcome. UNSCORED is a value of its own: a failure to judge is never a FAIL (invariant 3)."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNSCORED = "UNSCORED"


class VerdictSource(StrEnum):
    """Who says so; a later source in this order wins over an earlier one for rewards."""

    CODE = "code"
    LLM = "llm"
    HUMAN = "human"


class JudgeMode(StrEnum):
    """How the LLM judge is asked (docs/judging.md)."""

    TURN = "turn"
    """One call for all items at the end of the turn."""
    ITEM = "item"
    """One call an item at the end of the turn."""
    STEP = "step"
    """One call a step for all items that do not hold yet."""
    PAPER = "paper"
    """One call for each item and step, the criterion before the dialogue: CM2's procedure."""
    SMALL = "small"
    """One call an item with the short question that distilled judges are trained on (`checkloop judge distil`)."""


class Combination(StrEnum):
    """How the votes of a panel become one verdict."""

    MAJORITY = "majority"
    """What more than half of the votes say; a tie is UNSCORED."""
    MEAN = "mean"
    """The share of PASS votes; an item pays that share of its weight."""


class TurnBaseline(StrEnum):
    """Which rollouts of a group the baseline of a turn is taken over."""

    REACHED = "reached"
    """Those that reached the turn. Compares like with like, but is biased where the policy decides at which turn a
    rollout stops: only the good ones are left to compare with (verl issue 7244)."""
    ALL = "all"
    """The whole group; a rollout that did not reach the turn counts 0 there."""


class AdvantageLevel(StrEnum):
    """What the advantages of a run are those of (docs/method.md)."""

    TRAJECTORY = "trajectory"
    """Equation 5: one for the whole dialogue, from the group's baseline."""
    STATE = "state"
    """Equation 5 for each step, from the baseline of the state that it was taken in."""
    TURN = "turn"
    """Equation 7."""
    STEP = "step"
    """Equation 10."""


class ModelRole(StrEnum):
    """Who a model other than the policy speaks as."""

    JUDGE = "judge"
    ANNOTATOR = "annotator"
    SIMULATOR = "simulator"
    USER = "user"
    COMPRESSOR = "compressor"
    """Shortens the thinking of reference dialogues (docs/data.md)."""
    FILTER = "filter"
    """Says which reference dialogues are unfit to learn from (docs/data.md)."""


class AnnotationStatus(StrEnum):
    DONE = "done"
    NEEDS_PERSON = "needs_person"
    """The annotator could not write a sound checklist; the reasons are with it."""


class SampleReason(StrEnum):
    """Why a turn was put up for review."""

    RANDOM = "random"
    """Drawn with equal chance from all judged turns: figures over these alone are unbiased."""
    UNCERTAIN = "uncertain"
    DISPUTED = "disputed"
    ANCHOR = "anchor"
    """Of the fixed set that is judged again and again, to see a judge drift."""


class Period(StrEnum):
    """Of the calendar, in UTC."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class ToolSource(StrEnum):
    """Where a tool response came from."""

    RECORDED = "recorded"
    WORLD = "world"
    LLM = "llm"
    REAL = "real"
    VALIDATION = "validation"
    """The arguments violate the tool's schema, or the call could not be parsed: answered with an error."""
    CLIENT = "client"
    """The response was only seen in the client's next request to the gateway."""
    PERSON = "person"
    """A person who was asked before the call did not let it run: answered with an error that says so."""


class ChatTools(StrEnum):
    """What stands behind the tools of a chat."""

    WORLD = "world"
    """The executable world of a bundled domain."""
    LLM = "llm"
    """The tools of a bundled domain, answered by the LLM simulator."""
    REAL = "real"
    """Tools that do what they say."""
    MCP = "mcp"
    """The tools of MCP servers; in the terminal alone, which is told where they are."""


class StopReason(StrEnum):
    """Why a trajectory ended. The first five are the policy's own doing and count; FAILED ones are excluded."""

    COMPLETED = "completed"
    STRICT_ITEM = "strict_item"
    """A strict item of the turn failed, so the next user turn was not issued (CM2 pipeline, step 7)."""
    MAX_STEPS = "max_steps"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"
    FAILED = "failed"
    """Server, simulator or judge trouble: excluded from baselines (invariant 3)."""


class Untrainable(StrEnum):
    """Why a step is not trained on; decided when it is logged, never in the trainer."""

    NOTHING = "nothing was sampled"
    TEMPERATURE = "sampled at another temperature than 1"
    DISTRIBUTION = "sampled from a changed distribution"
    """top_p, top_k, min_p, penalties or logit_bias: the logprobs are not those of the policy alone."""
    GRAMMAR = "sampled under a grammar"
    TRUNCATED = "truncated"
    """Cut off by max_tokens, the context or a stop string."""
    CANCELLED = "cancelled"
    """The client went away, or the deadline passed."""
    NO_LOGPROBS = "no logprobs"


class Durability(StrEnum):
    """What a commit of the log survives."""

    PROCESS = "process"
    """The death of every process at any moment; the last commits may be lost where the machine itself goes down."""
    POWER = "power"
    """A power cut as well: each commit waits until the disk has it."""


class IncidentKind(StrEnum):
    """What ended a request of the gateway without a step, or kept a server away."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    SERVER_FAILED = "server_failed"
    BAD_ANSWER = "bad_answer"
    """vLLM answered something that is no answer."""
    SERVER_DOWN = "server_down"
    """A server could not be brought back, or not with the weights that it should hold: no request's own."""


class VersionState(StrEnum):
    CANDIDATE = "candidate"
    LIVE = "live"
    RETIRED = "retired"
    REFUSED = "refused"


VERSION_TRANSITIONS: dict[VersionState, frozenset[VersionState]] = {
    VersionState.CANDIDATE: frozenset({VersionState.LIVE, VersionState.REFUSED}),
    VersionState.LIVE: frozenset({VersionState.RETIRED}),
    VersionState.RETIRED: frozenset({VersionState.LIVE}),
    VersionState.REFUSED: frozenset({VersionState.CANDIDATE}),
}
"""Legal state changes of a policy version; anything else is refused."""


class JobStatus(StrEnum):
    """Of jobs; stages of a loop and runs know RUNNING, DONE and FAILED alone."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobKind(StrEnum):
    """What a worker can do (docs/schedules.md)."""

    ROLLOUT = "rollout"
    JUDGE = "judge"
    SAMPLE = "sample"
    """Puts judged turns up for review."""
    REWARD = "reward"
    """Computes rewards again."""
    ANNOTATE = "annotate"
    """Has checklists written."""
    DATA = "data"
    """Makes an SFT set."""
    SFT = "sft"
    TRAIN = "train"
    GATE = "gate"
    RELEASE = "release"
    EVALUATE = "evaluate"
    PRUNE = "prune"


class ExitReason(StrEnum):
    """Why a job's last try ended as it did."""

    DONE = "done"
    REFUSED = "refused"
    """Settings, data or a run that refuses: trying again changes nothing."""
    SERVER = "server"
    """The gateway, vLLM, or the endpoint of another role."""
    LOG = "log"
    MACHINE = "machine"
    """Disk, files, network."""
    MEMORY = "memory"
    CRASHED = "crashed"
    """Its process died without a word."""
    MISTAKE = "mistake"
    """An exception that nobody foresaw."""
    LOST = "lost"
    """Its worker was not heard of until the lease ran out."""
    STOPPED = "stopped"
    """Its worker was told to stop."""
    CANCELLED = "cancelled"
    EARLIER = "earlier"
    """An earlier job of its pipeline failed or was cancelled."""


class MissedRuns(StrEnum):
    """What becomes of times that passed while no worker ran."""

    ONCE = "once"
    SKIP = "skip"


class Overlap(StrEnum):
    """What becomes of a schedule that is due while its last pipeline is unfinished."""

    SKIP = "skip"
    QUEUE = "queue"


class FiringOutcome(StrEnum):
    """What came of a time at which a schedule was due."""

    QUEUED = "queued"
    OVERLAP = "overlap"
    MISSED = "missed"


class RunKind(StrEnum):
    SFT = "sft"
    GRPO = "grpo"
    DISTIL = "distil"
    """A small judge, trained on verdicts."""
