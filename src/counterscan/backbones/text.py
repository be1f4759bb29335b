"""Prompts become token ids: how many a text encoder takes, which words are cut, and which piece of a word each token is."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

LONGEST = 512  # tokens, for encoders that know no limit of their own (T5)
OFFSET = {"roberta": 2, "xlm-roberta": 2, "camembert": 2}  # position numbers that these never use


def longest(tokenizer: Any, encoder: Any) -> int:
    """How many tokens of a prompt the encoder takes."""
    positions = getattr(encoder.config, "max_position_embeddings", None) or LONGEST
    return int(min(tokenizer.model_max_length, positions - OFFSET.get(encoder.config.model_type, 0)))


def token_ids(tokenizer: Any, prompts: Sequence[str], length: int, name: str) -> Any:
    """The ids (B, length) of prompts, padded, with their ``attention_mask``. Warns, naming the words that are cut."""
    for prompt in prompts:
        ids = tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
        if len(ids) > length:
            cut = tokenizer.decode(ids[length - 1 : -1])
            warnings.warn(
                f"the prompt is too long for {name} ({len(ids)} of {length} tokens); cut: {cut!r}", stacklevel=5
            )
    return tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")


def tell_unknown(backbone: Any, *prompts: str) -> None:
    """Warn of words that somebody asked for and the model's tokenizer has no pieces for."""
    tokenizer = getattr(backbone, "tokenizer", None)
    unknown = [word for prompt in prompts for word in unknown_words(tokenizer, prompt)] if tokenizer is not None else []
    if unknown:
        words = ", ".join(map(repr, dict.fromkeys(unknown)))
        warnings.warn(f"{backbone.card.name} does not know {words}, and goes by the other words", stacklevel=3)


def unknown_words(tokenizer: Any, prompt: str) -> list[str]:
    """The words of a prompt that a tokenizer can only spell, letter by letter, or not at all."""
    if not tokenizer.is_fast:
        return []
    told = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
    ids = {place: number for number, place in zip(told["input_ids"], told["offset_mapping"], strict=True)}
    unknown = []
    for word in re.finditer("[A-Za-z]{3,}", prompt):
        inside = [place for place in ids if word.start() <= place[0] < place[1] <= word.end()]
        spelled = len(inside) == len(word[0])
        if spelled or any(ids[place] == tokenizer.unk_token_id for place in inside):
            unknown.append(word[0])
    return list(dict.fromkeys(unknown))


def word_pieces(tokenizer: Any, prompt: str, length: int) -> list[str]:
    """The pieces of a prompt padded or cut to ``length``, one a token; "" for special tokens such as padding."""
    ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True)["input_ids"]
    special = set(tokenizer.all_special_ids)
    return ["" if i in special else piece for i, piece in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)]
