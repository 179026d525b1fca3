"""`checkloop compare`: two policy versions on the same scenarios, in the terminal."""

from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured, printer
from store.vocabulary import Origin, Split

if TYPE_CHECKING:
    from reward.comparison import ItemChange, Stratum, VersionComparison
    from store.figures import Counts


def compare(
    before: Annotated[str, typer.Argument(help="A version, such as v0001.")],
    after: Annotated[str, typer.Argument(help="The version to hold against it.")],
    origin: Annotated[Origin, typer.Option(help="What they played: evaluation or rollout.")] = Origin.EVALUATION,
    split: Annotated[Split | None, typer.Option(help="Only scenarios of this split.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only scenarios of this domain.")] = None,
    limit: Annotated[int, typer.Option(help="Scenarios and items shown of each kind.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    config: ConfigOption = None,
) -> None:
    """Paired difference with its interval, by domain; regressions first; items lost and gained."""
    from rich.table import Table
    from rich.text import Text

    from reward.comparison import FEWEST, compare_versions
    from store.versions import get_version

    log = open_configured(config)
    for version in (before, after):
        get_version(log, version)
    found = compare_versions(log, before=before, after=after, origin=origin, split=split, domain=domain, seed=seed)
    for line in _left_out(found):
        typer.echo(line)
    if found.all is None:
        typer.echo(
            f"{before} and {after} have no judged scenario in common ({origin}): play the same scenarios with both, "
            f"`checkloop job submit evaluate version={before} evaluate version={after}`"
        )
        return
    table = Table("", "scenarios", before, after, "difference, points", "fully passed", "better", "worse")
    for stratum in (*found.domains, found.all):
        passed = f"{100 * stratum.passed_before:.0f} → {100 * stratum.passed_after:.0f} %{_passed_interval(stratum)}"
        means = (f"{stratum.before_mean:.3f}", f"{stratum.after_mean:.3f}")
        counts = (str(stratum.better), str(stratum.worse))
        table.add_row(Text(stratum.name), str(stratum.scenarios), *means, points(stratum), passed, *counts)
    console = printer()
    console.print(table)
    if any(stratum.interval is None for stratum in (*found.domains, found.all)):
        typer.echo(f"no interval: of fewer than {FEWEST} scenarios it would be far too narrow")
    worse = [pair for pair in found.pairs if pair.difference < 0]
    if worse:
        regressions = Table("regressed scenario", "domain", before, after, "points", "a dialogue of each")
        for pair in worse[:limit]:
            ids = f"{pair.before[0].trajectory_id} · {pair.after[0].trajectory_id}"
            values = (f"{pair.before_mean:.2f}", f"{pair.after_mean:.2f}", f"{100 * pair.difference:+.0f}")
            regressions.add_row(Text(pair.scenario), Text(pair.domain), *values, ids)
        console.print(regressions)
        if len(worse) > limit:
            typer.echo(f"{limit} of {len(worse)}: `--limit {len(worse)}` shows them all")
    for title, changes in (("item lost", found.lost), ("item gained", found.gained)):
        if changes:
            items = Table(title, "scenario", "turn", before, after)
            for change in changes[:limit]:
                items.add_row(*map(Text, _item(change)))
            console.print(items)
            if len(changes) > limit:
                typer.echo(f"{limit} of {len(changes)}: `--limit {len(changes)}` shows them all")


def points(stratum: "Stratum") -> str:
    """ "+12.0 [+4.1, +19.8]": the paired difference in points of 100, with its 95 % interval."""
    value = f"{100 * stratum.difference:+.1f}"
    if stratum.interval is None:
        return f"{value} (no interval)"
    return f"{value} [{100 * stratum.interval.low:+.1f}, {100 * stratum.interval.high:+.1f}]"


def _passed_interval(stratum: "Stratum") -> str:
    found = stratum.passed_interval
    return f", {found.in_points()}" if found else ""


def _item(change: "ItemChange") -> tuple[str, ...]:
    shares = (
        f"{counts.passed} of {counts.judged}" + (f", {counts.unscored} UNSCORED" if counts.unscored else "")
        for counts in (change.counts_before, change.counts_after)
    )
    return (change.item.question, change.scenario, str(change.item.turn_index + 1), *shares)


def _unscored(counts: "Counts") -> str:
    return f"{100 * counts.unscored / counts.total:.1f} %" if counts.total else "none"


def _left_out(found: "VersionComparison") -> list[str]:
    out, lines = found.left_out, []
    if out.only_before or out.only_after:
        lines.append(
            f"left out: {out.only_before} scenarios judged for {found.before} alone, {out.only_after} for "
            f"{found.after} alone"
        )
    if out.unjudged_before or out.unjudged_after:
        lines.append(
            f"left out: dialogues that could not be judged, {out.unjudged_before} of {found.before} and "
            f"{out.unjudged_after} of {found.after}"
        )
    if found.pairs:
        lines.append(
            f"{len(found.pairs)} of {len(found.pairs) + out.unjudged} scenarios that both played are paired; UNSCORED: "
            f"{_unscored(found.verdicts_before)} of the verdicts on {found.before}, "
            f"{_unscored(found.verdicts_after)} on {found.after}"
        )
    if found.pairs and not all(pair.same_worlds for pair in found.pairs):
        others = sum(not pair.same_worlds for pair in found.pairs)
        lines.append(f"{others} of {len(found.pairs)} scenarios were played with other seeds: the worlds may differ")
    return lines
