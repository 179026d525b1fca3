"""Where a turn has something to look at, and whether a quote occurs where a judge says that it does. Pure."""

from reward.checks import has_reply, quote_call, succeeded
from reward.mentions import find_mention, tokenize
from reward.transcripts import strip_tags
from store.records import StepRecord, TurnRecord
from store.vocabulary import FocusOn


def find_evidence(turn: TurnRecord, channel: FocusOn, step_index: int, quote: str) -> str | None:
    """The literal piece of the step's channel that `quote` repeats, or None. Failed calls are no evidence."""
    if not tokenize(quote).spans:
        return None
    for step in turn.steps:
        if step.index == step_index:
            texts = [strip_tags(text) for text in evidence_texts(turn, step, channel)]
            return next((found for text in texts if (found := find_mention(text, quote)) is not None), None)
    return None


def evidence_texts(turn: TurnRecord, step: StepRecord, channel: FocusOn) -> list[str]:
    """What of a step can prove an item on this channel; empty where there is nothing to look at."""
    if channel is FocusOn.THINKING:
        return [step.thinking] if step.thinking.strip() else []
    if channel is FocusOn.REPLY:
        return [step.content] if has_reply(turn) and step is turn.steps[-1] else []
    done = [call for call in step.calls if succeeded(call)]
    if channel is FocusOn.TOOL_CALLS:
        return [quote_call(call) for call in done]
    return [call.response for call in done if call.response is not None]


def lacking_channel(channel: FocusOn, turn: TurnRecord) -> str | None:
    """Why no item on this channel can hold in the turn; None if there is something to look at."""
    if any(evidence_texts(turn, step, channel) for step in turn.steps):
        return None
    if channel is FocusOn.REPLY:
        return "the turn ended without a reply"
    if channel is FocusOn.THINKING:
        return "there is no thinking in the turn"
    calls = [call for step in turn.steps for call in step.calls]
    return "every tool call of the turn failed" if calls else "there is no tool call in the turn"
