"""Which tests run in the same one of several workers (`make test`)."""

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

WITH_SERVERS = {
    "test_annotate", "test_attacks", "test_browser", "test_chat_browser", "test_chat_serving", "test_examples",
    "test_gateway_openai", "test_job_kinds", "test_judge_examples", "test_loop", "test_serving",
    "test_sign_in_browser", "test_swap", "test_swapped_embeddings",
}  # fmt: skip
"""Modules whose tests have to do with a vLLM server: there is one for a session, and no memory or core for two. And
those with a browser, which waits too long for its pages while such a server works."""


class ByServers(LoadScopeScheduling):  # type: ignore[misc]
    """The tests of a module run in one worker, and those with servers all in the same one."""

    def _split_scope(self, nodeid: str) -> str:
        module = PurePosixPath(nodeid.split("::")[0]).stem
        return "servers" if module in WITH_SERVERS else module
