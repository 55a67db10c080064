"""The model's own answers, and at which place its heads rank the tokens of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from medusa_native.errors import InvalidArgument
from medusa_native.training.answering import Answering, AnswerSettings
from medusa_native.training.dataset import NO_TARGET as NO_TOKEN
from medusa_native.training.dataset import Dataset, make_dataset
from medusa_native.training.hidden import answer_rows, next_batch
from medusa_native.training.progress import Meter
from medusa_native.training.records import Answer, Prompt, read_answers
from medusa_native.tuning.paths import MISS, NO_TARGET

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core
    from medusa_native.tokenizer import Tokenizer

T = TypeVar("T")
NUM_RANKS = 32  # guesses of a head that a tree may use
MAX_PROMPT = 1024  # tokens; longer prompts are left out


@dataclass(frozen=True)
class Calibration:
    """Rows of answers, one answer's after another's.

    Attributes
    ----------
    ranks
        int32 (rows, heads): the place at which a head ranks the token that came, from 0; `MISS`;
        `NO_TARGET` where the answer has ended.
    first_row
        First row of each answer, and at the end the number of rows.
    num_ranks
        Guesses of a head that were looked at.
    """

    ranks: npt.NDArray[np.int32]
    first_row: list[int]
    num_ranks: int


def load_answers(path: str | Path, vocab_size: int, max_length: int, limit: int) -> Dataset:
    """Read at most `limit` answers, evenly spread over the file, as `distill` writes them."""
    return make_dataset(spread(read_answers(Path(path), vocab_size), limit), max_length)


def answer_prompts(
    model: _core.Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    settings: AnswerSettings,
    *,
    progress: bool | None = None,
) -> Dataset:
    """Let the model answer prompts; those too long for it are left out."""
    longest = model.config.max_position_embeddings
    length = min(settings.max_tokens + MAX_PROMPT, longest)
    answering = Answering(model, tokenizer, settings, length=length)
    answers: list[Answer] = []
    with Meter("answers", len(prompts), shown=progress) as meter:
        for finished in answering.steps(enumerate(prompts)):
            answers += finished
            meter.update(len(answers) + answering.num_skipped)
    order = {prompt.key: number for number, prompt in enumerate(prompts)}
    return make_dataset(sorted(answers, key=lambda answer: order[answer.key]), longest)


def spread(items: Sequence[T], limit: int) -> list[T]:
    """Return at most `limit` items, evenly spread: files are often sorted by source."""
    count = min(limit, len(items))
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def rank_answers(
    model: _core.Model, heads: _core.Heads, dataset: Dataset, *, progress: bool | None
) -> Calibration:
    """Ask the heads at every row of every answer.

    A row's state is the one decoding sees at that place, bit for bit, so these are the ranks that
    decoding meets.
    """
    num_ranks = min(NUM_RANKS, heads.draft_vocab_size)
    targets = dataset.targets(heads.num_heads)
    first = dataset.first_row
    parts: list[npt.NDArray[np.int32]] = []
    done, count = 0, len(dataset.answers)
    with Meter("heads' ranks", count, shown=progress) as meter:
        while done < count:
            batch = next_batch(dataset, done)
            rows = slice(int(first[done]), int(first[done + len(batch)]))
            states = answer_rows(model.hidden_states(batch), batch, dataset.num_rows[done:])
            answers = dataset.answers[done : done + len(batch)]
            roots = [token for answer in answers for token in answer.token_ids[:-1]]
            guesses = heads.guesses(as_core_rows(states), roots, num_ranks)
            parts.append(_ranks(guesses, targets[rows]))
            done += len(batch)
            meter.update(done, "answers")
    return Calibration(np.concatenate(parts), first.tolist(), num_ranks)


def as_core_rows(states: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str, tuple[int, ...]]:
    """Return hidden states as the core takes tensors."""
    dtype = "BF16" if states.dtype == np.uint16 else "F32"
    return np.ascontiguousarray(states), dtype, states.shape


def _ranks(guesses: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Place of each target (rows, heads) among the guesses (rows, heads, ranks)."""
    right = guesses == targets[:, :, None]
    ranks = np.where(right.any(axis=2), right.argmax(axis=2), MISS).astype(np.int32)
    ranks[targets == NO_TOKEN] = NO_TARGET
    return ranks


def check_source(prompts: str | Path | None, answers: str | Path | None) -> None:
    """Raise InvalidArgument unless exactly one of the two is given."""
    if (prompts is None) == (answers is None):
        raise InvalidArgument(
            "tune: give prompts, which the model answers, or answers that `distill` wrote: one of "
            "the two"
        )
