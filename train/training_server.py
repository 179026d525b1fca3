"""The server of an online run: nobody but its rollouts is answered by it. Writes what a gateway writes."""

from agent.gateway_process import GatewayProcess
from agent.ports import free_ports
from store.settings import Settings
from train.progress import StageProgress


class TrainingServer:
    """A gateway with a vLLM of its own on the same log, started when the first round is played."""

    def __init__(self, settings: Settings, name: str, progress: StageProgress) -> None:
        self._progress = progress
        self._gateway: GatewayProcess | None = None
        self._held: str | None = None
        wanted = settings.online
        gateway_port, server_port = free_ports()
        self.settings = settings.model_copy(
            update={
                "gateway": settings.gateway.model_copy(
                    update={"host": "127.0.0.1", "port": wanted.gateway_port or gateway_port}
                ),
                "server": settings.server.model_copy(
                    update={"port": wanted.server_port or server_port, "urls": (), "staging": False}
                ),
            }
        )
        """The run's settings, with this server's addresses."""
        # What the servers write stands apart from what those write that people use.
        self._of_gateway = self.settings.model_copy(
            update={"home": settings.home / "online" / name, "database_url": settings.url}
        )

    def hold(self, version: str) -> str | None:
        """Brings the server to answer `policy@version`; why its proof speaks against it. Raises ServerError."""
        if self._gateway is None:
            devices = self.settings.online.devices
            gateway = GatewayProcess(self._of_gateway, {"CUDA_VISIBLE_DEVICES": devices} if devices else None)
            with self._progress.stage("servers", "start the training server"):
                gateway.launch()
                self._gateway = gateway
                gateway.wait_ready()
        if self._held == version:
            return None
        self._held = None
        figures = self._gateway.stage(version)
        if not figures["accepted"]:
            return str(figures["proof"]["reason"])
        self._held = version
        return None

    def stop(self) -> None:
        if self._gateway is not None:
            self._gateway.stop()
            self._gateway = None
