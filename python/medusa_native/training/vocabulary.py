"""The tokens that answers use most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.checks import check_integer
from medusa_native.errors import InvalidArgument
from medusa_native.training.dataset import most_frequent
from medusa_native.training.records import read_answers

if TYPE_CHECKING:
    import numpy.typing as npt

_MAX_ID = 2**31 - 1


def most_frequent_in(
    path: Path,
    size: int,
    vocab_size: int | None = None,
    among: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int32]:
    """Return the `size` ids that occur most often in an answers file, in ascending order.

    Parameters
    ----------
    path
        Answers, as `distill` writes them.
    size
        How many; ties go to the lower id, and ids that never occur fill up from the lowest.
    vocab_size
        Of the model; None: not known.
    among
        Choose from these ids only; None: from all.

    Raises
    ------
    InvalidArgument
        The file cannot be read, there are fewer ids than `size`, or neither `vocab_size` nor
        `among` says which there are.
    """
    known = np.arange(vocab_size or 0) if among is None else np.sort(among)
    if not known.size:
        raise InvalidArgument(
            "draft_vocab: the model's vocabulary, which these heads do not tell, is needed: give "
            "the model"
        )
    check_integer("convert", "draft_vocab", size, 1, len(known))
    answers = read_answers(path, vocab_size or _MAX_ID)
    turns = [turn.token_ids for answer in answers for turn in answer.turns()]
    tokens = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in turns])
    counts = np.bincount(tokens[tokens <= known[-1]], minlength=known[-1] + 1)
    return known[most_frequent(counts[known], size)].astype(np.int32)
