"""Answers as documents, documents packed into sequences, sequences gathered into updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.training.dataset import permutation

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native.training.recipe import Recipe
    from medusa_native.training.records import Answer

    Ids = npt.NDArray[np.int32]
    TokenBatch = tuple[Ids, Ids, Ids, Ids]

NO_TARGET = -1


@dataclass(frozen=True)
class Update:
    """Sequences that are learned from together, each a list of answers by index."""

    stage: int
    sequences: list[list[int]]


def num_rows(answer: Answer) -> int:
    """Tokens that run through the model: all but the last, which nothing follows."""
    return len(answer.prompt_token_ids) + len(answer.token_ids) - 1


def pack(lengths: Sequence[int], order: Sequence[int], limit: int) -> list[list[int]]:
    """Fill one sequence after another; a document that does not fit begins the next one."""
    out: list[list[int]] = []
    free = 0
    for index in order:
        if lengths[index] > free:
            out.append([])
            free = limit
        out[-1].append(index)
        free -= lengths[index]
    return out


def plan_updates(answers: Sequence[Answer], learn: Sequence[int], recipe: Recipe) -> list[Update]:
    """Return every update of a training run; depends on the arguments alone."""
    lengths = [num_rows(answer) for answer in answers]
    limit, together = recipe.sequence_length, recipe.batch_tokens // recipe.sequence_length
    updates: list[Update] = []
    passes = 0
    for number, stage in enumerate(recipe.stages):
        for _ in range(stage.epochs):
            passes += 1  # pass 0 of the permutations chose the validation set
            order = [learn[i] for i in permutation(len(learn), recipe.seed, passes)]
            filled = pack(lengths, order, limit) if recipe.packing else [[i] for i in order]
            updates += [
                Update(number, filled[i : i + together]) for i in range(0, len(filled), together)
            ]
    return updates


def token_batch(answers: Sequence[Answer], num_heads: int, draft_ids: Ids) -> TokenBatch:
    """Return a sequence of answers as the native trainer takes it.

    Row r of a document predicts its token r + 1 where that belongs to the answer, and head k its
    token r + 2 + k. `draft_ids` maps token ids, and at its end the lack of one, to draft ids.
    """
    tokens, lm_targets, head_targets = [], [], []
    missing = len(draft_ids) - 1
    for answer in answers:
        prompt = len(answer.prompt_token_ids)
        ids = np.array([*answer.prompt_token_ids, *answer.token_ids], dtype=np.int32)
        rows = len(ids) - 1
        after = np.concatenate([ids, np.full(num_heads + 1, missing, dtype=np.int32)])
        targets = np.stack([after[k + 1 : k + 1 + rows] for k in range(num_heads + 1)], axis=1)
        targets[: prompt - 1] = missing
        tokens.append(ids[:-1])
        lm_targets.append(np.where(targets[:, 0] == missing, NO_TARGET, targets[:, 0]))
        head_targets.append(draft_ids[targets[:, 1:]])
    return (
        np.concatenate(tokens),
        np.array([len(document) for document in tokens], dtype=np.int32),
        np.concatenate(lm_targets).astype(np.int32),
        np.concatenate(head_targets),
    )


def draft_ids_of(token_map: Ids | None, vocab_size: int) -> Ids:
    """Return the draft id of every token id, and of none, as the last one."""
    out = np.full(vocab_size + 1, NO_TARGET, dtype=np.int32)
    if token_map is None:
        out[:-1] = np.arange(vocab_size, dtype=np.int32)
    else:
        out[token_map] = np.arange(len(token_map), dtype=np.int32)
    return out
