"""What a benchmark decodes: real prompts, or random tokens of a given number; and heads to cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.cli.demo import PROMPTS
from medusa_native.errors import InvalidArgument
from medusa_native.loading import HeadsCheckpoint, save_heads
from medusa_native.loading.casting import to_bf16
from medusa_native.loading.heads import Layer
from medusa_native.training.records import read_prompts

if TYPE_CHECKING:
    from medusa_native.tokenizer import Tokenizer

Prompt = list[int]


def read_workload(path: str | Path | None, tokenizer: Tokenizer) -> list[Prompt]:
    """Return the prompts of a JSON Lines file, or a handful of built-in ones, as token ids.

    The chat template is applied where the model has one.
    """
    if path is not None:
        return [
            tokenizer.apply_chat_template(prompt.messages) for prompt in read_prompts(Path(path))
        ]
    if tokenizer.chat_template is None:
        return [tokenizer.encode(text) for text in PROMPTS]
    return [tokenizer.apply_chat_template([{"role": "user", "content": text}]) for text in PROMPTS]


def random_workload(count: int, length: int, vocab_size: int, seed: int) -> list[Prompt]:
    """Return `count` prompts of `length` random tokens each."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab_size, length).tolist() for _ in range(count)]


def repeat(prompts: list[Prompt], count: int) -> list[Prompt]:
    """Return exactly `count` prompts, beginning anew where they run out."""
    if not prompts:
        raise InvalidArgument("bench: there are no prompts")
    return [prompts[i % len(prompts)] for i in range(count)]


def write_random_heads(
    folder: Path, hidden_size: int, vocab_size: int, *, num_heads: int, draft_vocab: int, seed: int
) -> None:
    """Write heads that know nothing and cost what trained ones do.

    They are V2, with one residual block each and the model's lm_head trimmed to `draft_vocab`
    tokens drawn at random.
    """
    rng = np.random.default_rng(seed)
    scale = hidden_size**-0.5
    residual: list[list[Layer]] = []
    for _ in range(num_heads):
        weight = rng.standard_normal((hidden_size, hidden_size), np.float32) * np.float32(scale)
        residual.append([(to_bf16(weight), to_bf16(np.zeros(hidden_size, np.float32)))])
    token_map = None
    if 0 < draft_vocab < vocab_size:
        chosen = rng.choice(vocab_size, draft_vocab, replace=False)
        token_map = np.sort(chosen).astype(np.int32)
    save_heads(folder, HeadsCheckpoint(residual, None, token_map), {})
