"""`checkloop train grpo`, `sft`, `online` and `advantages`: GRPO from the log's groups, a cold start (docs/data.md),
rounds of both; what training pays each step of a dialogue.

Attached to the command in checkloop.py.
"""

from typing import Annotated

import typer

from store.configured import ConfigOption, settings_and_log
from train.names import MOST_SEED, check_name


def grpo(
    config: ConfigOption = None,
    batch: Annotated[list[str] | None, typer.Option(help="Only groups of this batch; may be repeated.")] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Instead of selection.domains; may be repeated.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Instead of selection.sources; may be repeated.")] = None,
    tool: Annotated[list[str] | None, typer.Option(help="Instead of selection.tools; may be repeated.")] = None,
    max_age: Annotated[int | None, typer.Option(min=0, help="Instead of selection.max_age.")] = None,
    max_uses: Annotated[int | None, typer.Option(min=1, help="Instead of selection.max_uses.")] = None,
    max_groups: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 96,
    base: Annotated[str, typer.Option(help="The version to start from. Default: the live one.")] = "",
    name: Annotated[str, typer.Option(help="Of the run. Default: the unfinished one, or the next.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the order of the groups.")] = 1,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between two places to go on from.")] = 4,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would take, and why the rest not.")
    ] = False,
) -> None:
    """A GRPO run from the live version on groups of the log; makes a candidate for the gate.

    On several GPUs: `accelerate launch --config_file FILE -m checkloop train grpo` (docs/training.md).
    """
    if name:
        check_name("a run", name)
    from train.grpo_run import plan_grpo, run_grpo
    from train.processes import follow, is_first, leading
    from train.progress import StageProgress
    from train.selection import choice_lines

    if not is_first():
        follow()
        return
    settings, log = settings_and_log(config)
    given = {"domains": domain, "sources": source, "tools": tool}
    changes = {key: tuple(value) for key, value in given.items() if value}
    numbers = {"max_age": max_age, "max_uses": max_uses}
    kept = {key: value for key, value in numbers.items() if value is not None}
    selection = settings.selection.model_copy(update=changes | kept)
    settings = settings.model_copy(update={"selection": selection})
    plan = plan_grpo(log, settings, name=name, base=base, seed=seed, max_groups=max_groups, batches=batch)
    if plan.choice is None:
        typer.echo(f"run {plan.name} goes on with the {len(plan.groups)} groups that it has")
    else:
        for line in choice_lines(plan.choice):
            typer.echo(line)
    if dry_run:
        with leading():
            typer.echo(f"nothing was trained: run {plan.name} would start from {plan.base}")
        return
    if plan.choice is not None and not plan.choice.taken:
        raise typer.Exit(1)
    progress = StageProgress({"train": 60.0})
    with leading(), progress.shown():
        version = run_grpo(log, settings, plan, seed=seed, checkpoint_every=checkpoint_every, progress=progress)
    if version is None:
        typer.echo("no version was made: no group has anything to learn from")
        return
    typer.echo(f"{version} is a candidate: `checkloop job submit gate version={version}` holds it against the live one")


def sft(
    config: ConfigOption = None,
    data: Annotated[str, typer.Option(help="The SFT set. Default: the newest (`checkloop data --list`).")] = "",
    base: Annotated[str, typer.Option(help="The version to start from. Default: the model of the settings.")] = "",
    name: Annotated[str, typer.Option(help="Of the run. Default: the unfinished one, or the next.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the order of the dialogues.")] = 1,
    rollouts: Annotated[
        int, typer.Option(min=0, help="At each evaluation play so many validation scenarios, on a server of its own.")
    ] = 0,
) -> None:
    """A cold start: supervised fine-tuning on an SFT set; makes a candidate, or the first live version."""
    if name:
        check_name("a run", name)
    from train.progress import StageProgress
    from train.sft_rollouts import rollouts_of
    from train.sft_run import run_sft

    settings, log = settings_and_log(config)
    progress = StageProgress({"train": 75.0})
    play = rollouts_of(log, settings, count=rollouts, seed=seed) if rollouts else None
    with progress.shown(), progress.stage("train", "train (SFT)") as stage:
        made = run_sft(log, settings, data=data, base=base, name=name, seed=seed, play=play, stage=stage)
    for reason, count in made.left_out.most_common():
        typer.echo(f"left out: {count}: {reason}")
    if (best := made.result.best if made.result is not None else None) is not None:
        loss = f"validation loss {best.loss:.4f}" if best.loss is not None else ""
        reward = f"reward {best.reward:.3f}" if best.reward is not None else ""
        typer.echo(f"the best weights are those of step {best.step}: {', '.join(filter(None, (reward, loss)))}")
    if made.is_live:
        typer.echo(f"{made.version} is live: `checkloop up` serves it")
    else:
        typer.echo(f"{made.version} is a candidate: `checkloop job submit gate version={made.version}`")


def online(
    config: ConfigOption = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Instead of online.rounds.")] = None,
    scenarios: Annotated[
        int | None, typer.Option(min=1, help="Of a round, instead of online.scenarios_per_round.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the run. Default: the unfinished one, or the next.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of rollouts and of the order of the groups.")] = 1,
) -> None:
    """Rounds of rollouts and training on a server apart, from the live version; makes a candidate for the gate.

    People go on being answered by the live version: `checkloop up` may run meanwhile.
    """
    if name:
        check_name("an online run", name)
    from train.online import OnlineRun, online_run_name
    from train.progress import StageProgress

    settings, log = settings_and_log(config)
    given = {"rounds": rounds, "scenarios_per_round": scenarios}
    changed = settings.online.model_copy(update={key: value for key, value in given.items() if value is not None})
    settings = settings.model_copy(update={"online": changed})
    expected = {"servers": 30.0}
    for n in range(1, changed.rounds + 1):
        expected |= {f"round-{n}/play": 45.0, f"round-{n}/train": 35.0}
        if changed.looks_after(n):
            expected[f"held-out-{n}"] = 15.0
    progress = StageProgress(expected)
    with progress.shown():
        made = OnlineRun(log, settings, name=name or online_run_name(log), seed=seed, progress=progress).run()
    typer.echo("mean reward of the rollouts by round: " + ", ".join(f"{100 * one:.1f}" for one in made.rewards))
    if made.stopped is not None:
        typer.echo(f"stopped early: {made.stopped}")
        if made.version is None:
            typer.echo(f"{made.base} did best on what is held out: nothing goes to the gate")
            return
    if made.version is None:
        typer.echo("no version was made: no group has anything to learn from")
        return
    typer.echo(f"{made.version} is a candidate: `checkloop job submit gate version={made.version}` judges it")


def advantages(
    trajectory: Annotated[str, typer.Argument(help="Id of a dialogue that was played in a group.")],
    config: ConfigOption = None,
) -> None:
    """Computes a past dialogue's advantages again, at each level, beside what the runs that trained on it took."""
    from train.advantage_table import advantage_lines

    settings, log = settings_and_log(config)
    for line in advantage_lines(log, settings.grpo, trajectory):
        typer.echo(line)
