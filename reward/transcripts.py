"""What a judge is shown of a dialogue: turns as blocks of untrusted data behind a secret boundary. Pure.

The boundary is an HMAC of a secret that this process draws once, so no text can close its own block; it is the same for
all dialogues of a scenario, and a turn looks the same whether it is judged or shown before a later one. So what vLLM
has computed for the turns before, and for the other members of a group, is served from its prefix cache.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from reward.checks import quote_call, succeeded
from store.records import CallRecord, StepRecord, TurnRecord
from store.vocabulary import FocusOn

_SECRET = secrets.token_bytes(32)
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
"""Tokenizers take every digit for a token of its own, and the boundary stands twice in each block."""
_TAG = re.compile(r"<\s*/?\s*data-[^<>]*>?", re.IGNORECASE)


def make_boundary(subject: str) -> str:
    """The boundary of the dialogues about one subject (a scenario's hash); 64 bits that nobody outside can know."""
    return hmac.new(_SECRET, subject.encode(), hashlib.sha256).hexdigest()[:16].translate(_LETTERS)


def show_turns(turns: Sequence[TurnRecord], boundary: str) -> str:
    """The turns as blocks of data, oldest first. An empty boundary gives what was shown whatever the boundary is."""
    blocks = []
    for turn in turns:
        blocks.append(f"## Turn {turn.index}")
        blocks.append(_block(boundary, 'channel="user"', turn.user))
        for step in turn.steps:
            blocks += [_block(boundary, attributes, text) for attributes, text in _pieces(turn, step)]
    return "\n\n".join(blocks)


def show_plainly(turns: Sequence[TurnRecord]) -> str:
    """The turns as CM2's reference code lays them out: roles and fields, nothing delimited."""
    lines = []
    for turn in turns:
        lines.append(f"# Turn: {turn.index}\nRole: user\ncontent: {turn.user}")
        for step in turn.steps:
            calls = "[" + ", ".join(quote_call(call) for call in step.calls) + "]" if step.calls else "None"
            lines.append(
                f"## Step: {step.index}\nRole: assistant\ncontent.thinking: {step.thinking or 'None'}\n"
                f"content.user_visible_reply: {step.content or 'None'}\ntool_call: {calls}"
            )
            lines += [f"Role: tool\ncontent: {call.response}" for call in step.calls if call.response is not None]
    return "\n".join(lines)


def up_to_step(turn: TurnRecord, position: int) -> TurnRecord:
    """The turn as it stood after the step at `position`, tool responses included."""
    return turn.model_copy(update={"steps": turn.steps[: position + 1]})


def strip_tags(text: str) -> str:
    """The text without anything that looks like a tag of a data block."""
    return _TAG.sub("[removed]", text)


def _block(boundary: str, attributes: str, text: str) -> str:
    clean = strip_tags(text)
    if boundary:
        clean = clean.replace(boundary, "[removed]")
    return f"<data-{boundary} {attributes}>\n{clean}\n</data-{boundary}>"


def _pieces(turn: TurnRecord, step: StepRecord) -> list[tuple[str, str]]:
    """What a step shows: attributes of each block and its text, in the order in which it happened."""
    pieces = []
    if step.thinking:
        pieces.append((_attributes(step, FocusOn.THINKING), step.thinking))
    if step.content:
        is_reply = step.is_reply and step is turn.steps[-1]
        channel = FocusOn.REPLY.value if is_reply else "assistant_text"
        pieces.append((f'step="{step.index}" channel="{channel}"', step.content))
    for call in step.calls:
        pieces.append((_attributes(step, FocusOn.TOOL_CALLS, call), quote_call(call)))
    for call in step.calls:
        if call.response is not None:
            pieces.append((_attributes(step, FocusOn.TOOL_RESPONSE, call), call.response))
    return pieces


def _attributes(step: StepRecord, channel: FocusOn, call: CallRecord | None = None) -> str:
    status = "" if call is None else f' status="{"ok" if succeeded(call) else "failed"}"'
    return f'step="{step.index}" channel="{channel.value}"{status}'
