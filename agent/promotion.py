"""A version made live by a person: through the running gateway, once the server has proved that it answers with it.

`checkloop policy promote` and the dashboard both call this; the gateway writes the log.
"""

from dataclasses import dataclass

from agent.gateway_process import GatewayProcess
from agent.vllm_client import ServerError
from store.settings import Settings


@dataclass(frozen=True)
class Promotion:
    version: str
    before: str
    """Was live until then."""
    seconds: float
    """For the steps in flight to end, to load, and to prove."""


def promote_version(settings: Settings, version: str, reason: str) -> Promotion:
    """Returns when it is live. Raises ServerError without a gateway, and where the proof fails: the old one stays."""
    figures = GatewayProcess(settings).promote(version, reason)
    if not figures["accepted"]:
        raise ServerError(f"{version} was refused, {figures['before']} stays live: {figures['proof']['reason']}")
    seconds = figures["drain_s"] + figures["reload_s"] + figures["proof_s"]
    return Promotion(version, figures["before"], seconds)
