"""Special tokens that a base model never saw start from the mean embedding of related words (CM2, pipeline step 3)."""

from collections.abc import Mapping, Sequence
from typing import Any


def start_from_words(model: Any, tokenizer: Any, words: Mapping[str, Sequence[str]]) -> None:
    """Adds each token that the tokenizer lacks, as a special one, and sets the embeddings of all of them.

    Output embeddings too, where the model does not share them with the input. The table only ever grows: models pad it.
    Raises ValueError for a token of no words.
    """
    import torch

    means: dict[str, tuple[Any, Any]] = {}
    before = model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()
    for token, related in words.items():
        ids = [i for word in related for i in tokenizer(" " + word, add_special_tokens=False).input_ids]
        if not ids:
            raise ValueError(f"the special token {token!r} has no words to start from")
        means[token] = before[0][ids].mean(dim=0), before[1][ids].mean(dim=0)
    known = tokenizer.get_vocab()
    if missing := [token for token in words if token not in known]:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    if len(tokenizer) > len(before[0]):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for token, (mean_in, mean_out) in means.items():
            index = tokenizer.convert_tokens_to_ids(token)
            model.get_input_embeddings().weight[index] = mean_in
            if not model.config.tie_word_embeddings:
                model.get_output_embeddings().weight[index] = mean_out
