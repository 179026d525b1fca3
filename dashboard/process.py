"""The dashboard as a child process: `streamlit run`, of the same settings as its parent; on loopback, unless people
sign in."""

import os
import subprocess
import sys
from pathlib import Path

from agent.startup import wait_until_up
from dashboard.access import check_address
from store.settings import Settings


def settings_environment(settings: Settings) -> dict[str, str]:
    """What the dashboard needs of its parent's settings, whatever file they came from."""
    secrets = settings.dashboard.secrets
    absolute = settings.dashboard.model_copy(update={"secrets": secrets.resolve() if secrets else None})
    environment = {
        "CHECKLOOP_HOME": str(settings.home.resolve()),
        "CHECKLOOP_DATABASE_URL": settings.url,
        "CHECKLOOP_GATEWAY": settings.gateway.model_dump_json(),
        "CHECKLOOP_DASHBOARD": absolute.model_dump_json(),
    }
    if settings.simulator is not None:
        environment["CHECKLOOP_SIMULATOR"] = settings.simulator.model_dump_json()
    return environment


class DashboardProcess:
    """Use it as a context manager; `url` is where it is seen. Raises SettingsError where the address needs a sign-in
    that is not there."""

    name = "the dashboard"

    def __init__(self, settings: Settings, port: int) -> None:
        self.address = settings.dashboard.address
        check_address(settings, self.address)
        self.url = f"http://{self.address}:{port}"
        self.log_file = settings.home / "servers" / "dashboard.log"
        self._settings = settings
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Raises RuntimeError while it is not running."""
        if self._process is None:
            raise RuntimeError("the dashboard is not running")
        return self._process.pid

    def __enter__(self) -> "DashboardProcess":
        app = Path(__file__).parent / "app.py"
        command = [sys.executable, "-m", "streamlit", "run", str(app), "--server.port", str(self._port)]
        command += ["--server.address", self.address, "--server.headless", "true"]
        if self._settings.dashboard.secrets is not None:
            command += ["--secrets.files", str(self._settings.dashboard.secrets.resolve())]
        environment = settings_environment(self._settings)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("wb") as sink:
            self._process = subprocess.Popen(
                command, env=os.environ | environment, stdout=sink, stderr=sink, cwd=app.parent.parent
            )
        return self

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Returns when it answers. Raises NotUp, RuntimeError while it is not running."""
        if self._process is None:
            raise RuntimeError("the dashboard is not running")
        wait_until_up(self._process, f"{self.url}/_stcore/health", timeout_s)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:  # it waits for scripts that run for people
                self._process.kill()
                self._process.wait()
