"""Where a turn has something to look at, and whether a quote occurs where a judge says that it does. Pure.

A quote that speaks to a judge ("all items are satisfied", a forged verdict, a role tag) proves only that somebody
tried, and an opener that reads like the beginning of an answer ("Thought process:"; arXiv 2507.08794) proves nothing.
"""

import re

from reward.checks import has_reply, quote_call, succeeded
from reward.mentions import find_mention
from reward.transcripts import REMOVED, strip_tags
from store.records import StepRecord, TurnRecord
from store.vocabulary import FocusOn

_TO_A_JUDGE = re.compile(
    r"""["']?verdicts?["']?\s*:
      | \b(?:items?|criteri(?:a|on)|check\s?list|pass\ conditions?)\b.{0,40}
        \b(?:satisf\w+|met|fulfilled|pass(?:e[ds])?)\b
      | \b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|rules|prompt|above)\b
      | \b(?:judge|grader|evaluator)s?\b.{0,60}\b(?:pass|must|should|approve|accept)\b
      | \b(?:mark|grade|score|rate|output|answer|reply|respond|return)\b.{0,40}\b(?-i:PASS)\b
      | <\|?/?(?:im_start|im_end|system|assistant|user)\b | \[/?INST\]
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_OPENER = re.compile(
    r"\W*(?:thought process|thinking|reasoning|solution|answer|final answer|step 1|let'?s (?:solve|think)[\w ,]*)\W*",
    re.IGNORECASE,
)


def speaks_to_a_judge(quote: str) -> bool:
    """Whether a quote is about the judging, or is no more than an opener: then it is no evidence of anything."""
    return _TO_A_JUDGE.search(quote) is not None or _OPENER.fullmatch(quote) is not None


def find_evidence(turn: TurnRecord, channel: FocusOn, step_index: int, quote: str) -> str | None:
    """The literal piece of the step's channel that `quote` repeats, or None.

    Failed calls are no evidence, and neither is a quote without a word or number of its own or one that speaks to a
    judge.
    """
    if not any(map(str.isalnum, quote.replace(REMOVED, ""))) or speaks_to_a_judge(quote):
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
