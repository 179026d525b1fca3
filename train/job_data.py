"""The job `data`: the log's scenarios become an SFT set, as by `checkloop data`."""

import asyncio
from typing import Any, TypeVar

from agent.vllm_client import ServerError
from train.errors import JobRefused
from train.job_payloads import DataPayload
from train.job_work import Work

R = TypeVar("R")


def make_data(work: Work) -> dict[str, Any]:
    """Filters, asks the LLMs of `[filter]` and `[compressor]` where there are some, writes the set. The same content as
    the newest set's is that set, so a job that is taken over makes no second one.

    Raises JobRefused where a limit of an endpoint's settings ended it, ServerError where the endpoint is down.
    """
    from agent.role_work import ENOUGH_FAILURES
    from train.dialogue_work import AsksAboutDialogues, DialogueReport, ask_about_dialogues
    from train.scenario_filters import Filtered, filter_scenarios
    from train.sft_making import make_compressor, make_critic, make_sft_set

    payload = DataPayload.model_validate(work.job.payload)
    changes = {"domains": payload.domain, "sources": payload.source}
    wanted = work.settings.data.model_copy(update={key: (value,) for key, value in changes.items() if value})
    work.stage.advance(0.0, "reading scenarios")

    def ask(doing: str, asking: "AsksAboutDialogues[R]", filtered: "Filtered") -> "DialogueReport[R]":
        done, total = 0, 0

        def begin(count: int) -> None:
            nonlocal total
            total = count

        def count(_: object) -> None:
            nonlocal done
            done += 1
            work.stage.advance(done / max(total, 1), f"{doing}: {done} of {total} dialogues")

        report = asyncio.run(ask_about_dialogues(asking, filtered.kept, on_begin=begin, on_done=count))
        if report.stopped is not None:
            down = len(report.failed) >= ENOUGH_FAILURES
            raise (ServerError if down else JobRefused)(f"{doing}: stopped with {report.left} left: {report.stopped}")
        return report

    critic = make_critic(work.log, work.settings, payload.seed) if payload.filter else None
    compressor = make_compressor(work.log, work.settings, payload.seed) if payload.compress else None
    filtered = filter_scenarios(work.log, wanted)
    made = make_sft_set(work.log, work.settings, filtered, wanted, critic, compressor, ask)
    return {
        "data": made.made.set.name,
        "new": made.made.is_new,
        "dialogues": made.made.set.dialogues,
        "looked_at": filtered.looked_at,
        "unanswered": made.failed,
    }
