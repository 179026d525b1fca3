"""`checkloop reward`: rewards of past trajectories computed again, and shown item by item."""

from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured

if TYPE_CHECKING:
    from reward.payments import Payslip


def reward(
    trajectory: Annotated[str, typer.Option(help="Only this one.")] = "",
    batch: Annotated[str, typer.Option(help="Those of one batch, for example demo-1/round-2.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything that was ever judged.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, write nothing.")] = False,
    show: Annotated[str, typer.Option(help="Show a trajectory's reward with its items; computes nothing else.")] = "",
    config: ConfigOption = None,
) -> None:
    """Computes rewards of past trajectories again, from the verdicts and checklists that count now. Judges nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from reward.recount import recompute
    from store.database import LogError
    from store.verdicts import judged_trajectories

    if sum(map(bool, (trajectory, batch, everything, show))) != 1:
        raise typer.BadParameter("say which: one of --trajectory ID, --batch B, --all, --show ID")
    log = open_configured(config)
    if show:
        from reward.payments import payslip

        for line in story(payslip(log, show)):
            typer.echo(line)
        return
    names = [trajectory] if trajectory else judged_trajectories(log, batch=batch or None)
    if batch and not names:
        raise LogError(f"no trajectory of batch {batch!r} was ever judged: `checkloop judge` judges what is not yet")
    screen = Console(stderr=True)
    columns = (TextColumn("rewards"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("", total=len(names))
        found = recompute(
            log, names, dry_run=dry_run, on_progress=lambda so_far: progress.update(bar, completed=so_far.trajectories)
        )
    for line in found.lines(dry_run):
        typer.echo(line)


def story(slip: "Payslip") -> list[str]:
    """A payslip in lines of text: the value, what it was made of, then turn by turn what each item pays, or why not."""
    reward = slip.reward
    value = "none" if reward.value is None else f"{reward.value:.4f}"
    said = [f"reward of {reward.trajectory_id}: {value}"]
    if reward.excluded_reason:
        said.append(f"excluded: {reward.excluded_reason}")
    if slip.stored is None:
        said.append("the log holds no reward of it yet")
    elif slip.stored != reward:
        change = f"`checkloop reward --trajectory {reward.trajectory_id}` changes it"
        said.append(f"the log holds another one ({slip.stored.value}): {change}")
    said += [f"made of {name}: {of}" for name, of in (reward.made_of or {}).items()]
    if slip.turn_count:
        said.append(f"{len(slip.turns)} of {slip.turn_count} turns were reached; a turn that was not counts 0")
    for turn in slip.turns:
        said.append(f"turn {turn.turn_index}: {'none' if turn.reward is None else f'{turn.reward:.4f}'}")
        several = len({payment.variant for payment in turn.payments}) > 1
        for payment in turn.payments:
            outcome = str(payment.outcome or "no verdict")
            if payment.share is not None:
                outcome += f" ({payment.share:.2f} of the votes)"
            if payment.step is not None:
                outcome += f" at step {payment.step}"
            by = f", {payment.judge}" if payment.judge else ""
            checklist = f"checklist {payment.variant}, " if several else ""
            why = f": {payment.note}" if payment.note else ""
            paid = f"{payment.pays:.4f} of {payment.weight:.4f}"
            said.append(f"  {paid}  {checklist}{payment.key}  {outcome}{by}{why}")
    return said
