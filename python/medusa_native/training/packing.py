"""Answers as documents, documents packed into sequences, sequences gathered into updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.errors import InvalidArgument
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


def documents_of(answers: Sequence[Answer], limit: int) -> list[Answer]:
    """Keep what can be learned from; a conversation is cut after its last turn that fits.

    Raises
    ------
    InvalidArgument
        Fewer than two are left: one to learn from, one to validate on.
    """
    kept = []
    for answer in answers:
        room = limit - len(answer.prompt_token_ids)
        spans = [(begin, end) for begin, end in answer.spans if end <= room]
        if any(end - begin >= 2 for begin, end in spans):
            kept.append(
                replace(answer, token_ids=answer.token_ids[: spans[-1][1]], responses=spans)
            )
    if len(kept) < 2:
        raise InvalidArgument(
            f"training needs at least 2 answers of 2 tokens or more, which fit into {limit} with "
            f"their prompts, found {len(kept)}"
        )
    return kept


def count_tokens(answers: Sequence[Answer], vocab_size: int) -> npt.NDArray[np.int64]:
    """How often the model says each token id."""
    said = [a.token_ids[begin:end] for a in answers for begin, end in a.spans]
    return np.bincount(np.concatenate(said), minlength=vocab_size)


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

    Where the model speaks, row r of a document predicts its token r + 1, and head k its token
    r + 2 + k if that belongs to the same turn. `draft_ids` maps token ids, and at its end the lack
    of one, to draft ids.
    """
    targets = [_targets(answer, num_heads, missing=len(draft_ids) - 1) for answer in answers]
    tokens = [[*a.prompt_token_ids, *a.token_ids][:-1] for a in answers]
    whole = np.concatenate(targets)
    return (
        np.concatenate([np.array(document, dtype=np.int32) for document in tokens]),
        np.array([len(document) for document in tokens], dtype=np.int32),
        np.where(whole[:, 0] == len(draft_ids) - 1, NO_TARGET, whole[:, 0]).astype(np.int32),
        draft_ids[whole[:, 1:]],
    )


def _targets(answer: Answer, num_heads: int, missing: int) -> Ids:
    """Token ids (rows, 1 + heads) that follow each row, `missing` where nothing is to be learned."""
    first = len(answer.prompt_token_ids) - 1
    out = np.full((num_rows(answer), 1 + num_heads), missing, dtype=np.int32)
    ids = np.array(answer.token_ids, dtype=np.int32)
    for begin, end in answer.spans:
        for ahead in range(1 + num_heads):
            rows = slice(first + begin, first + max(end - ahead, begin))
            out[rows, ahead] = ids[begin + ahead : end]
    return out


def head_rows(documents: Sequence[Answer]) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Rows of a sequence whose next token begins or goes on with a turn that has a token more.

    Returns
    -------
    rows
        Into the sequence.
    counts
        How many of them every turn has.
    """
    rows, counts, first = [np.empty(0, dtype=np.int64)], [], 0
    for answer in documents:
        for begin, end in answer.spans:
            start = first + len(answer.prompt_token_ids) - 1 + begin
            rows.append(np.arange(start, start + end - begin - 1))
            counts.append(end - begin - 1)
        first += num_rows(answer)
    return np.concatenate(rows), counts


def draft_ids_of(token_map: Ids | None, vocab_size: int) -> Ids:
    """Return the draft id of every token id, and of none, as the last one."""
    out = np.full(vocab_size + 1, NO_TARGET, dtype=np.int32)
    if token_map is None:
        out[:-1] = np.arange(vocab_size, dtype=np.int32)
    else:
        out[token_map] = np.arange(len(token_map), dtype=np.int32)
    return out
