"""Which tests run in the same one of several workers (`make test`), and in which order modules are begun."""

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

WITH_SERVERS = {
    "test_annotate", "test_attacks", "test_chat_serving", "test_examples", "test_gateway_openai", "test_job_kinds",
    "test_judge_examples", "test_loop", "test_serving", "test_swap", "test_swapped_embeddings",
}  # fmt: skip
"""Modules whose tests have to do with a vLLM server. All in one worker, also those that start their own: two servers at
once, or one beside a training run, spin for each other's cores (`test_loop` takes 391 s so instead of 235)."""

WITH_BROWSERS = {"test_browser", "test_chat_browser", "test_sign_in_browser"}
"""Modules whose tests look at pages in Chromium, one after the other: each waits only so long for its pages."""

LONG = (
    "test_chat_terminal", "test_chat_page", "test_links_restore", "test_killed_train_job", "test_gateway_faults",
    "test_dashboard", "test_launched_job", "test_dashboard_access", "test_chat", "test_store_database", "test_kills",
    "test_distil", "test_ray_job", "test_lost_servers", "test_worker", "test_processes", "test_jobs", "test_sft_run",
    "test_checkpoints", "test_judging_many",
)  # fmt: skip
"""Modules that take longer than the others, the longest first: begun last, one of them would have all wait for it."""


class ByServers(LoadScopeScheduling):  # type: ignore[misc]
    """The tests of a module run in one worker; those with servers all in the same one, and those with browsers."""

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False  # in the order of `place_of`, not by the number of tests
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        module = PurePosixPath(nodeid.split("::")[0]).stem
        if module in WITH_SERVERS:
            return "servers"
        return "browsers" if module in WITH_BROWSERS else module


def place_of(module: str) -> int:
    """Modules with a smaller one are begun first: those with servers take longest, in one worker, and those with
    browsers next, in another: they wait more than they compute, and last of all nobody would use that time."""
    if module in WITH_SERVERS:
        return -2
    if module in WITH_BROWSERS:
        return -1
    return LONG.index(module) if module in LONG else len(LONG)
