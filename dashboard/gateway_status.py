"""Whether the gateway is there to chat with. Asks its health route; reads and writes nothing else."""

import json
import urllib.error
import urllib.request
from enum import StrEnum

TIMEOUT_S = 1.5


class GatewayState(StrEnum):
    READY = "ready"
    STARTING = "starting"
    """It answers, but a model server behind it does not."""
    ABSENT = "absent"


def ask_gateway(gateway_url: str) -> GatewayState:
    """The state of the gateway at `gateway_url`, within TIMEOUT_S seconds."""
    try:
        with urllib.request.urlopen(f"{gateway_url}/health", timeout=TIMEOUT_S) as response:
            document = json.loads(response.read())
    except urllib.error.HTTPError as error:
        return GatewayState.STARTING if error.code == 503 else GatewayState.ABSENT
    except (urllib.error.URLError, OSError, ValueError):
        return GatewayState.ABSENT
    return GatewayState.READY if isinstance(document, dict) and "servers" in document else GatewayState.ABSENT
