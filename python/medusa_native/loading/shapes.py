"""Which tensors a Llama-family backbone has, and their shapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from medusa_native.errors import ModelFormatError
from medusa_native.loading.tensors import HostTensor, require_shape, require_weight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_Shape = tuple[int, ...]

# Stored by old exporters, recomputed by everybody; and Medusa heads kept beside the backbone.
_IGNORED = re.compile(r"\.rotary_emb\.inv_freq$|^(model\.)?medusa_heads?\.")


def _layer(config: dict[str, Any], index: int) -> Iterator[tuple[str, _Shape, bool]]:
    hidden, inner, dim = (config[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
    query = config["num_attention_heads"] * dim
    key_value = config["num_key_value_heads"] * dim
    prefix = f"model.layers.{index}."
    yield prefix + "input_layernorm.weight", (hidden,), True
    yield prefix + "self_attn.q_proj.weight", (query, hidden), True
    yield prefix + "self_attn.k_proj.weight", (key_value, hidden), True
    yield prefix + "self_attn.v_proj.weight", (key_value, hidden), True
    yield prefix + "self_attn.o_proj.weight", (hidden, query), True
    yield prefix + "self_attn.q_proj.bias", (query,), False
    yield prefix + "self_attn.k_proj.bias", (key_value,), False
    yield prefix + "self_attn.v_proj.bias", (key_value,), False
    yield prefix + "self_attn.q_norm.weight", (dim,), False
    yield prefix + "self_attn.k_norm.weight", (dim,), False
    yield prefix + "post_attention_layernorm.weight", (hidden,), True
    yield prefix + "mlp.gate_proj.weight", (inner, hidden), True
    yield prefix + "mlp.up_proj.weight", (inner, hidden), True
    yield prefix + "mlp.down_proj.weight", (hidden, inner), True


def backbone_tensors(config: dict[str, Any]) -> Iterator[tuple[str, _Shape, bool]]:
    """Every tensor a backbone may have.

    Yields
    ------
    name, shape, required
        Canonical name, logical shape, and whether the model cannot do without it.
    """
    vocab, hidden = config["vocab_size"], config["hidden_size"]
    yield "model.embed_tokens.weight", (vocab, hidden), True
    yield "model.norm.weight", (hidden,), True
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, hidden), True
    for index in range(config["num_hidden_layers"]):
        yield from _layer(config, index)


def check_backbone(
    path: Path, config: dict[str, Any], tensors: dict[str, HostTensor]
) -> dict[str, HostTensor]:
    """Hold tensors against the configuration.

    Returns
    -------
    dict
        The backbone's tensors, without those that a reader may ignore.

    Raises
    ------
    ModelFormatError
        A tensor is missing, has another shape, or does not belong to the architecture.
    """
    found: dict[str, HostTensor] = {}
    for name, shape, required in backbone_tensors(config):
        tensor = tensors.get(name)
        if tensor is not None:
            require_weight(path, name, tensor)
            require_shape(path, name, tensor, shape)
            found[name] = tensor
        elif required:
            raise ModelFormatError(f"{path}: tensor '{name}' of shape {shape} expected, found none")
    _require_known(path, config, tensors, found)
    _require_pairs(path, config, found)
    return found


def _require_known(
    path: Path, config: dict[str, Any], tensors: dict[str, HostTensor], known: dict[str, HostTensor]
) -> None:
    ignored = {"lm_head.weight"} if config["tie_word_embeddings"] else set()
    for name in tensors:
        if name not in known and name not in ignored and not _IGNORED.search(name):
            raise ModelFormatError(
                f"{path}: tensor '{name}' is not part of the supported {config['architecture']} "
                f"architecture with {config['num_hidden_layers']} layers; dropping it would "
                "change the model"
            )


def _require_pairs(path: Path, config: dict[str, Any], found: dict[str, HostTensor]) -> None:
    groups = (
        ("q_proj.bias", "k_proj.bias", "v_proj.bias"),
        ("q_norm.weight", "k_norm.weight"),
    )
    for index in range(config["num_hidden_layers"]):
        for group in groups:
            names = [f"model.layers.{index}.self_attn.{name}" for name in group]
            present = [name for name in names if name in found]
            if present and len(present) < len(names):
                missing = next(name for name in names if name not in found)
                raise ModelFormatError(
                    f"{path}: tensor '{missing}' expected beside '{present[0]}', found none"
                )
