"""The `checkloop` command: joins each room's commands. Errors become one clear message and exit status 1."""

import asyncio
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.policy_commands import app as policy_commands
from env_sim.chat_commands import app as chat_commands
from reward.annotate_commands import annotate
from reward.checklist_commands import app as checklist_commands
from reward.commands import judge_app
from reward.compare_commands import compare
from reward.overview_commands import overview
from reward.people_commands import app as people_commands
from reward.reward_commands import reward
from store.access_commands import app as access_commands
from store.commands import app as log_commands
from store.configured import ConfigOption, open_configured, settings_and_log
from store.export_commands import export
from store.vocabulary import ChatTools
from train.data_commands import data
from train.distil_commands import distil
from train.distil_commands import serve as serve_judge
from train.job_commands import app as job_commands
from train.names import MOST_SEED, check_name
from train.schedule_commands import app as schedule_commands
from train.train_commands import advantages, grpo, online, sft
from train.worker_commands import worker

STOPPED = 128 + signal.SIGINT
"""Exit status after Ctrl-C."""

UsageProblem: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
"""A wrong command line; Typer carries its own copy of the class and exports only some of its children."""

app = typer.Typer(
    help="Agents that keep improving from their own log.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(policy_commands, name="policy")
app.add_typer(log_commands, name="log")
app.add_typer(access_commands, name="people")
app.command(name="reward")(reward)
app.command()(compare)
app.command()(overview)
judge_app.add_typer(people_commands)
app.add_typer(judge_app, name="judge")
app.command()(annotate)
app.add_typer(checklist_commands, name="checklist")
app.command()(export)
app.add_typer(schedule_commands, name="schedule")
app.add_typer(job_commands, name="job")
app.command()(worker)


@app.command()
def demo(
    config: ConfigOption = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of everything random in the loop.")] = 1,
    name: Annotated[str, typer.Option(help="Of the loop; the same name goes on with it. Default demo-SEED.")] = "",
) -> None:
    """The whole loop on the bundled worlds: cold start, rollouts, judge, GRPO, gate, swap, before and after."""
    loop = check_name("a loop", name or f"demo-{seed}")

    from train.demo import run_demo

    _use_huge_pages()
    _stop_in_order()
    settings, log = settings_and_log(config)
    run_demo(log, settings, name=loop, seed=seed)


@app.command()
def serve(
    config: ConfigOption = None,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """The gateway with its vLLM servers, answering with the live version."""
    import uvloop

    from agent.commands import serve as serve_gateway

    _stop_in_order()
    settings, log = settings_and_log(config)
    if until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_gateway(log, settings))


@app.command()
def init(config: ConfigOption = None) -> None:
    """Registers the model of the settings (model.source) as the first version and makes it live."""
    from train.registry import register_first_version

    settings, log = settings_and_log(config)
    typer.echo(f"{register_first_version(log, settings)} is live: `checkloop up` serves it")


@app.command(name="import")
def import_scenarios(
    file: Path,
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would bring, and every bad line.")] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test/--no-self-test", help="Refuse checks that their own reference fails.")
    ] = True,
) -> None:
    """Loads a scenario file (JSON lines) into the log; all of it, or nothing if a line or a check of it is bad."""
    from reward.checklist_commands import show_self_test
    from store.database import LogError
    from store.scenarios import add_scenarios, preview_scenarios, read_scenario_file

    if dry_run:
        found = preview_scenarios(open_configured(config), file.read_bytes(), str(file))
        typer.echo(f"{len(found.scenarios)} sound scenarios, {found.new} of them new; nothing was written")
        problems = [*found.problems, *(show_self_test(found.scenarios) if self_test else ())]
        for problem in problems:
            typer.echo(problem, err=True)
        raise typer.Exit(1 if problems else 0)
    scenarios = read_scenario_file(file)
    if problems := show_self_test(scenarios) if self_test else ():
        raise LogError(
            f"nothing of {file} was imported:\n  " + "\n  ".join(problems) + "\ncorrect these items, or import them "
            "as they are with --no-self-test"
        )
    added = add_scenarios(open_configured(config), scenarios)
    typer.echo(f"{len(scenarios)} scenarios, {added} of them new")


