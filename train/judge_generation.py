"""Asks a small judge without a server: greedy generation under the answer's grammar, in batches, with transformers.

Reads a model directory and an adapter; writes nothing. It is what vLLM does with guided JSON at temperature 0 (the
same grammar engine, xgrammar), with the adapter merged into the weights.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import xgrammar
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from xgrammar.contrib.hf import LogitsProcessor

from agent.precision import native_precision
from reward.llm_judge import LlmVerdict
from reward.small_judge import ANSWER_TOKENS, answer_schema, read_answer
from train.judge_batches import question_ids
from train.judge_examples import JudgeExample

BATCH = 32

OnBatch = Callable[[int, int], None]
"""(questions answered, questions in all)"""


class GreedyJudge:
    """`model_dir`, with the adapter in `adapter_dir` merged if there is one, as exact as servers are by default."""

    def __init__(self, model_dir: Path, adapter_dir: Path | None = None) -> None:
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True)
        if adapter_dir is not None:
            model = PeftModel.from_pretrained(model, str(adapter_dir)).merge_and_unload()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: PreTrainedModel = model.to(device, getattr(torch, native_precision())).eval()
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        info = xgrammar.TokenizerInfo.from_huggingface(
            self._tokenizer,
            vocab_size=model.get_output_embeddings().weight.shape[0],
            stop_token_ids=[self._tokenizer.eos_token_id],
        )
        # As the server's: no white space but what JSON is usually written with.
        self._grammar = xgrammar.GrammarCompiler(info).compile_json_schema(
            json.dumps(answer_schema()), any_whitespace=False
        )

    def judge(self, examples: Sequence[JudgeExample], on_batch: OnBatch = lambda done, count: None) -> list[LlmVerdict]:
        """One verdict for each example, in order; questions of like length go together."""
        ids = [question_ids(example.question, self._tokenizer) for example in examples]
        order = sorted(range(len(examples)), key=lambda i: len(ids[i]))
        verdicts: dict[int, LlmVerdict] = {}
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            for i, text in zip(chosen, self.answers([ids[i] for i in chosen]), strict=True):
                verdicts[i] = read_answer(text, examples[i].turn, examples[i].item)
            on_batch(len(verdicts), len(examples))
        return [verdicts[i] for i in range(len(examples))]

    def answers(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """What the model says to each prompt; cut off after ANSWER_TOKENS."""
        width = max(map(len, prompts))
        pad = self._tokenizer.pad_token_id
        pad = self._tokenizer.eos_token_id if pad is None else pad
        device = self._model.device
        made = self._model.generate(
            input_ids=torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts], device=device),
            attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device),
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            eos_token_id=self._tokenizer.eos_token_id,
            logits_processor=[LogitsProcessor(self._grammar)],
        )
        return list(self._tokenizer.batch_decode(made[:, width:], skip_special_tokens=True))
