"""adapter_config.json of PEFT's LoRA: what scales which layer, and what would mean something else.

Source: huggingface/peft, `tuners/lora/config.py` and `utils/other.py` (`get_pattern_key`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import Fields, read_json

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_FILE = "adapter_config.json"

# Keys of training, of bookkeeping, or ones that tensors answer better.
_FREE = frozenset(
    (
        "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
        "revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha",
        "lora_dropout", "fan_in_fan_out", "use_rslora", "modules_to_save", "layers_to_transform",
        "layers_pattern", "rank_pattern", "alpha_pattern", "megatron_core", "qalora_group_size",
        "eva_config", "runtime_config",
    )
)  # fmt: skip
# Initialisations that leave the base's weights as they are; others (PiSSA, OLoRA, LoftQ) change them.
_KEEPING_INITS = (True, False, "gaussian", "eva", "orthogonal")
_MODULE = re.compile(r"\^?[\w.]+\$?")


@dataclass(frozen=True)
class AdapterConfig:
    """What adapter_config.json says of LoRA.

    Attributes
    ----------
    rank, alpha
        The adapter adds ``alpha / rank`` times ``B A`` to a weight.
    targets
        Last parts of module names (``q_proj``); empty where the file holds a pattern.
    dropout
        Of training; means nothing afterwards.
    use_rslora
        Divide alpha by the root of the rank instead.
    rank_pattern, alpha_pattern
        Module name, or its last parts, to its own rank or alpha; the first that fits counts.
    modules_to_save
        Modules whose weights the adapter replaces.
    base_model
        Name of the model it is for, or None.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dropout: float = 0.0
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    base_model: str | None = None

    def rank_of(self, module: str) -> int:
        """Return the rank of a module's factors."""
        return int(_first(self.rank_pattern, module, self.rank))

    def scale_of(self, module: str) -> float:
        """Return what a module's product of factors is multiplied by."""
        rank = self.rank_of(module)
        divisor = rank**0.5 if self.use_rslora else rank
        return float(_first(self.alpha_pattern, module, self.alpha)) / divisor

    def targets_module(self, module: str) -> bool:
        """Whether a module's adapter is meant to be applied."""
        return not self.targets or any(ends_with(module, target) for target in self.targets)


def ends_with(module: str, name: str) -> bool:
    """Whether whole last parts of a module's name are `name`."""
    return module == name or module.endswith(f".{name}")


def _first(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    for key, value in pattern.items():
        name = key.removeprefix("^").removesuffix("$")
        if module == name or (ends_with(module, name) and not key.startswith("^")):
            return value
    return default


def read_adapter_config(path: Path) -> AdapterConfig:
    """Read adapter_config.json.

    Raises
    ------
    ModelFormatError
        The file is damaged, is not of LoRA, or asks for what is not supported. The message names
        file, key, expected and found.
    """
    fields = read_json(path)
    if fields.get_str("peft_type") != "LORA":
        raise fields.fail("peft_type", "'LORA'")
    _require_supported(fields)
    return AdapterConfig(
        rank=fields.get_int("r"),
        alpha=fields.get_float("lora_alpha"),
        targets=_targets(fields),
        dropout=_dropout(fields),
        use_rslora=fields.get_bool("use_rslora", False),
        rank_pattern=_pattern(fields, "rank_pattern", Fields.get_int),
        alpha_pattern=_pattern(fields, "alpha_pattern", Fields.get_float),
        modules_to_save=_texts(fields, "modules_to_save"),
        base_model=fields.get_str("base_model_name_or_path", "") or None,
    )


def _require_supported(fields: Fields) -> None:
    """Raise for every key that would change what is computed in a way that is not known here."""
    if fields.get_str("bias", "none") != "none":
        raise fields.fail("bias", "'none'")
    init = fields.values.get("init_lora_weights", True)
    if not isinstance(init, bool | str) or init not in _KEEPING_INITS:
        raise fields.fail(
            "init_lora_weights", "one that leaves the model's weights as they are (true, gaussian)"
        )
    for key, value in fields.values.items():
        known = key in _FREE or key in ("bias", "init_lora_weights")
        if not known and value not in (None, False, [], {}):
            raise ModelFormatError(
                f"{fields.path}: '{key}' is not supported: expected null or false, "
                f"found {value!r:.80}"
            )


def _targets(fields: Fields) -> tuple[str, ...]:
    """Return names of modules; a pattern is not evaluated, for the tensors say what it matched."""
    if isinstance(fields.values.get("target_modules"), str):
        return ()
    return _texts(fields, "target_modules")


def _texts(fields: Fields, key: str) -> tuple[str, ...]:
    values = fields.get_list(key)
    if not all(isinstance(value, str) for value in values):
        raise fields.fail(key, "a list of texts")
    return tuple(values)


def _dropout(fields: Fields) -> float:
    value = fields.values.get("lora_dropout") or 0.0
    return 0.0 if value == 0.0 else fields.get_float("lora_dropout")


def _pattern(fields: Fields, key: str, get: Any) -> dict[str, Any]:
    nested = fields.get_fields(key)
    for name in nested.values:
        if not _MODULE.fullmatch(name):
            raise ModelFormatError(
                f"{fields.path}: '{key}' must have names of modules as keys, found {name!r:.80}"
            )
    return {name: get(nested, name) for name in nested.values}
