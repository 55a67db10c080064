"""Names of Medusa head tensors in the wild.

Sources: FasterDecoding/Medusa (`{h}.{l}.linear.weight`, `{h}.{L}.weight`, inside a full model behind
`medusa_head.`), PEFT adapters of it, vLLM (`blocks.{h}.layers.{l}.weight`, `lm_heads.{h}.weight`,
`token_map`), TensorRT-LLM (`medusa_heads.{h}.medusa_layers.{l}.linear.weight`,
`medusa_heads.{h}.lm_head.weight`), ModelOpt (`medusa_heads.{h}.{l}.linear.weight` with scales).
"""

from __future__ import annotations

import re
from typing import NamedTuple

# What is known about a family: the names of a residual block's part and of a projection.
FAMILIES = {
    "medusa": ("{h}.{l}.linear.{part}", "{h}.{depth}.weight"),
    "full model": ("medusa_head.{h}.{l}.linear.{part}", "medusa_head.{h}.{depth}.weight"),
    "peft": (
        "base_model.model.medusa_head.{h}.{l}.linear.{part}",
        "base_model.model.medusa_head.{h}.{depth}.weight",
    ),
    "vllm": ("blocks.{h}.layers.{l}.{part}", "lm_heads.{h}.weight"),
    "tensorrt-llm": (
        "medusa_heads.{h}.medusa_layers.{l}.linear.{part}",
        "medusa_heads.{h}.lm_head.weight",
    ),
    "modelopt": ("medusa_heads.{h}.{l}.linear.{part}", "medusa_heads.{h}.{depth}.weight"),
}

_PREFIX = re.compile(r"^(?:base_model\.model\.|model\.|medusa_heads?\.|heads\.)+")
_ADAPTER = re.compile(r"\.modules_to_save\.[^.]+\.")

# layout, kind, name: head, layer, part
_PATTERNS = tuple(
    (layout, kind, re.compile(pattern))
    for layout, kind, pattern in (
        ("medusa", "residual", r"(\d{1,4})\.(\d{1,4})\.linear\.(\w+)"),
        ("medusa", "projection", r"(\d{1,4})\.(\d{1,4})\.(\w+)"),
        ("tensorrt-llm", "residual", r"(\d{1,4})\.medusa_layers\.(\d{1,4})\.linear\.(\w+)"),
        ("tensorrt-llm", "projection", r"(\d{1,4})\.()lm_head\.(\w+)"),
        ("vllm", "residual", r"blocks\.(\d{1,4})\.layers\.(\d{1,4})\.(\w+)"),
        ("vllm", "projection", r"lm_heads\.(\d{1,4})\.()(\w+)"),
    )
)
# A name that begins like this belongs to heads, known or not.
_LIKE_HEADS = re.compile(r"\d+\.(\d+|medusa_layers|lm_head)\.|blocks\.\d+\.layers\.|lm_heads\.")

_ROLES = {
    ("residual", "weight"): "weight",
    ("residual", "bias"): "bias",
    ("residual", "weight_scale"): "weight_scale",
    ("residual", "weights_scaling_factor"): "weight_scale",
    ("residual", "input_scale"): "input_scale",
    ("residual", "activation_scaling_factor"): "input_scale",
    ("projection", "weight"): "projection",
    ("projection", "weight_scale"): "projection_scale",
    ("projection", "weights_scaling_factor"): "projection_scale",
    ("projection", "input_scale"): "projection_input_scale",
    ("projection", "activation_scaling_factor"): "projection_input_scale",
}


class Place(NamedTuple):
    """Where a tensor belongs.

    `role` is "weight", "bias", "projection", one of their scales, "token_map", "lm_head" (a
    projection that all heads share), or "unknown" for a part of heads that no reader knows.
    `depth` is the number of layers a projection's name says it stands after.
    """

    family: str
    role: str
    head: int = 0
    layer: int = 0
    depth: int | None = None


def place_of(name: str, own_lm_head: bool = False) -> Place | None:
    """Return the place of a tensor in Medusa heads; None for tensors of the backbone.

    Parameters
    ----------
    name
        Its name in the file.
    own_lm_head
        Whether a plain `lm_head.weight` belongs to the heads (vLLM) and not to a backbone.
    """
    if ".original_module." in name:
        return None
    plain = _ADAPTER.sub(".", name)
    stem = _PREFIX.sub("", plain)
    prefix = plain[: len(plain) - len(stem)]
    if stem == "token_map":
        return Place("", "token_map")
    if stem == "lm_head.weight" and own_lm_head:
        return Place("vllm", "lm_head")
    for layout, kind, pattern in _PATTERNS:
        if match := pattern.fullmatch(stem):
            family = _family(layout, prefix, name)
            return _numbered(family, kind, match)
    odd = "medusa_head" in prefix or _LIKE_HEADS.match(stem)
    return Place("", "unknown") if odd else None


def name_of(family: str, role: str, head: int, layer: int, depth: int) -> str:
    """Return what a family calls a weight, bias or projection."""
    block, projection = FAMILIES[family]
    if role == "projection":
        return projection.format(h=head, depth=depth)
    return block.format(h=head, l=layer, part=role)


def _family(layout: str, prefix: str, name: str) -> str:
    if layout != "medusa":
        return layout
    if "base_model." in prefix or ".modules_to_save." in name:
        return "peft"
    if "medusa_heads." in prefix:
        return "modelopt"
    return "full model" if "medusa_head." in prefix else "medusa"


def _numbered(family: str, kind: str, match: re.Match[str]) -> Place:
    role = _ROLES.get((kind, match[3]), "unknown")
    if kind == "residual":
        return Place(family, role, int(match[1]), int(match[2]))
    return Place(family, role, int(match[1]), 0, int(match[2]) if match[2] else None)
