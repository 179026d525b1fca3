"""What every command shares: the option that names a settings file, and the log that it leads to.

Nothing heavy is imported before a command needs it: `checkloop --help` stays fast.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from store.database import Log
    from store.settings import Settings

LONGEST_LINE = 240
"""Characters, where no terminal says how wide it is: a file, a pipe."""

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file; default ./checkloop.toml.")]


def settings_and_log(config: Path | None) -> "tuple[Settings, Log]":
    """The settings and the log that they name. Raises SettingsError and LogError."""
    from store.database import open_log
    from store.settings import load_settings

    settings = load_settings(config)
    return settings, open_log(settings.url, settings.log.durability)


def open_configured(config: Path | None) -> "Log":
    """The log of the settings. Raises SettingsError and LogError."""
    return settings_and_log(config)[1]


def printer() -> "Console":
    """Prints on standard output: as wide as the terminal; elsewhere tables keep their lines whole, for `grep`."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else LONGEST_LINE)
