"""A child process that serves HTTP, waited for until it answers."""

import subprocess
import time
from typing import Any

import httpx

LOOK_S, ANSWER_S = 0.1, 2.0


class NotUp(RuntimeError):
    """Its words go on from what the process is called: "ended with status 1", "did not answer within 60 s"."""


def wait_until_up(process: "subprocess.Popen[Any]", address: str, timeout_s: float) -> None:
    """Returns when `address` answers with status 200. Raises NotUp; the process is left as it is."""
    deadline = time.monotonic() + timeout_s
    with httpx.Client(timeout=ANSWER_S) as client:  # one for all looks: each new one reads the system's certificates
        while time.monotonic() < deadline:
            if (status := process.poll()) is not None:
                raise NotUp(f"ended with status {status} while starting")
            try:
                if client.get(address).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(LOOK_S)
    raise NotUp(f"did not answer within {timeout_s:.0f} s")
