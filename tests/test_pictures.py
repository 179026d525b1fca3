"""The command that takes a picture of every page, in a real browser."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sample_log import build_sample_log


@pytest.mark.timeout(300)
def test_pictures_of_every_page(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    build_sample_log(url).close()
    command = [sys.executable, "-m", "dashboard.screenshots", str(tmp_path / "pictures"), url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=270).stdout
    taken = [Path(line) for line in printed.splitlines()]
    assert {file.stem for file in taken} >= {
        "overview",
        "review",
        "trajectories",
        "trajectory",
        "items",
        "training",
        "chat",
    }
    assert all(file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 20_000 for file in taken)
