"""vLLM's server, in a process that ends with whoever started it, however that went (invariant 6).

Standard input is a pipe whose other end the starter holds. When it closes, the whole group is killed, engine and
workers with it: nobody is left who could hold the port and answer with weights that no log knows of.
"""

import os
import runpy
import signal
import threading


def end_with_stdin() -> None:
    # Not through sys.stdin: its lock, held here for ever, would break the interpreter's way out.
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
