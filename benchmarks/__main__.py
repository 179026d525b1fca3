"""Runs all benchmarks on this machine and prints one table."""

import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    checks,
    dashboard,
    gateway,
    grpo,
    judging,
    learning,
    log_writes,
    release,
    review,
    rewards,
    rollouts,
    swap,
)
from benchmarks.line import Line


def machine() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


ALL = (log_writes, checks, rewards, grpo, gateway, rollouts, judging, swap, release, dashboard, review)
BY_NAME = (learning,)
"""Experiments of hours: only where they are named."""


def main() -> None:
    chosen = sys.argv[1:]
    home = Path(".checkloop") / "bench"
    lines: list[Line] = []
    for module in (*ALL, *BY_NAME):
        name = module.__name__.rsplit(".", 1)[-1]
        if name in chosen or (not chosen and module in ALL):
            print(f"{name} ...", file=sys.stderr)
            lines += module.measure(home)
    table = Table(title=machine())
    for column in ("what", "measured", "peer or limit", "ratio", "aim"):
        table.add_column(column)
    for line in lines:
        table.add_row(line.what, line.measured, line.peer, line.ratio, line.aim)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
