"""The bundled model behind the real gateway and vLLM, for the benchmarks that need a server."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.gateway_process import GatewayProcess
from agent.proof import PROBE_PROMPTS, PROBE_TOKENS
from benchmarks.adapters import make_adapter
from store.database import Log, open_log
from store.settings import Settings, load_settings
from store.versions import add_version, set_version_state
from store.vocabulary import VersionState
from train.checkpoints import write_probe
from train.registry import model_directory

PROBE = [list(range(200 * n, 200 * n + PROBE_TOKENS)) for n in range(1, PROBE_PROMPTS + 1)]
"""As long as a version's own (agent/proof.py)."""


@contextmanager
def serve(
    home: Path, versions: int = 1, adapters: int = 0, **server: Any
) -> Iterator[tuple[GatewayProcess, Log, Settings]]:
    """A fresh log with `versions` copies of the bundled model, then `adapters` on the first; v0001 is live."""
    shutil.rmtree(home, ignore_errors=True)
    shared = load_settings(home=home.parent.parent)
    settings = load_settings(home=home, server=server)
    log = open_log(settings.url, settings.log.durability)
    for n in range(1, versions + 1):
        made = home / "versions" / f"v{n:04d}"
        shutil.copytree(model_directory(shared), made)
        write_probe(made, PROBE)
        add_version(log, made.name, parent=None, path=str(made.resolve()), files={})
    base = home / "versions" / "v0001"
    for n in range(versions + 1, versions + adapters + 1):
        made = make_adapter(base, home / "versions" / f"v{n:04d}", PROBE, seed=n)
        add_version(log, made.name, parent="v0001", path=str(made.resolve()), files={})
    set_version_state(log, "v0001", VersionState.LIVE, "benchmark")
    with GatewayProcess(settings) as gateway:
        yield gateway, log, settings
    log.close()
