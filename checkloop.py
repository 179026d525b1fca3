"""The `checkloop` command: joins each room's commands. Errors become one clear message and exit status 1."""

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Agents that keep improving from their own log.", no_args_is_help=True, add_completion=False)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file; default ./checkloop.toml.")]


@app.command()
def demo(
    config: ConfigOption = None,
    seed: Annotated[int, typer.Option(help="Of everything random in the loop.")] = 1,
    name: Annotated[str, typer.Option(help="Of the loop; the same name goes on with it. Default demo-SEED.")] = "",
) -> None:
    """The whole loop on the bundled worlds: cold start, rollouts, judge, GRPO, gate, swap, before and after."""
    from store.database import open_log
    from store.settings import load_settings
    from train.demo import run_demo

    settings = load_settings(config)
    run_demo(open_log(settings.url), settings, name=name or f"demo-{seed}", seed=seed)


@app.command()
def serve(
    config: ConfigOption = None,
    staging: Annotated[bool, typer.Option("--staging", help="Also a server for candidates.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """The gateway with its vLLM servers, answering with the live version."""
    from agent.commands import serve as serve_gateway
    from store.database import open_log
    from store.settings import load_settings

    settings = load_settings(config)
    if until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(serve_gateway(open_log(settings.url), settings, staging=staging))


def _end_with_stdin() -> None:
    """The parent holds the other end of standard input; when it is gone, however it went, this process ends."""
    import signal

    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    from agent.bundled_model import ModelError
    from agent.vllm_server import ServerError
    from store.database import LogError
    from store.settings import SettingsError

    try:
        app(standalone_mode=False)
    except (SettingsError, LogError, ModelError, ServerError, OSError) as error:
        print(f"checkloop: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("checkloop: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except typer.Exit as error:
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
