"""`checkloop policy`: versions listed, shown, promoted, refused, rolled back, pinned; a share of sessions for one.

What changes who answers goes through the running gateway, which proves it; the rest is in the log.
"""

from pathlib import Path
from typing import Annotated

import typer

from store.configured import ConfigOption, open_configured, printer

app = typer.Typer(help="Policy versions: what is live, and what could be.", no_args_is_help=True)
ReasonOption = Annotated[str, typer.Option(help="Recorded with the change.")]


@app.command(name="list")
def list_all(config: ConfigOption = None) -> None:
    """All versions with parent, state, pin and the newest reason."""
    from rich.table import Table

    from agent.slot import is_adapter
    from store.traffic import pinned_versions, traffic_split
    from store.versions import list_versions, state_changes

    log = open_configured(config)
    pins, split = pinned_versions(log), traffic_split(log)
    table = Table("version", "parent", "state", "weights", "made", "why")
    for version in list_versions(log):
        marks = [str(version.state)]
        if version.name in pins:
            marks.append("pinned")
        if split is not None and split.candidate == version.name:
            marks.append(f"{100 * split.share:g} % of sessions")
        kind = "adapter" if is_adapter(Path(version.path)) else "full"
        why = state_changes(log, version.name)[-1].reason
        made = f"{version.created_at:%Y-%m-%d %H:%M}"
        table.add_row(version.name, version.parent or "–", ", ".join(marks), kind, made, why)
    printer().print(table)


@app.command()
def show(version: str, config: ConfigOption = None) -> None:
    """One version: where it comes from, its states with reasons, its gate decisions, its figures."""
    from store.traffic import pinned_versions
    from store.versions import get_version, list_gate_decisions, state_changes

    log = open_configured(config)
    found = get_version(log, version)
    typer.echo(f"{found.name}  {found.state}  parent {found.parent or 'none'}  run {found.run_id or 'none'}")
    typer.echo(f"weights: {found.path}")
    if reason := pinned_versions(log).get(version):
        typer.echo(f"pinned: {reason}")
    for change in state_changes(log, version):
        typer.echo(f"{change.created_at:%Y-%m-%d %H:%M:%S}  {change.state}: {change.reason}")
    for decision in list_gate_decisions(log):
        if decision.candidate == version:
            moment = f"{decision.created_at:%Y-%m-%d %H:%M:%S}"
            typer.echo(f"{moment}  gate {decision.outcome} against {decision.live}: {decision.reason}")
    for name, value in sorted(found.figures.items()):
        typer.echo(f"{name}: {value}")


@app.command()
def promote(version: str, reason: ReasonOption = "promoted by hand", config: ConfigOption = None) -> None:
    """Makes a version live in the running gateway, once the server has proved that it answers with it."""
    from agent.promotion import promote_version
    from store.settings import load_settings

    settings = load_settings(config)
    done = promote_version(settings, version, reason)
    typer.echo(f"{version} is live after {done.seconds:.1f} s (before: {done.before})")


@app.command()
def refuse(version: str, reason: ReasonOption = "refused by hand", config: ConfigOption = None) -> None:
    """Refuses a candidate: it does not go live any more. Its share of the sessions ends, if it has one."""
    from agent.promotion import refuse_version
    from store.settings import load_settings

    refuse_version(open_configured(config), load_settings(config), version, reason)
    typer.echo(f"{version} is refused")


@app.command()
def rollback(reason: ReasonOption = "rolled back by hand", config: ConfigOption = None) -> None:
    """Brings back the version that was live before the live one."""
    from store.versions import previous_live

    log = open_configured(config)
    promote(previous_live(log).name, reason, config)


@app.command()
def pin(version: str, reason: ReasonOption = "pinned by hand", config: ConfigOption = None) -> None:
    """Keeps a version from being pruned."""
    from store.traffic import pin_version

    pin_version(open_configured(config), version, reason)
    typer.echo(f"{version} is pinned")


@app.command()
def unpin(version: str, reason: ReasonOption = "unpinned by hand", config: ConfigOption = None) -> None:
    """Takes a pin back."""
    from store.traffic import pin_version

    pin_version(open_configured(config), version, reason, pinned=False)
    typer.echo(f"{version} is not pinned")


@app.command()
def split(
    candidate: Annotated[str, typer.Argument(help="A candidate, or `off`.")],
    share: Annotated[str, typer.Argument(help="Of the sessions, such as 10%.")] = "0%",
    reason: ReasonOption = "set by hand",
    config: ConfigOption = None,
) -> None:
    """Lets a candidate answer a share of the sessions; it is loaded beside the live version where that is possible."""
    from agent.promotion import split_traffic
    from store.settings import load_settings

    settings = load_settings(config)
    if candidate == "off":
        split_traffic(settings, None, 0.0, reason)
        typer.echo("all sessions go to the live version")
        return
    fraction = parse_share(share)
    split_traffic(settings, candidate, fraction, reason)
    typer.echo(f"{100 * fraction:g} % of the sessions go to {candidate}")


def parse_share(text: str) -> float:
    """`10%` or `0.1` as a fraction; typer.BadParameter for anything else."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is no share: write 10% or 0.1")
    return value
