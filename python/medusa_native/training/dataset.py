"""Answers as rows to learn from.

Row i of an answer is the backbone's state at the position whose next token is answer token i, the
state that heads see when that token is the root. Head k learns answer token i + 1 + k. The last
token has no row, for nothing follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.errors import InvalidArgument
from medusa_native.splitmix64 import splitmix64

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native.training.records import Answer

NO_TARGET = -1
_MAX_VALIDATION = 512  # answers


@dataclass(frozen=True)
class Dataset:
    """Rows of answers, one after another.

    Attributes
    ----------
    answers
        Those of at least two tokens, in order; each turn of a conversation is one.
    conversation
        Number of the record that each answer is from, ascending; None: each is its own.
    """

    answers: Sequence[Answer]
    conversation: Sequence[int] | None = None

    def split(
        self, fraction: float, seed: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the answers to learn from and those to validate on; conversations stay whole."""
        numbers = range(len(self.answers)) if self.conversation is None else self.conversation
        records, of_answer = np.unique(np.asarray(numbers), return_inverse=True)
        learn, keep = split(len(records), fraction, seed)
        return np.flatnonzero(np.isin(of_answer, learn)), np.flatnonzero(np.isin(of_answer, keep))

    @cached_property
    def num_rows(self) -> npt.NDArray[np.int64]:
        """Rows of each answer."""
        return np.array([len(a.token_ids) - 1 for a in self.answers], dtype=np.int64)

    @cached_property
    def first_row(self) -> npt.NDArray[np.int64]:
        """First row of each answer, and at the end the number of all rows."""
        return np.concatenate([[0], np.cumsum(self.num_rows)]).astype(np.int64)

    @cached_property
    def _tokens(self) -> npt.NDArray[np.int32]:
        return np.concatenate([np.asarray(a.token_ids, dtype=np.int32) for a in self.answers])

    def inputs(self, index: int) -> list[int]:
        """Tokens to run through the backbone: its last `num_rows[index]` states are the rows."""
        answer = self.answers[index]
        return [*answer.prompt_token_ids, *answer.token_ids[:-2]]

    def rows_of(self, answers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """All rows of these answers, in order."""
        first = self.first_row
        return np.concatenate([np.arange(first[i], first[i + 1]) for i in answers])

    @cached_property
    def _answer_of_row(self) -> npt.NDArray[np.int64]:
        return np.repeat(np.arange(len(self.answers)), self.num_rows)

    @cached_property
    def _root_of_row(self) -> npt.NDArray[np.int64]:
        return np.arange(self.first_row[-1]) + self._answer_of_row  # a token more than rows each

    def roots(self) -> npt.NDArray[np.int32]:
        """Token id of each row's root."""
        return self._tokens[self._root_of_row]

    def targets(self, num_heads: int) -> npt.NDArray[np.int32]:
        """Token ids (rows, num_heads) that the heads should name; `NO_TARGET` past the end."""
        end = (self.first_row[1:] + np.arange(1, len(self.answers) + 1))[self._answer_of_row]
        out = np.full((len(end), num_heads), NO_TARGET, dtype=np.int32)
        for k in range(num_heads):
            at = self._root_of_row + 1 + k
            exists = at < end
            out[exists, k] = self._tokens[at[exists]]
        return out

    def token_counts(
        self, answers: npt.NDArray[np.int64], vocab_size: int
    ) -> npt.NDArray[np.int64]:
        """How often each token id occurs in these answers."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for i in answers:
            np.add.at(counts, self.answers[i].token_ids, 1)
        return counts


def make_dataset(answers: Sequence[Answer], max_length: int) -> Dataset:
    """Keep what can be learned from: turns of two tokens or more that fit the model.

    Raises
    ------
    InvalidArgument
        Fewer than two are left: one to learn from, one to validate on.
    """
    kept = [
        (number, turn)
        for number, answer in enumerate(answers)
        for turn in answer.turns()
        if len(turn.token_ids) >= 2
        and len(turn.prompt_token_ids) + len(turn.token_ids) <= max_length
    ]
    count = len({number for number, _ in kept})
    if count < 2:
        raise InvalidArgument(
            f"training needs at least 2 answers of 2 tokens or more, found {count}"
        )
    return Dataset([turn for _, turn in kept], [number for number, _ in kept])


def split(
    num_answers: int, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the answers to learn from and those to validate on, chosen by the seed alone."""
    count = min(max(round(num_answers * fraction), 1), _MAX_VALIDATION, num_answers - 1)
    order = permutation(num_answers, seed, 0)
    return np.sort(order[count:]), np.sort(order[:count])


def permutation(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return a random order that depends on the arguments alone, not on NumPy's version.

    Indices are sorted by SplitMix64 of (seed, epoch, index).
    """
    start = seed * 0x9E3779B97F4A7C15 + epoch * 0xD1B54A32D192ED03
    return np.argsort(splitmix64(start, np.arange(1, count + 1, dtype=np.uint64)), kind="stable")


def most_frequent(counts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int32]:
    """Return the `size` most frequent ids in ascending order; ties go to the lower id."""
    return np.sort(np.argsort(-counts, kind="stable")[:size]).astype(np.int32)


def to_draft_ids(
    targets: npt.NDArray[np.int32], token_map: npt.NDArray[np.int32] | None, vocab_size: int
) -> npt.NDArray[np.int32]:
    """Replace token ids by draft ids; what the heads cannot name becomes `NO_TARGET`."""
    if token_map is None:
        return targets
    inverse = np.full(vocab_size + 1, NO_TARGET, dtype=np.int32)  # the last serves NO_TARGET
    inverse[token_map] = np.arange(len(token_map), dtype=np.int32)
    return inverse[targets]
