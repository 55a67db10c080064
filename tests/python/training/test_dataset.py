"""From answers to rows and targets."""

from __future__ import annotations

import numpy as np
import pytest

from medusa_native import InvalidArgument
from medusa_native.training.dataset import (
    make_dataset,
    most_frequent,
    permutation,
    split,
    to_draft_ids,
)
from medusa_native.training.records import Answer

ANSWERS = [
    Answer(0, [7, 8], [10, 11, 12, 13], "stop"),
    Answer(1, [9], [20], "stop"),
    Answer(2, [9, 9, 9], [30, 31], "length"),
]


def test_rows_are_the_states_whose_next_token_belongs_to_the_answer() -> None:
    data = make_dataset(ANSWERS, 100)
    assert data.num_rows.tolist() == [3, 1]
    assert data.first_row.tolist() == [0, 3, 4]
    # The state of the prompt's last token (8) has the answer's first token (10) as its root.
    assert data.inputs(0) == [7, 8, 10, 11]
    assert data.inputs(1) == [9, 9, 9]
    assert data.roots().tolist() == [10, 11, 12, 30]


def test_head_k_learns_the_token_after_the_next_k_plus_one() -> None:
    targets = make_dataset(ANSWERS, 100).targets(3)
    assert targets.tolist() == [[11, 12, 13], [12, 13, -1], [13, -1, -1], [31, -1, -1]]


def test_counts_are_of_answers_alone() -> None:
    counts = make_dataset(ANSWERS, 100).token_counts(np.array([0, 1]), 40)
    assert counts.nonzero()[0].tolist() == [10, 11, 12, 13, 30, 31]


def test_answers_that_are_too_short_or_too_long_are_left_out() -> None:
    with pytest.raises(InvalidArgument, match="at least 2 answers of 2 tokens or more, found 1"):
        make_dataset(ANSWERS, 5)


def test_the_draft_vocabulary_is_what_occurs_most() -> None:
    chosen = most_frequent(np.array([0, 5, 2, 5, 9, 2]), 4)
    assert chosen.tolist() == [1, 2, 3, 4]
    targets = np.array([[4, 5], [-1, 1]], np.int32)
    assert to_draft_ids(targets, chosen, 6).tolist() == [[3, -1], [-1, 0]]
    assert to_draft_ids(targets, None, 6) is targets


def test_permutations_are_fixed_for_ever() -> None:
    assert permutation(8, 0, 0).tolist() == [2, 4, 6, 5, 1, 7, 0, 3]
    assert sorted(permutation(1000, 1, 2)) == list(range(1000))
    assert permutation(1000, 1, 2).tolist() != permutation(1000, 1, 3).tolist()
    assert permutation(1000, 1, 2).tolist() != permutation(1000, 2, 2).tolist()


def test_a_split_keeps_both_sides() -> None:
    for count in (2, 3, 10, 1000):
        learn, keep = split(count, 0.1, 5)
        assert len(keep) >= 1
        assert sorted([*learn, *keep]) == list(range(count))
    assert len(split(100_000, 0.1, 5)[1]) == 512