@app.command()
def up(
    config: ConfigOption = None,
    dashboard_port: Annotated[int, typer.Option(help="Of the dashboard.")] = 8501,
) -> None:
    """The newest live version, the gateway and the dashboard, until Ctrl-C."""
    from agent.gateway_process import GatewayProcess
    from agent.vllm_server import check_port_free
    from dashboard.process import DashboardProcess
    from store.database import open_log
    from store.settings import load_settings

    _stop_in_order()
    settings = load_settings(config)
    open_log(settings.url, settings.log.durability).close()
    seen = DashboardProcess(settings, dashboard_port)
    check_port_free(seen.address, dashboard_port, "dashboard")
    typer.echo("starting vLLM and the gateway (half a minute) ...")
    with GatewayProcess(settings) as gateway, seen as dashboard:
        typer.echo(f"dashboard: {dashboard.url}\ngateway:   {gateway.url}/v1   (OpenAI-compatible)\nCtrl-C stops both")
        gateway.wait_for_end_of(dashboard)


chat_app = typer.Typer(help="Talk to the agent in the terminal; the chats that there are.")


@chat_app.callback(invoke_without_command=True)
def chat(
    context: typer.Context,
    config: ConfigOption = None,
    domain: Annotated[str, typer.Option(help="The bundled world whose tools the agent has.")] = "travel",
    session: Annotated[str, typer.Option(help="A chat to go on with.")] = "",
    tools: Annotated[ChatTools, typer.Option(help="What answers the tools of a new chat.")] = ChatTools.WORLD,
    ask_first: Annotated[
        list[str] | None,
        typer.Option(
            "--ask-first",
            help="A tool before which a new chat asks; again for another. [with consequences]",
        ),
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="A new chat asks before no tool.")] = False,
    mcp: Annotated[Path | None, typer.Option("--mcp", help="A file of MCP servers whose tools the agent has.")] = None,
) -> None:
    """Talk to the agent in the terminal. Needs `checkloop up` or `checkloop serve` running."""
    if context.invoked_subcommand is not None:
        return
    from agent.chat_terminal import run_chat
    from agent.tools import ToolOutage
    from agent.vllm_client import ServerError
    from dashboard.chats import asked_first, marked, new_seed, specs_of, stored_setup
    from dashboard.equipment import Equipment, equip, make_llm
    from env_sim.worlds import WORLDS
    from store.chats import ChatSetup
    from store.database import LogError, open_log
    from store.settings import SettingsError, load_settings
    from store.vocabulary import ChatTools

    settings = load_settings(config)
    if domain not in WORLDS:
        raise SettingsError(f"there is no bundled world {domain!r}; there are {', '.join(sorted(WORLDS))}")
    if tools is ChatTools.MCP and mcp is None:
        raise SettingsError("--tools mcp needs the file of the servers: --mcp FILE")
    if trust and ask_first:
        raise SettingsError("--trust asks before no tool, --ask-first before some: give one of the two")
    if tools is ChatTools.LLM and settings.simulator is None:
        raise SettingsError("--tools llm needs an LLM: name it in checkloop.toml, section [simulator]")
    log = open_log(settings.url, settings.log.durability)
    llm = make_llm(settings)

    def asked(specs: Any, unless_chosen: tuple[str, ...]) -> tuple[str, ...]:
        return asked_first(specs, ask_first or ()) if ask_first or trust else unless_chosen

    async def equip_chat(chat_id: str | None) -> Equipment:
        if chat_id is not None:
            setup, seed = await asyncio.to_thread(stored_setup, log, chat_id)
        else:
            seed = new_seed()
            setup = ChatSetup(tools, None if tools is ChatTools.REAL else domain)
            specs = specs_of(setup, seed)
            setup = ChatSetup(setup.tools, setup.domain, asked(specs, marked(specs)))
        return equip(log, chat_id, setup, seed, llm)

    async def talk(equip_it: Any) -> None:
        limit = settings.rollout.max_tokens_per_step
        await run_chat(settings.gateway_url, log, equip_it, session=session or None, max_tokens=limit)

    async def talk_with_mcp(file: Path) -> None:
        from agent.mcp_servers import read_mcp_config
        from agent.mcp_tools import open_mcp_tools
        from agent.real_tools import SYSTEM

        async with open_mcp_tools(read_mcp_config(file), settings.home / "servers") as served:

            async def equip_served(chat_id: str | None) -> Equipment:
                # What a server's tool does cannot be known: each call waits for a person unless all are trusted.
                every = tuple(spec.name for spec in served.specs)
                setup = ChatSetup(ChatTools.MCP, None, asked(served.specs, every))
                seed = new_seed()
                if chat_id is not None:
                    setup, seed = await asyncio.to_thread(stored_setup, log, chat_id)
                    if setup.tools is not ChatTools.MCP:
                        raise LogError(f"chat {chat_id!r} runs with {setup.tools} tools: go on with it without --mcp")
                return Equipment(served.specs, served.answer, setup.ask_first, SYSTEM, setup, seed)

            await talk(equip_served)

    try:
        asyncio.run(talk(equip_chat) if mcp is None else talk_with_mcp(mcp))
    except ToolOutage as outage:
        raise ServerError(f"a tool is out of order: {outage}") from outage


