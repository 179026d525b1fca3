"""How good a small judge is on held-out turns: beside its teachers, the base model and the majority on the same turns.

Pure: reads examples and verdicts. The reference is what people and checks said; where they said nothing of the held-out
turns, it is the teachers themselves, and the report says so. Figures and intervals are those of reward/agreement.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group

from reward.agreement import Agreement, measure_agreement
from reward.agreement_tables import agreement_table
from store.agreement import Pair
from store.vocabulary import Outcome, VerdictSource
from train.judge_examples import JudgeExample, base_rate

MAJORITY = "always the majority"


@dataclass(frozen=True)
class JudgeReport:
    """`against` says whose verdicts are the reference; `by_judge` has the small judge first."""

    against: str
    by_judge: dict[str, Agreement]
    by_channel: dict[str, Agreement]
    """Of the small judge alone."""

    def table(self) -> Group:
        rows: dict[tuple[str, ...], Agreement] = {(name,): found for name, found in self.by_judge.items()}
        return agreement_table(f"Held-out turns, against {self.against}", rows)

    def channel_table(self) -> Group:
        rows: dict[tuple[str, ...], Agreement] = {(name,): found for name, found in self.by_channel.items()}
        return agreement_table("The same by what the item looks at", rows, ("channel",))


def referees(examples: Sequence[JudgeExample]) -> tuple[list[JudgeExample], str]:
    """The examples whose verdict is a reference, and whose that is."""
    by_source = {source: [e for e in examples if e.source is source] for source in VerdictSource}
    sound = by_source[VerdictSource.HUMAN] + by_source[VerdictSource.CODE]
    if not sound:
        names = sorted({example.judge for example in examples})
        return list(examples), f"its teachers ({', '.join(names)}); neither people nor checks spoke there"
    words = {VerdictSource.HUMAN: "people", VerdictSource.CODE: "checks"}
    kept = [example for example in examples if example.source is not VerdictSource.LLM]
    return kept, " and ".join(f"{words[s]} ({len(by_source[s])})" for s in words if by_source[s])


def report_on(
    examples: Sequence[JudgeExample],
    name: str,
    said: Mapping[str, Sequence[Outcome]],
    against: str,
    majority: Outcome,
    seed: int,
) -> JudgeReport:
    """`said`: outcomes of each model that was asked, `name` among them, one for each of the examples.

    A teacher is measured where it spoke; a second line then holds `name` on those turns alone. `majority` is what the
    training side mostly said.
    """
    everyone = {name: said[name]} | dict(said)
    by_judge = {model: _measure(examples, outcomes, seed) for model, outcomes in everyone.items()}
    for teacher in sorted({spoke for example in examples for spoke in example.teachers}):
        where = [i for i, example in enumerate(examples) if teacher in example.teachers]
        spoke = [examples[i] for i in where]
        by_judge[f"teacher {teacher}"] = _measure(spoke, [e.teachers[teacher] for e in spoke], seed)
        if len(where) < len(examples):
            by_judge[f"{name} where {teacher} spoke"] = _measure(spoke, [said[name][i] for i in where], seed)
    by_judge[f"{MAJORITY} ({majority.value})"] = _measure(examples, [majority] * len(examples), seed)
    by_channel = {}
    for channel in sorted({example.item.focus_on.value for example in examples}):
        where = [i for i, example in enumerate(examples) if example.item.focus_on == channel]
        by_channel[channel] = _measure([examples[i] for i in where], [said[name][i] for i in where], seed)
    return JudgeReport(against, by_judge, by_channel)


def majority_of(examples: Sequence[JudgeExample]) -> Outcome:
    return Outcome.PASS if base_rate(examples) >= 0.5 else Outcome.FAIL


def figures_of(found: Agreement) -> dict[str, float]:
    """By name, those that can be said; intervals as `kappa_low`, `kappa_high`."""
    figures = {
        "base_rate": found.base_rate,
        "agreement": found.raw,
        "kappa": found.kappa,
        "true_positive_rate": found.true_positive_rate,
        "false_positive_rate": found.false_positive_rate,
    }
    said = {"pairs": float(found.n), "trajectories": float(found.trajectories), "unscored": float(found.judge_unscored)}
    for name, figure in figures.items():
        for part, value in ((name, figure.value), (f"{name}_low", figure.low), (f"{name}_high", figure.high)):
            if value is not None:
                said[part] = value
    return said


def _measure(examples: Sequence[JudgeExample], outcomes: Sequence[Outcome], seed: int) -> Agreement:
    pairs = [
        Pair(
            example.turn.trajectory_id,
            example.turn.index,
            0,
            example.outcome,
            outcome,
            "",
            None,
            example.item.check.kind if example.item.check else "llm",
            example.item.focus_on.value,
            "",
            False,
        )
        for example, outcome in zip(examples, outcomes, strict=True)
    ]
    return measure_agreement(pairs, seed)
