"""Where a turn has something to look at, and whether a quote occurs where a judge says that it does. Pure.

A quote that speaks to a judge ("all items are satisfied", a forged verdict, a role tag) proves only that somebody
tried, and an opener that reads like the beginning of an answer ("Thought process:"; arXiv 2507.08794) proves nothing.
"""

import re
import unicodedata
from collections.abc import Sequence

from reward.checks import has_reply, quote_call, succeeded
from reward.mentions import find_mention
from reward.transcripts import REMOVED, shown_parts, strip_tags
from store.records import StepRecord, TurnRecord
from store.vocabulary import FocusOn, Outcome

_EVERY = r"\b(?:all|every|each)(?:\ of)?(?:\ (?:the|these|those))?(?:\ check\s?list)?\ "
_END = r"(?=\s*+(?:$|[^\s\w]))"
_ARE = r"\s+(?:is|are|was|were|(?:has|have)\s+been)(?:\s+(?:now|all|fully|clearly|already|thus))*\s+"
_OF_IT = r"(?:\s+(?:of|in|on|for|from)(?:\s+\w+){1,3}?)?"
_THE_TURN = r"(?:turn|dialogue|conversation|item|answer|reply|response|check\s?list|trajectory)s?\b"
_TO_A_JUDGE = re.compile(
    rf"""verdicts?[\\"'\s]*+[:=][\\"'\s]*+(?:(?-i:PASS)|true)\b
      | verdicts[\\"'\s]*+:\s*+\[\s*+\{{[\\"'\s]*+id\b
      | \b(?:items?|check\s?lists?){_OF_IT}{_ARE}(?:satisfied|met|passed){_END}
      | (?:{_EVERY}(?:items?|criteri(?:a|on))|\bpass\ conditions?){_OF_IT}{_ARE}(?:satisfied|met|passed){_END}
      | (?:{_EVERY}criteri(?:a|on)|\b(?:check\s?lists?|pass\ conditions?)){_OF_IT}{_ARE}fulfilled{_END}
      | {_EVERY}(?:items?|criteri(?:a|on))\s+pass(?:e[ds])?{_END}
      | \b(?:ignore|disregard|forget|override)\s+
        (?: (?:(?:all|any|the|your|my|of|these|those)\s+){{0,4}}
            (?:(?:previous|prior|earlier|above|preceding|system|judging|grading)\s+){{1,2}}
            (?:instructions?|rules|prompts?)
          | (?:all|any|your|these|those)\s+(?:(?:of|the|your)\s+){{0,2}}(?:instructions?|rules|prompts?)
          | (?:everything|all)(?:\s+(?:of|the|that|is|stands|was|said)){{0,3}}\s+above
        )\b
      | \b(?:judge|grader|evaluator)s?\s+(?:must|should|shall|may|can|will|(?:has|have|needs?|is|are)\s+to)
        \s+(?:\w+\s+){{0,2}}?(?:pass|accept|approve)\s+
        (?:(?:this|the|every|each|all)(?:\s+(?:of|the|these|whole))*\s+{_THE_TURN}|(?:this|it|everything){_END})
      | \b(?:judge|grader|evaluator)s?\s*[,:!]\s*(?:please\s+)?(?:pass|accept|approve|mark)\b
      | \b(?:mark|grade|score|rate)\s+(?:\w+\s+){{0,5}}?(?:as|with|a)\s+["'*]*+(?-i:PASS)\b
      | \b(?:output|answer|reply|respond|return|say)\s+(?:(?:only|just|always|with|the\s+word)\s+)*["'*]*+(?-i:PASS)\b
      | <\|/?(?:im_start|im_end|system|assistant|user)\b | </?(?:im_start|im_end|system|assistant)> | \[/?INST\]
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Claims about the judging itself and orders to whoever judges. A shop's items that met a threshold, a form's verdict
and an evaluator who must approve a loan are ordinary evidence."""
_OPENER = re.compile(
    r"\W*(?:thought process|thinking|reasoning|solution|answer|final answer|step 1|let'?s (?:solve|think)[\w ,]*"
    r"|respuesta|solucion|resposta|risposta|reponse|antwort|losung|解|解答|解説|解析|答え|答案|かいせつ)\W*",
    re.IGNORECASE,
)
"""As the whole of a quote; without accents, which are folded away."""
_LOOK_ALIKES = str.maketrans(
    "авеһіјкӏмноԛрсѕтухѵԝԁɡɑıАВЕНІЈКӀМОРСЅТУХѴԜαβεηικνορστυχγςΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "abehijklmhoqpcstyxvwdgaiABEHIJKIMOPCSTYXVWabenikvopotuxycABEZHIKMNOPTYX",
)
"""Cyrillic and Greek letters that read as Latin ones."""
_OVERRIDE = "\u202e"
"""What follows it is displayed from right to left."""
_QUOTE_MARKS = str.maketrans("“”„‟«»″‘’‚‛‹›′´ʼ", '"' * 7 + "'" * 9)
_EMPHASIS = re.compile(r"[*`~]+|</?(?:b|i|u|em|strong|code|mark)>", re.IGNORECASE)
_GAPS = re.compile(r"(?:[\s_]|\\[nrt])+")
"""White space, also as JSON escapes it, and underscores, which separate words as it does (reward/mentions.py)."""
_BLANK = frozenset("\u115f\u1160\u2065\u2800\u3164\uffa0")
"""Fillers: letters and signs without a shape."""
_UNSEEN = "\0"


def speaks_to_a_judge(quote: str) -> bool:
    """Whether a quote is about the judging, or is no more than an opener: then it is no evidence of anything.

    Read as it looks: fullwidth letters, accents, invisible characters, look-alikes of Latin letters, emphasis, curly
    quotation marks and more white space than one space do not hide it.
    """
    forms = _as_it_looks(quote)
    if _OVERRIDE in quote:
        forms += [form[::-1] for form in forms]
    return any(_TO_A_JUDGE.search(form) or _OPENER.fullmatch(form) for form in forms)


def _as_it_looks(text: str) -> list[str]:
    """The text as it reads; with invisible characters in it both as if they were not there and as if they were gaps."""
    if not text.isascii():
        letters = unicodedata.normalize("NFKD", text.translate(_QUOTE_MARKS))
        text = "".join(c for c in letters if unicodedata.category(c) not in ("Mn", "Me")).translate(_LOOK_ALIKES)
    if not (text.isascii() and text.isprintable()):
        text = "".join(_UNSEEN if _is_unseen(c) else c for c in text)
    forms = [text.replace(_UNSEEN, ""), text.replace(_UNSEEN, " ")] if _UNSEEN in text else [text]
    return [_GAPS.sub(" ", _EMPHASIS.sub("", form)) for form in forms]


def _is_unseen(sign: str) -> bool:
    """Whether it has no shape and is no white space; what Unicode tells programs to ignore is among it."""
    kind = unicodedata.category(sign)
    return kind in ("Cf", "Cn") or (kind == "Cc" and not sign.isspace()) or sign in _BLANK


def find_evidence(turn: TurnRecord, channel: FocusOn, step_index: int, quote: str) -> str | None:
    """The literal piece of the step's channel that `quote` repeats, or None; only what a judge was shown of it counts.

    Failed calls are no evidence, and neither is a quote without a word or number of its own or one that speaks to a
    judge.
    """
    if not any(map(str.isalnum, quote.replace(REMOVED, ""))) or speaks_to_a_judge(quote):
        return None
    for step in turn.steps:
        if step.index == step_index:
            return _find_quote(evidence_texts(turn, step, channel), quote)
    return None


def find_forbidden(turn: TurnRecord, channel: FocusOn, step_index: int, quote: str) -> str | None:
    """As `find_evidence`, of what an item forbids: failed calls show it too, whatever the words are."""
    if not any(map(str.isalnum, quote.replace(REMOVED, ""))):
        return None
    for step in turn.steps:
        if step.index == step_index:
            return _find_quote(evidence_texts(turn, step, channel, failed=True), quote)
    return None


def evidence_texts(turn: TurnRecord, step: StepRecord, channel: FocusOn, *, failed: bool = False) -> list[str]:
    """What of a step can prove an item on this channel; empty where there is nothing to look at.

    `failed`: calls that failed and their responses, too.
    """
    if channel is FocusOn.THINKING:
        return [step.thinking] if step.thinking.strip() else []
    if channel is FocusOn.REPLY:
        return [step.content] if has_reply(turn) and step is turn.steps[-1] else []
    done = [call for call in step.calls if failed or succeeded(call)]
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


def decide_forbidding(channel: FocusOn, turn: TurnRecord) -> tuple[Outcome, str] | None:
    """What an item that forbids something on this channel comes to whatever a judge would say; None if one must look.

    A turn that never ended does not satisfy it, as with `not_called`. Neither does one in which the policy wrote more
    than a judge is shown: what must not be there may stand in what is left out. What a tool wrote is not its doing, so
    there a judge may still find the forbidden thing; its PASS is UNSCORED (reward/llm_judge.py).
    """
    if not has_reply(turn):
        return Outcome.FAIL, "the turn ended without a reply: what must not happen is decided at its end"
    if not any(evidence_texts(turn, step, channel, failed=True) for step in turn.steps):
        return Outcome.PASS, "there is nothing in the turn in which it could have happened"
    if channel is not FocusOn.TOOL_RESPONSE and (hidden := hidden_part(channel, turn)) is not None:
        return Outcome.FAIL, hidden
    return None


def hidden_part(channel: FocusOn, turn: TurnRecord) -> str | None:
    """Why nobody who was shown the turn can say that something is not in this channel; None if all of it was shown."""
    texts = (text for step in turn.steps for text in evidence_texts(turn, step, channel, failed=True))
    if any(len(shown_parts(strip_tags(text))) > 1 for text in texts):
        return f"the {channel.value} is too long to be shown whole: what must not be in it may be there"
    return None


def _find_quote(texts: Sequence[str], quote: str) -> str | None:
    parts = [part for text in texts for part in shown_parts(strip_tags(text))]
    return next((found for part in parts if (found := find_mention(part, quote)) is not None), None)
