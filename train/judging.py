"""The judge of the settings, as loops and jobs ask it."""

from reward.judge import Judge
from reward.llm_judge import LlmJudge
from store.database import Log
from store.settings import Settings


def open_judge(log: Log, settings: Settings) -> Judge:
    return Judge(log, LlmJudge(settings.judge) if settings.judge else None)
