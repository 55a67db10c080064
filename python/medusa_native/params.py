"""What a caller may choose: how to sample, and how to speculate.

Names and meanings are vLLM's where it has the parameter, Medusa's own for the rest. The names of
Transformers and of the Medusa reference are accepted as aliases (:data:`SAMPLING_ALIASES`,
:data:`SPECULATIVE_ALIASES`). Whatever is not known, not supported or without effect is an
:class:`InvalidArgument` that names the parameter: nothing is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medusa_native.checks import (
    Kwargs,
    check_integer,
    check_number,
    checked_init,
    rename,
)
from medusa_native.errors import InvalidArgument
from medusa_native.sampling_params import SAMPLING_ALIASES, SamplingParams

__all__ = [
    "SAMPLING_ALIASES",
    "SPECULATIVE_ALIASES",
    "SamplingParams",
    "SpeculativeConfig",
    "check_paths",
]

SPECULATIVE_ALIASES = {
    "medusa_path": "model",
    "draft_model": "model",
    "medusa_num_heads": "num_speculative_tokens",
    "num_assistant_tokens": "num_speculative_tokens",
    "num_draft_tokens": "num_speculative_tokens",
}


def _translate_speculative(kwargs: Kwargs) -> Kwargs:
    translated = rename("SpeculativeConfig", kwargs, SPECULATIVE_ALIASES)
    if "medusa_speculation_length" in translated:  # counts the root, max_total_draft_tokens not
        length = translated.pop("medusa_speculation_length")
        if "max_total_draft_tokens" in translated:
            raise InvalidArgument(
                "SpeculativeConfig: medusa_speculation_length and max_total_draft_tokens are the "
                "same parameter; give one"
            )
        nodes = check_integer("SpeculativeConfig", "medusa_speculation_length", length, 2)
        translated["max_total_draft_tokens"] = nodes - 1
    return translated


@checked_init(_translate_speculative)
@dataclass(frozen=True)
class SpeculativeConfig:
    """How heads speculate.

    Parameters
    ----------
    method
        ``"medusa"``.
    model
        The heads: a folder, a file, a hub id, the name of a set in the package, or ``"auto"`` for
        the one shipped for the model.
    num_speculative_tokens
        Depth of the tree at most, that is, how many heads are used.
    medusa_choices
        The tree: ``"auto"`` (as `medusa-native tune` found it for this device; else the one stored
        with the heads, else ``"mc_sim_7b_63"``, cut to their number and to the nodes that usually
        pay here), ``"chain"``, the name of a stock tree, a JSON file, or a list of paths, each a
        list of ranks (``[0, 1]``: the best guess of head 1, then the second best of head 2).
    max_total_draft_tokens
        Nodes of the tree at most, the root not counted.
    acceptance_method
        ``"exact"``: what plain decoding would have produced, greedy or seeded. ``"typical"``:
        guesses that are likely enough, by the rule of the Medusa paper; the answer is another one.
    posterior_threshold, posterior_alpha
        ``"typical"`` keeps a guess of probability p, where the distribution's entropy is H, when
        ``p > min(posterior_threshold, posterior_alpha * exp(-H))``. Between 0 and 1.

    Notes
    -----
    Aliases: ``medusa_path``, ``draft_model`` (model); ``medusa_num_heads``,
    ``num_assistant_tokens``, ``num_draft_tokens`` (num_speculative_tokens);
    ``medusa_speculation_length`` (max_total_draft_tokens, root counted).
    """

    method: str = "medusa"
    model: str | Path | None = None
    num_speculative_tokens: int | None = None
    medusa_choices: str | Path | Sequence[Sequence[int]] = "auto"
    max_total_draft_tokens: int | None = None
    acceptance_method: str = "exact"
    posterior_threshold: float = 0.09
    posterior_alpha: float = 0.3

    def __post_init__(self) -> None:
        owner = "SpeculativeConfig"
        if self.method != "medusa":
            raise InvalidArgument(f'{owner}: method must be "medusa", found {self.method!r}')
        if self.model is not None and not isinstance(self.model, (str, Path)):
            raise InvalidArgument(f"{owner}: model must be a path or an id, found {self.model!r}")
        for name in ("num_speculative_tokens", "max_total_draft_tokens"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(owner, name, getattr(self, name), 1))
        self._check_acceptance(owner)
        if not isinstance(self.medusa_choices, (str, Path)):
            object.__setattr__(self, "medusa_choices", check_paths(self.medusa_choices))

    def _check_acceptance(self, owner: str) -> None:
        if self.acceptance_method not in ("exact", "typical"):
            raise InvalidArgument(
                f'{owner}: acceptance_method must be "exact" or "typical", found '
                f"{self.acceptance_method!r}"
            )
        for name, default in (("posterior_threshold", 0.09), ("posterior_alpha", 0.3)):
            value = check_number(owner, name, getattr(self, name), 0, 1, "(0, 1)")
            if self.acceptance_method == "exact" and value != default:
                raise InvalidArgument(
                    f'{owner}: {name} has no effect with acceptance_method="exact"'
                )
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, value: SpeculativeConfig | Mapping[str, Any]) -> SpeculativeConfig:
        """Return `value`, a configuration or a mapping of its parameters, as a configuration."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise InvalidArgument(
                f"speculative_config must be a SpeculativeConfig or a dict, found {value!r}"
            )
        return cls(**value)


def check_paths(value: Any) -> tuple[tuple[int, ...], ...]:
    """Return tree paths as tuples; raise InvalidArgument for anything but lists of integers."""
    owner, name = "SpeculativeConfig", "medusa_choices"
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        raise InvalidArgument(f"{owner}: {name} must be a name or a list of paths, found {value!r}")
    for path in value:
        if not isinstance(path, Sequence) or isinstance(path, (str, bytes)):
            raise InvalidArgument(f"{owner}: {name}: a path is a list of ranks, found {path!r}")
    return tuple(tuple(check_integer(owner, name, rank, 0) for rank in path) for path in value)
