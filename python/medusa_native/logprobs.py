"""Log probabilities, in the shape that vLLM gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medusa_native.tokenizer import Tokenizer

Entries = Sequence[tuple[int, float, int]]  # (id, logprob, rank): the token, then the likeliest


@dataclass(frozen=True)
class Logprob:
    """Log probability of a token under the model's own logits.

    Parameters
    ----------
    logprob
        Natural logarithm, of the softmax before penalties, biases, temperature and filters.
    rank
        1 for the likeliest token of the vocabulary; lower ids come first on ties.
    decoded_token
        The token's text alone; a replacement character where it is part of one.
    """

    logprob: float
    rank: int
    decoded_token: str


def as_dicts(tokenizer: Tokenizer, rows: Sequence[Entries]) -> list[dict[int, Logprob]]:
    """Return, for each token, id to `Logprob`: the token itself, then the likeliest, best first."""
    texts: dict[int, str] = {}
    for row in rows:
        for token, _, _ in row:
            if token not in texts:
                texts[token] = tokenizer.decode([token], skip_special_tokens=False)
    return [
        {token: Logprob(value, rank, texts[token]) for token, value, rank in row} for row in rows
    ]


def cumulative(rows: Sequence[Entries]) -> float:
    """Return the log probability of all tokens together."""
    return sum(row[0][1] for row in rows)
