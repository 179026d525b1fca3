"""vLLM's server, in a process that ends with whoever started it, however that went (invariant 6).

Standard input is a pipe whose other end the starter holds. When it closes, the whole group is killed, engine and
workers with it: nobody is left who could hold the port and answer with weights that no log knows of.

On the CPU vLLM starts its engine as a new interpreter, which imports all of vLLM a second time: a third of a start's
work. Here the engine is a fork of the server, which has imported it.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import stat
import threading
from contextlib import suppress

from agent.vllm_server import is_cpu_build


def end_with_stdin() -> None:
    # Not through sys.stdin: its lock, held here for ever, would break the interpreter's way out.
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def fork_engine() -> None:
    """Where vLLM is built otherwise than it is here, its engine starts in vLLM's own way."""
    with suppress(ImportError):
        from vllm.v1.engine import utils

        utils.get_mp_context = lambda: multiprocessing.get_context("fork")
        os.register_at_fork(after_in_child=leave_to_server)


def leave_to_server() -> None:
    """In the engine: signals wake the server's event loop no more, and the server's port is not held open."""
    with suppress(ValueError):  # not the main thread, which alone has it
        signal.set_wakeup_fd(-1)
    with suppress(FileNotFoundError):  # no /proc: the port is held until the engine has ended, too
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # of the list itself
                _close_if_it_listens(int(name))


def _close_if_it_listens(descriptor: int) -> None:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return
    link = socket.socket(fileno=descriptor)
    try:
        listens = link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    finally:
        link.detach()
    if listens:
        os.close(descriptor)


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    if is_cpu_build():
        fork_engine()
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
