"""CM2's question, for calibration: one item at one step, the criterion before the dialogue, analyses before a boolean.

As in the reference code nothing is delimited, no quote is asked for and no evidence is checked: this is what the other
modes are compared with. Unlike there, an answer that cannot be read is UNSCORED.
"""

import json

from pydantic import BaseModel, ValidationError

from agent.role_errors import EndpointError, LimitReached
from reward.guided_json import json_format
from reward.llm_judge import Answers, Dialogue, LlmJudge, LlmVerdict, explain, unscored
from reward.transcripts import show_plainly
from store.records import Item
from store.vocabulary import Outcome

MAX_TOKENS = 1000
"""Room for the four analyses."""


class _PaperAnswer(BaseModel):
    high_level_understanding_of_the_question: str
    analysis_of_if_focus_on: str
    analysis_of_pass_condition: str
    analysis_of_failure_examples: str
    answer: bool


_FORMAT = json_format(
    "evaluation_verdict",
    {name: {"type": "boolean" if name == "answer" else "string"} for name in _PaperAnswer.model_fields},
)


async def ask_as_paper(llm: LlmJudge, dialogue: Dialogue, item: Item, draw: int = 0) -> Answers:
    """The verdict on one item for the turn as it stands in `dialogue`; a PASS holds from its last step."""
    try:
        async with llm.written:
            question = paper_prompt(llm.prompt, dialogue, item)
            said = await llm.send([{"role": "user", "content": question}], dialogue, _FORMAT, MAX_TOKENS, 1, draw)
    except LimitReached as limit:
        return Answers([], str(limit))
    except EndpointError as error:
        return Answers(unscored([item], str(error)))
    try:
        answer = _PaperAnswer.model_validate_json(said.text)
    except ValidationError as error:
        why = "the judge's answer was cut off" if said.truncated else explain(error)
        return Answers(unscored([item], why))
    if answer.answer:
        step = dialogue.turn.steps[-1].index
        return Answers([LlmVerdict(item.id, Outcome.PASS, step, answer.analysis_of_pass_condition)])
    return Answers([LlmVerdict(item.id, Outcome.FAIL, None, answer.analysis_of_pass_condition)])


def paper_prompt(template: str, dialogue: Dialogue, item: Item) -> str:
    return template.format(
        question=item.question,
        focus_on=item.focus_on.value,
        pass_condition=item.pass_condition,
        failure_examples=json.dumps(list(item.failure_examples), ensure_ascii=False),
        snippets=json.dumps([evidence.snippet for evidence in item.evidence], ensure_ascii=False),
        previous=show_plainly(dialogue.earlier) or "None",
        current=show_plainly([dialogue.turn]),
    )