chat_app.add_typer(chat_commands)
app.add_typer(chat_app, name="chat")


def _in_order(command: Callable[..., None], *, trains: bool = False) -> Callable[..., None]:
    """The command, after what a long-running one needs from its process."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        if trains:
            _use_huge_pages()
        _stop_in_order()
        command(*arguments, **options)

    return run


def _use_huge_pages() -> None:
    """Starts this process again with the allocator that training wants."""
    from train.job_child import HUGE_PAGES

    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ |= HUGE_PAGES
        os.execv(sys.executable, [sys.executable, "-m", "checkloop", *sys.argv[1:]])


def _stop_in_order() -> None:
    """SIGTERM and SIGINT both unwind the stack, so that servers are stopped and jobs marked, even where a shell made
    background processes ignore SIGINT."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)


def _end_with_stdin() -> None:
    """The parent holds the other end of standard input; when it is gone, however it went, this process ends."""
    # Not through sys.stdin: its lock, held here for ever, would break the interpreter's way out.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


judge_app.command(name="distil")(_in_order(distil, trains=True))
judge_app.command(name="serve")(_in_order(serve_judge))
app.command()(_in_order(data))
train_app = typer.Typer(help="Training runs in this process: cold start, GRPO from the log.", no_args_is_help=True)
train_app.command()(_in_order(grpo, trains=True))
train_app.command()(_in_order(online, trains=True))
train_app.command()(_in_order(sft, trains=True))
train_app.command()(advantages)
app.add_typer(train_app, name="train")


def main() -> None:
    from agent.bundled_model import ModelError
    from agent.rendering import RenderingError
    from agent.role_errors import LimitReached
    from agent.vllm_client import ServerError
    from store.database import LogError
    from store.settings import SettingsError
    from train.errors import TrainingFailed

    try:
        # Not standalone, a command's typer.Exit comes back as its status.
        status = app(standalone_mode=False)
    except (
        SettingsError,
        LogError,
        ModelError,
        RenderingError,
        ServerError,
        LimitReached,
        TrainingFailed,
        OSError,
    ) as error:
        print(f"checkloop: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        status = STOPPED
    except UsageProblem as error:
        error.show()
        sys.exit(error.exit_code)
    if status == STOPPED:  # so Typer ends a command that was interrupted
        print("checkloop: stopped; the same command goes on from here", file=sys.stderr)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
