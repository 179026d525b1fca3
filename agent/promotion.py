"""A version made live, refused or given a share of the sessions by a person: by `checkloop policy` and the dashboard.

It is made live through the running gateway, once the server has proved that it answers with it; the gateway writes the
log.
"""

from dataclasses import dataclass

from agent.gateway_process import GatewayProcess
from agent.vllm_client import ServerError
from store.database import Log
from store.settings import Settings
from store.traffic import traffic_split
from store.versions import get_version, set_version_state
from store.vocabulary import VersionState


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


def split_traffic(settings: Settings, candidate: str | None, share: float, reason: str) -> None:
    """A candidate answers this share (0 to 1) of the sessions; None: the live version answers all. Raises ServerError
    without a gateway, and where it refuses."""
    GatewayProcess(settings).split(candidate, share, reason)


def refuse_version(log: Log, settings: Settings, version: str, reason: str) -> None:
    """A candidate is refused: no gate and nobody makes it live any more.

    Its share of the sessions ends first, through the running gateway. Raises LogError for anything but a candidate,
    ServerError where a share cannot be taken back; then nothing has changed.
    """
    split = traffic_split(log)
    candidate = get_version(log, version).state is VersionState.CANDIDATE
    if candidate and split is not None and split.candidate == version:
        split_traffic(settings, None, 0.0, f"{version} is refused: {reason}")
    set_version_state(log, version, VersionState.REFUSED, reason)
