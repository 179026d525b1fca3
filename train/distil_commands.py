"""`checkloop judge distil` and `checkloop judge serve`: a small judge made of the log's verdicts, and served.

Attached to the command's `judge` group in checkloop.py.
"""

from typing import Annotated

import typer

from store.configured import ConfigOption, open_configured, printer, settings_and_log
from train.names import MOST_SEED


def distil(
    config: ConfigOption = None,
    people: Annotated[bool, typer.Option(help="Learn from people's verdicts; they count first.")] = True,
    checks: Annotated[bool, typer.Option(help="Learn from code checks; they count second.")] = True,
    teacher: Annotated[
        list[str] | None, typer.Option(help="Learn from this LLM judge where nobody else spoke; may be repeated.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of the judge, like judge-0001. Default: the unfinished one, or the next.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the split, the order and the adapter.")] = 1,
) -> None:
    """Fine-tunes a small judge (LoRA) on what people, checks and stronger judges said; reports its κ."""
    from train.distil_run import EXPECTED_S, describe, distil_judge
    from train.judge_examples import Sources
    from train.progress import StageProgress

    settings, log = settings_and_log(config)
    progress = StageProgress(EXPECTED_S)
    with progress.shown():
        sources = Sources(people, checks, tuple(teacher or ()))
        made = distil_judge(log, settings, sources, name=name, seed=seed, progress=progress)
    console = printer()
    console.print(f"learnt from {describe(made.data.train)}", markup=False)
    console.print(f"held out: {describe(made.data.held_out)}, of scenarios that it did not learn from", markup=False)
    for reason, count in made.data.left_out.most_common():
        console.print(f"left out: {count}: {reason}", markup=False)
    console.print(made.report.table())
    console.print(made.report.channel_table())
    console.print(
        "Asked as it will be asked: greedy, under the answer's grammar; a PASS without evidence is UNSCORED.\n"
        f"{made.judge.path} holds adapter and card. Serve it: checkloop judge serve {made.judge.card.name}",
        markup=False,
    )


def serve(
    name: Annotated[str, typer.Argument(help="Of the judge, like judge-0001.")],
    config: ConfigOption = None,
    port: Annotated[int, typer.Option(help="Of the judge's own vLLM.")] = 8110,
    beside: Annotated[
        bool, typer.Option("--beside", help="Load it into the policy's running vLLM, where both share a base.")
    ] = False,
) -> None:
    """Serves a distilled judge with vLLM and prints what to put into checkloop.toml."""
    import asyncio

    from store.settings import load_settings
    from train.judge_files import read_judge
    from train.judge_serving import judge_section, load_beside, serve_judge

    settings = load_settings(config)
    judge = read_judge(settings.home, name)
    if not beside:
        asyncio.run(serve_judge(settings, judge, port, typer.echo))
        return
    url = asyncio.run(load_beside(open_configured(config), settings, judge))
    typer.echo(f"{name} is loaded beside the policy, until that server ends\n\n{judge_section(judge, url)}")
