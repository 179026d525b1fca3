"""`checkloop reward`: rewards of past trajectories computed again, and shown item by item."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured

if TYPE_CHECKING:
    from reward.payments import Payslip
    from store.database import Log
    from store.verdicts import Reward

CHUNK = 500
"""Trajectories that are scored between two looks at the progress bar; memory is bounded by it."""


@dataclass
class Recount:
    """What computing rewards again came to."""

    trajectories: int = 0
    changed: int = 0
    up: int = 0
    down: int = 0
    total_difference: float = 0.0
    """Of values that went up or down, regardless of the sign."""
    greatest_difference: float = 0.0
    newly_scored: int = 0
    """They had no value, and have one."""
    newly_excluded: int = 0
    """They had a value, and have none."""

    def add(self, before: "Reward | None", after: "Reward") -> None:
        self.trajectories += 1
        self.changed += before != after
        value = None if before is None else before.value
        if value is not None and after.value is not None:
            self.up += after.value > value
            self.down += after.value < value
            self.total_difference += abs(after.value - value)
            self.greatest_difference = max(self.greatest_difference, abs(after.value - value))
        elif value != after.value:
            self.newly_scored += value is None
            self.newly_excluded += after.value is None

    def lines(self, dry_run: bool) -> list[str]:
        would = " would" if dry_run else ""
        said = [f"{self.trajectories} trajectories, {self.changed}{would} change{'' if dry_run else 'd'}"]
        if self.up or self.down:
            mean = self.total_difference / (self.up + self.down)
            most = self.greatest_difference
            said.append(f"values: {self.up} up, {self.down} down, by {mean:.4f} on average, {most:.4f} at most")
        if self.newly_scored or self.newly_excluded:
            said.append(f"{self.newly_scored} have a value now and had none, {self.newly_excluded} the other way round")
        return said


def reward(
    trajectory: Annotated[str, typer.Option(help="Only this one.")] = "",
    batch: Annotated[str, typer.Option(help="Those of one batch, for example demo-1/round-2.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything that was ever judged.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, write nothing.")] = False,
    show: Annotated[str, typer.Option(help="Show a trajectory's reward with its items; computes nothing else.")] = "",
    config: ConfigOption = None,
) -> None:
    """Computes rewards of past trajectories again, from the verdicts and checklists that count now. Judges nothing."""
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
    for line in recompute(log, names, dry_run=dry_run).lines(dry_run):
        typer.echo(line)


def recompute(log: "Log", trajectory_ids: "Sequence[str]", *, dry_run: bool = False) -> Recount:
    """Scores them again, `CHUNK` at a time with a progress bar. Raises LogError for an id that is not in the log."""
    from rich.console import Console
    from rich.progress import track

    from reward.scoring import score_trajectories
    from store.database import in_chunks
    from store.verdicts import rewards_of

    found = Recount()
    total, screen = -(-len(trajectory_ids) // CHUNK), Console(stderr=True)
    chunks = in_chunks(trajectory_ids, CHUNK)
    for chunk in track(chunks, "rewards", total, console=screen, transient=True, disable=not screen.is_terminal):
        before = rewards_of(log, chunk)
        for name, after in score_trajectories(log, chunk, dry_run=dry_run).items():
            found.add(before.get(name), after)
    return found


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
