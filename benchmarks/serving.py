"""The bundled model behind the real gateway and vLLM, for the benchmarks that need a server."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.gateway_process import GatewayProcess
from store.database import Log, open_log
from store.settings import Settings, load_settings
from store.versions import add_version, set_version_state
from store.vocabulary import VersionState
from train.checkpoints import write_probe
from train.registry import model_directory

PROBE = [list(range(100 * n + 20, 100 * n + 60)) for n in range(1, 5)]


@contextmanager
def serve(home: Path, versions: int = 1) -> Iterator[tuple[GatewayProcess, Log, Settings]]:
    """A fresh log with `versions` copies of the bundled model; v0001 is live."""
    shutil.rmtree(home, ignore_errors=True)
    shared = load_settings(home=home.parent.parent)
    settings = load_settings(home=home)
    log = open_log(settings.url)
    for n in range(1, versions + 1):
        made = home / "versions" / f"v{n:04d}"
        shutil.copytree(model_directory(shared), made)
        write_probe(made, PROBE)
        add_version(log, made.name, parent=None, path=str(made.resolve()), files={})
    set_version_state(log, "v0001", VersionState.LIVE, "benchmark")
    with GatewayProcess(settings) as gateway:
        yield gateway, log, settings
    log.close()
