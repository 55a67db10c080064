"""What heads and a trained backbone are worth, on answers they have not learned from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.training.packing import num_rows, pack, token_batch
from medusa_native.training.validation import Validation, summarise

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core
    from medusa_native.training.records import Answer


@dataclass(frozen=True)
class JointValidation:
    """Heads, and how far the backbone has gone from the model it was.

    Attributes
    ----------
    heads
        Accuracies and the best tree.
    divergence
        Mean over answers' tokens of KL(original || trained), in nats.
    perplexity, base_perplexity
        Of the answers, under the trained and under the original model.
    """

    heads: Validation
    divergence: float
    perplexity: float
    base_perplexity: float

    def summary(self) -> dict[str, Any]:
        """Return the figures without the tree, rounded."""
        return self.heads.summary() | {
            "divergence": round(self.divergence, 5),
            "perplexity": round(self.perplexity, 4),
            "base_perplexity": round(self.base_perplexity, 4),
        }


def validate(
    trainer: _core.JointTrainer,
    answers: Sequence[Answer],
    num_heads: int,
    draft_ids: npt.NDArray[np.int32],
    limit: int,
    max_nodes: int,
) -> JointValidation:
    """Measure on whole answers, packed into sequences of at most `limit` tokens."""
    found: dict[str, list[Any]] = {}
    first_row = [0]
    for sequence in pack([num_rows(a) for a in answers], range(len(answers)), limit):
        documents = [answers[i] for i in sequence]
        batch = token_batch(documents, num_heads, draft_ids)
        scores = trainer.evaluate(batch)
        answered = batch[2] >= 0
        heads = _head_rows(documents)
        exists = np.concatenate([_exists(a, num_heads) for a in documents])
        parts = {key: scores[key][answered] for key in ("log_prob", "base_log_prob", "divergence")}
        parts |= {key: scores[key][heads] for key in ("head_log_prob", "head_rank")}
        parts |= {"targets": batch[3][heads], "exists": exists}
        for key, part in parts.items():
            found.setdefault(key, []).append(part)
        first_row += [len(a.token_ids) - 1 for a in documents]
    whole = {key: np.concatenate(parts) for key, parts in found.items()}
    tree = summarise(
        whole["head_log_prob"], whole["head_rank"], whole["targets"], whole["exists"],
        np.cumsum(first_row).tolist(), max_nodes,
    )  # fmt: skip
    return JointValidation(
        tree,
        float(whole["divergence"].mean(dtype=np.float64)),
        math.exp(-float(whole["log_prob"].mean(dtype=np.float64))),
        math.exp(-float(whole["base_log_prob"].mean(dtype=np.float64))),
    )


def _head_rows(documents: Sequence[Answer]) -> npt.NDArray[np.int64]:
    """Rows of a sequence that heads work on: from the one before the answer to its last but two."""
    rows, first = [], 0
    for answer in documents:
        start = first + len(answer.prompt_token_ids) - 1
        rows.append(np.arange(start, start + len(answer.token_ids) - 1))
        first += num_rows(answer)
    return np.concatenate(rows)


def _exists(answer: Answer, num_heads: int) -> npt.NDArray[np.bool_]:
    """Whether a token follows, for every row and head."""
    rows = len(answer.token_ids) - 1
    last = np.arange(rows)[:, None] + 1 + np.arange(num_heads)
    return np.asarray(last < len(answer.token_ids))
