"""What a judge is shown of a dialogue: turns as pieces of untrusted data between secret marks. Pure.

Before each piece stands a line with the boundary, an HMAC of a secret that this process draws once: no text can begin
or end a piece. It is the same for all dialogues of a scenario, and a turn looks the same whether it is judged or shown
before a later one, so that what vLLM has computed for the turns before, and for the other members of a group, is served
from its prefix cache. A mark costs a dozen tokens; a pair of tags with attributes costs three times that.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from reward.checks import quote_call, succeeded
from store.records import CallRecord, StepRecord, TurnRecord
from store.schema import storable
from store.vocabulary import FocusOn

_SECRET = secrets.token_bytes(32)
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
"""Tokenizers take every digit for a token of its own, and the boundary stands before each piece."""
LONGEST_PIECE = 20_000
"""Characters of one piece (a reply, a response, the arguments of a call …) that a judge is shown: some 5,000 tokens. Of
a longer one it sees beginning and end, so that no text can be so long that the turn cannot be judged."""
REMOVED = "[removed]"
"""Stands where a judge would have been shown a mark, a tag or control text. Proves nothing."""
_TAG = re.compile(
    r"<\s*+/?\s*+data-[^<>]*+>?"
    r"|^[^\S\n]*+=++[^\S\n]*+[a-z]{4,16}[^\S\n]*+=++[^\S\n]*+(?:turn|step|end)\b"
    # <|im_end|>, <｜User｜>, <|turn>, <turn|>
    r"|<[|｜][^\s<>|｜]{1,64}+[|｜]?>|<[^\s<>|｜]{1,64}+[|｜]>"
    r"|</?(?:s|bos|eos|pad|unk|[se]op|start_of_turn|end_of_turn|think|tool_call|tool_response)>"
    r"|<</?SYS>>|\[/?INST\]"
    # Mistral's; in small letters these are ordinary words of a command's usage.
    r"|\[/?(?-i:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID|ARGS|THINK|gMASK)\]",
    re.IGNORECASE | re.MULTILINE,
)
"""Our own marks and tags, and what chat templates use as control text: a server may encode it as control tokens, which
end a message wherever they stand. Possessive or bounded throughout: no text takes more than linear time."""


def make_boundary(subject: str) -> str:
    """The boundary of the dialogues about one subject (a scenario's hash); 32 bits that nobody outside can know."""
    return hmac.new(_SECRET, subject.encode(), hashlib.sha256).hexdigest()[:8].translate(_LETTERS)


def show_turns(turns: Sequence[TurnRecord], boundary: str) -> str:
    """The turns as marked pieces, oldest first. An empty boundary gives what was shown whatever the boundary is."""
    lines = []
    for turn in turns:
        lines += [f"={boundary}= turn {turn.index} user", _clean(turn.user, boundary)]
        for step in turn.steps:
            for label, text in _pieces(turn, step):
                lines += [f"={boundary}= step {step.index} {label}", _clean(text, boundary)]
    return "\n".join([*lines, f"={boundary}= end"])


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
    """The text without anything that looks like a mark, a tag of untrusted data or a chat template's control text.

    What no endpoint takes is U+FFFD.
    """
    return _TAG.sub(REMOVED, storable(text))


def shown_parts(text: str, longest: int | None = LONGEST_PIECE) -> list[str]:
    """The text, or its beginning and its end where it has more than `longest` characters."""
    if longest is None or len(text) <= longest:
        return [text]
    half = longest // 2
    return [text[:half], text[-half:]]


def shorten(text: str, longest: int | None = LONGEST_PIECE) -> str:
    """What is shown of a text: `shown_parts`, and how much was left out between them."""
    parts = shown_parts(text, longest)
    return f" [… {len(text) - sum(map(len, parts))} characters left out …] ".join(parts)


def _clean(text: str, boundary: str) -> str:
    clean = strip_tags(text)
    return shorten(clean.replace(boundary, REMOVED) if boundary else clean)


def _pieces(turn: TurnRecord, step: StepRecord) -> list[tuple[str, str]]:
    """What a step shows: the channel of each piece and its text, in the order in which it happened."""
    pieces = []
    if step.thinking:
        pieces.append((FocusOn.THINKING.value, step.thinking))
    if step.content:
        is_reply = step.is_reply and step is turn.steps[-1]
        pieces.append((FocusOn.REPLY.value if is_reply else "assistant_text", step.content))
    pieces += [(_of_call(FocusOn.TOOL_CALLS, call), quote_call(call)) for call in step.calls]
    pieces += [
        (_of_call(FocusOn.TOOL_RESPONSE, call), call.response) for call in step.calls if call.response is not None
    ]
    return pieces


def _of_call(channel: FocusOn, call: CallRecord) -> str:
    return channel.value if succeeded(call) else f"{channel.value} failed"
