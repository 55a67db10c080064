"""Plain decoding with every sampling parameter, in NumPy: one token at a time from whole-prompt
logits, without cache, tree or batch. Processors are vLLM's, in vLLM's order, float32 as in the
core; the noise and the filters are float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medusa_native import _core

Row = npt.NDArray[np.float32]


def process(
    row: Row, params: _core.SamplingParams, prompt: Sequence[int], answer: Sequence[int]
) -> Row:
    """Return the logits that the token after `answer` is drawn from."""
    row = row.astype(np.float32, copy=True)
    for token, bias in params.logit_bias:
        row[token] += np.float32(bias)
    seen = sorted({*prompt, *answer})
    repetition = np.float32(params.repetition_penalty)
    row[seen] = np.where(row[seen] > 0, row[seen] / repetition, row[seen] * repetition)
    for token, count in Counter(answer).items():
        row[token] -= np.float32(params.frequency_penalty) * np.float32(count)
        row[token] -= np.float32(params.presence_penalty)
    banned = set(params.stop_token_ids) if len(answer) < params.min_tokens else set()
    for *before, last in params.bad_words:
        if list(answer[len(answer) - len(before) :]) == before:
            banned.add(last)
    if params.allowed_token_ids:
        banned |= set(range(row.size)) - set(params.allowed_token_ids)
    row[list(banned)] = -np.inf
    return row


def philox(block: npt.NDArray[np.uint64], position: int, seed: int) -> npt.NDArray[np.uint64]:
    """Return Philox4x32-10 of counters (block, position, 0x6d656475): (4, blocks)."""
    low = np.uint64(2**32 - 1)
    c = [block, *(np.full_like(block, v) for v in (position % 2**32, position >> 32, 0x6D656475))]
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        shift = np.uint64(32)
        c = [
            (b >> shift) ^ c[1] ^ np.uint64(k0),
            b & low,
            (a >> shift) ^ c[3] ^ np.uint64(k1),
            a & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack(c)


def gumbel(vocab: int, position: int, seed: int) -> npt.NDArray[np.float64]:
    """Return the noise of all tokens at a position."""
    token = np.arange(vocab)
    words = philox((token // 64 * 16 + token % 16).astype(np.uint64), position, seed)
    word = words[token // 16 % 4, token]
    return -np.log(-np.log1p(-(word + 0.5) / 2**32))


def kept(row: Row, params: _core.SamplingParams) -> npt.NDArray[np.bool_]:
    """Return which tokens min_p, top_k and top_p leave."""
    with np.errstate(divide="ignore"):
        scaled = row.astype(np.float64) / np.float32(params.temperature)
    weights = np.exp(scaled - scaled.max())
    keep = (weights > 0) & (weights >= np.float32(params.min_p))
    if 0 < params.top_k < row.size:
        keep &= row >= np.sort(row)[-params.top_k]
    order = np.lexsort((np.arange(row.size), -weights))
    order = order[keep[order]]
    before = np.cumsum(weights[order]) - weights[order]
    if params.top_p < 1:
        keep[order[before >= np.float32(params.top_p) * weights[order].sum()]] = False
    return keep


def probabilities(row: Row, params: _core.SamplingParams) -> npt.NDArray[np.float64]:
    """Return what a processed row is drawn from."""
    scaled = row.astype(np.float64) / np.float32(params.temperature)
    weights = np.where(kept(row, params), np.exp(scaled - scaled.max()), 0)
    return weights / weights.sum()


def draw(row: Row, params: _core.SamplingParams, position: int) -> int:
    """Return the token drawn from a processed row."""
    if params.temperature == 0:
        return int(np.argmax(row))
    noisy = row / np.float32(params.temperature) + gumbel(row.size, position, params.seed)
    return int(np.argmax(np.where(kept(row, params), noisy, -np.inf)))


def decode(
    model: _core.Model, prompt: Sequence[int], params: _core.SamplingParams
) -> tuple[list[int], list[Row]]:
    """Return an answer's tokens, up to a stop token, and the raw logits each was drawn from."""
    answer: list[int] = []
    rows: list[Row] = []
    while len(answer) < params.max_tokens:
        rows.append(model.logits([*prompt, *answer])[-1])
        row = process(rows[-1], params, prompt, answer)
        answer.append(draw(row, params, len(prompt) + len(answer)))
        if answer[-1] in params.stop_token_ids:
            break
    return answer, rows
