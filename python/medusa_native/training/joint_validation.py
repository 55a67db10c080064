"""What heads and a trained backbone are worth, on answers they have not learned from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.training.packing import head_rows, num_rows, pack, token_batch
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
        heads, counts = head_rows(documents)
        exists = np.concatenate([_exists(count, num_heads) for count in counts])
        parts = {key: scores[key][answered] for key in ("log_prob", "base_log_prob", "divergence")}
        parts |= {key: scores[key][heads] for key in ("head_log_prob", "head_rank")}
        parts |= {"targets": batch[3][heads], "exists": exists}
        for key, part in parts.items():
            found.setdefault(key, []).append(part)
        first_row += counts
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


def _exists(rows: int, num_heads: int) -> npt.NDArray[np.bool_]:
    """Whether a token of the turn follows, for every row and head."""
    return np.asarray(np.arange(rows)[:, None] + np.arange(num_heads) < rows)
