"""The change of who answers that is going on right now: a version made live, or given its share of the sessions.

Both go through the running gateway, which loads and proves; the gateway writes the log.
"""

from functools import cache

from agent.promotion import promote_version, split_traffic
from agent.vllm_client import ServerError
from dashboard.beside import OneAtATime, RunningWork
from store.settings import Settings


class Promotions(OneAtATime):
    """The newest change. Both raise AlreadyRunning while another one goes on."""

    def start(self, settings: Settings, version: str, reason: str) -> RunningWork:
        def promote() -> str:
            done = promote_version(settings, version, reason)
            return f"{done.version} is live after {done.seconds:.1f} s (before: {done.before})"

        return self.begin(f"{version} is being loaded and proved", promote, ServerError)

    def share(self, settings: Settings, candidate: str | None, share: float, reason: str) -> RunningWork:
        """None: all sessions go to the live version."""
        doing = f"{candidate} is being loaded for its share" if candidate else "the share is being taken back"

        def split() -> str:
            split_traffic(settings, candidate, share, reason)
            if candidate is None:
                return "All sessions go to the live version"
            return f"{100 * share:g} % of the sessions go to {candidate}"

        return self.begin(doing, split, ServerError)


@cache
def promotions() -> Promotions:
    return Promotions()
