"""`checkloop judge agreement, flips, drift`: how far judges can be trusted."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured, printer
from store.vocabulary import Period

if TYPE_CHECKING:
    from store.agreement import Pair

app = typer.Typer()
JudgeOption = Annotated[str | None, typer.Option("--judge", help="Only this judge.")]
SeedOption = Annotated[int, typer.Option(help="Of the bootstrap.", min=0)]
DrawsOption = Annotated[int, typer.Option(help="Of the bootstrap.", min=100)]


class Reference(StrEnum):
    PEOPLE = "people"
    CHECKS = "checks"
    BOTH = "both"


class Stratum(StrEnum):
    """What to group by: columns of `store.agreement.Pair`."""

    KIND = "kind"
    CHANNEL = "channel"
    VERSION = "version"


@app.command()
def agreement(
    against: Annotated[Reference, typer.Option(help="Whom to hold the judges against.")] = Reference.BOTH,
    by: Annotated[list[Stratum] | None, typer.Option(help="Tables by this; default: all three.")] = None,
    judge: JudgeOption = None,
    seed: SeedOption = 1,
    draws: DrawsOption = 1000,
    config: ConfigOption = None,
) -> None:
    """Judges against people and against code checks: κ, base rate, true and false positive rate, with intervals."""
    from store.agreement import pairs_with_checks, pairs_with_people

    log = open_configured(config)
    strata = list(dict.fromkeys(by)) if by else list(Stratum)
    if against is not Reference.CHECKS:
        reviewed = pairs_with_people(log, judge=judge)
        unbiased = [pair for pair in reviewed if pair.unbiased]
        if unbiased:
            _print_agreement("Against people, random share (unbiased)", unbiased, strata, seed, draws)
        else:
            typer.echo(
                "Against people, random share: no randomly drawn turn has been gone through item by item: "
                "`checkloop judge sample`, then `checkloop judge say`"
            )
        if reviewed:
            title = "Against people, all reviewed (biased towards what was put up for review)"
            _print_agreement(title, reviewed, [] if unbiased else strata, seed, draws)
        else:
            typer.echo("Against people, all reviewed: no person has judged what a judge has")
    if against is not Reference.PEOPLE:
        pairs = pairs_with_checks(log, judge=judge)
        if pairs:
            _print_agreement("Against code checks", pairs, strata, seed, draws)
        else:
            typer.echo("Against code checks: no LLM has judged an item that carries a check")


@app.command()
def flips(
    judge: JudgeOption = None, seed: SeedOption = 1, draws: DrawsOption = 1000, config: ConfigOption = None
) -> None:
    """How often a judge that is asked the same again says something else."""
    from reward.agreement_tables import INTERVALS, flip_table, judge_name
    from reward.stability import measure_flips
    from store.agreement import Repeat, repeated_verdicts

    by_judge: dict[tuple[str, ...], list[Repeat]] = {}
    for repeat in repeated_verdicts(open_configured(config), judge=judge):
        by_judge.setdefault((judge_name((repeat.judge, repeat.prompt)),), []).append(repeat)
    if not by_judge:
        typer.echo("no LLM judge has been asked the same twice: set judging.draws above 1")
        return
    measured = {key: measure_flips(by_judge[key], seed, draws) for key in sorted(by_judge)}
    printer().print(flip_table("Repeated judgments", measured))
    typer.echo(INTERVALS)


@app.command()
def drift(
    per: Annotated[Period, typer.Option(help="Calendar period, in UTC.")] = Period.WEEK,
    judge: JudgeOption = None,
    seed: SeedOption = 1,
    draws: DrawsOption = 1000,
    config: ConfigOption = None,
) -> None:
    """A judge over time on the anchor set: against people, and against its own first judging."""
    from reward.agreement_tables import INTERVALS, drift_table
    from reward.stability import measure_drift
    from store.agreement import anchor_verdicts
    from store.review_samples import ANCHORS, review_batches

    log = open_configured(config)
    if ANCHORS not in {found.name for found in review_batches(log)}:
        typer.echo("there is no anchor set: `checkloop judge sample --anchors 50` fixes one")
        return
    lines = measure_drift(anchor_verdicts(log, judge=judge), per, seed, draws)
    if not lines:
        typer.echo(
            "nothing to compare: on the anchor set no LLM judge has a verdict beside a person's, nor verdicts of two "
            f"periods ({per.value}s)"
        )
        return
    printer().print(drift_table(f"Anchor set by {per.value}", lines))
    typer.echo(INTERVALS)


def _print_agreement(title: str, pairs: "Sequence[Pair]", strata: Sequence[Stratum], seed: int, draws: int) -> None:
    from reward.agreement import measure_by
    from reward.agreement_tables import INTERVALS, agreement_table, judge_name

    def keys(*columns: str) -> "Callable[[Pair], tuple[str, ...]]":
        return lambda pair: (judge_name((pair.judge, pair.prompt)), *(str(getattr(pair, name)) for name in columns))

    console = printer()
    console.print(agreement_table(title, measure_by(pairs, keys(), seed, draws)))
    for stratum in strata:
        rows = measure_by(pairs, keys(stratum.value), seed, draws)
        console.print(agreement_table(f"{title}, by {stratum.value}", rows, ("judge", stratum.value)))
    typer.echo(INTERVALS)
