"""`checkloop log`: what stands behind the figures."""

import typer

from store.configured import ConfigOption, open_configured

app = typer.Typer(help="The log itself.", no_args_is_help=True)


@app.callback()
def about() -> None:
    """The log itself."""


@app.command()
def check(config: ConfigOption = None) -> None:
    """Whether all ids add up; shares of forks, of steps across swaps, of steps not trained on, with the reasons."""
    from store.log_check import check_log

    found = check_log(open_configured(config))
    steps = max(found.steps, 1)
    typer.echo(f"{found.trajectories} trajectories, {found.steps} steps, {found.tokens} sampled tokens")
    typer.echo(f"forks: {found.forked} ({100 * found.fork_share:.1f} %)")
    typer.echo(f"steps across a swap: {found.across_swaps} ({100 * found.across_swaps / steps:.1f} %)")
    for reason, count in found.untrainable.most_common():
        typer.echo(f"not trained on, {reason}: {count} ({100 * count / steps:.1f} %)")
    for kind, count in found.incidents.most_common():
        typer.echo(f"incident, {kind}: {count}")
    for line in found.damaged:
        typer.echo(f"DAMAGED {line}", err=True)
    if found.damaged:
        raise typer.Exit(1)
    typer.echo("every step's ids add up")
