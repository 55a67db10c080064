"""From files to a running engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_native import _core
from medusa_native.arguments import core_types
from medusa_native.errors import InvalidArgument
from medusa_native.heads import locate_adapter, open_heads
from medusa_native.loading import Adapter, Checkpoint, load_adapter, load_checkpoint, with_adapter
from medusa_native.loading.casting import PLAIN_DTYPES
from medusa_native.tokenizer import Tokenizer
from medusa_native.trees import choose_tree, usual_nodes
from medusa_native.tuning.adaptive import forward_seconds
from medusa_native.tuning.store import device_key, find_tuning

if TYPE_CHECKING:
    from medusa_native.loading import HeadsCheckpoint, HostTensor
    from medusa_native.params import SpeculativeConfig


@dataclass(frozen=True)
class TreeTuning:
    """What was measured of a tree on a device, so that the engine can choose nodes every step.

    Parameters
    ----------
    step_seconds
        ``[rows - 1]``: of a forward pass of that many rows, the heads' time not counted.
    path_probability
        Path of ranks to how often it is accepted; empty: not measured.
    """

    step_seconds: Sequence[float]
    path_probability: Mapping[tuple[int, ...], float] = field(default_factory=dict)

    def options(self, tree: _core.Tree) -> dict[str, Any]:
        """Return the engine's options for `tree`, some of whose paths may not be measured."""
        known = self.path_probability
        complete = bool(known) and all(tuple(path) in known for path in tree.paths)
        return {
            "adaptive": True,
            "step_seconds": list(self.step_seconds),
            "path_probability": [1.0, *(known[tuple(path)] for path in tree.paths)]
            if complete
            else [],
        }


@dataclass(frozen=True)
class LoadedEngine:
    """An engine and what must be known about it. Files are no longer mapped."""

    engine: _core.Engine
    model: _core.Model
    heads: _core.Heads | None
    tree: _core.Tree
    tokenizer: Tokenizer
    model_path: Path
    config: Mapping[str, Any]
    adapter: Adapter | None = None

    @property
    def vocab_size(self) -> int:
        """Tokens the model knows."""
        return int(self.config["vocab_size"])

    def describe(self) -> dict[str, Any]:
        """Return facts for people and logs, as plain types."""
        model, heads, options = self.model, self.heads, self.engine.options
        return {
            "model": str(self.model_path),
            "config": dict(self.config),
            "device": model.device_name,
            "num_threads": model.num_threads,
            "dtype": model.compute_type,
            "weight_formats": model.weight_formats,
            "adapter": None if self.adapter is None else self.adapter.describe(),
            "heads": None if heads is None else describe_heads(heads),
            "tree": {
                "nodes": self.tree.size,
                "depth": self.tree.depth,
                "adaptive": options.adaptive,
            },
            "acceptance_method": options.acceptance_method,
            "limits": {
                "max_model_len": options.max_model_len,
                "max_num_seqs": options.max_num_seqs,
                "max_num_batched_tokens": options.max_num_batched_tokens,
                "kv_cache_pages": self.engine.num_pages,
                "kv_cache_dtype": options.kv_cache_dtype,
                "enable_prefix_caching": options.enable_prefix_caching,
            },
            "memory": {
                "weights": model.weight_bytes,
                "step": model.step_bytes,  # read by one forward pass
                "heads": 0 if heads is None else heads.weight_bytes,
                "kv_cache": self.engine.kv_cache_bytes,
                "workspace": self.engine.workspace_bytes,
            },
        }


def describe_heads(heads: _core.Heads) -> dict[str, Any]:
    """Return facts about loaded heads, as plain types."""
    return {
        "version": heads.version,
        "num_heads": heads.num_heads,
        "num_layers": heads.num_layers,
        "grounded": heads.grounded,
        "draft_vocab_size": heads.draft_vocab_size,
    }


def load_engine(
    model: str | Path,
    speculative: SpeculativeConfig | None,
    tokenizer: str | Path | Tokenizer | None,
    *,
    dtype: str,
    num_threads: int,
    device: str = "cpu",
    stream: int = 0,
    adapter: str | Path | None = None,
    tuning: TreeTuning | None = None,
    **limits: Any,
) -> LoadedEngine:
    """Map the files, pack what they hold, and start an engine. Zero means: choose.

    With `tuning` the tree adapts to load and acceptance; without, every step offers all of it.
    """
    checkpoint, adapted = load_adapted(model, adapter, dtype)
    core_model = load_model(checkpoint, dtype, num_threads, device, stream)
    heads, tree = None, _core.Tree.root_only()
    options: dict[str, Any] = dict(limits)
    if speculative is not None and speculative.model is not None:
        opened = open_heads(speculative.model, checkpoint, adapted=adapted is not None)
        heads = pack_heads(core_model, opened)
        tree, found = _tree(speculative, opened, core_model)
        tuning = tuning or found
        options |= {
            name: getattr(speculative, name)
            for name in ("acceptance_method", "posterior_threshold", "posterior_alpha")
        }
    if tuning is not None and tree.size > 1:
        options |= tuning.options(tree)
    return LoadedEngine(
        engine=_core.Engine(core_model, heads, tree, **options),
        model=core_model,
        heads=heads,
        tree=tree,
        tokenizer=_tokenizer(tokenizer, checkpoint),
        model_path=checkpoint.path,
        config=checkpoint.config,
        adapter=adapted,
    )


def load_adapted(
    model: str | Path, adapter: str | Path | None, dtype: str
) -> tuple[Checkpoint, Adapter | None]:
    """Map a backbone; where there is an adapter, what it touches is merged in the compute type."""
    checkpoint = load_checkpoint(model)
    if adapter is None:
        return checkpoint, None
    found = load_adapter(locate_adapter(adapter), checkpoint.config)
    plain = PLAIN_DTYPES[core_types(dtype)["compute_type"]]
    return with_adapter(checkpoint, found, plain), found


def _tree(
    config: SpeculativeConfig,
    heads: HeadsCheckpoint,
    model: _core.Model,
) -> tuple[_core.Tree, TreeTuning | None]:
    """Return the tree asked for, and what is known of it here.

    An automatic tree is as tuned for these heads and this device, and adapts.
    """
    tuning = find_tuning(heads) if config.medusa_choices == "auto" else None
    usual = usual_nodes(isa_of(model.device_name), model.weight_formats)
    if tuning is None:
        stored = heads.config.get("medusa_choices")
        return choose_tree(config, heads.num_heads, stored, usual), None
    table, device = tuning.table, tuning.for_device(device_key(model))
    if device is None:
        return choose_tree(config, heads.num_heads, table.paths, usual), None
    tree = choose_tree(config, heads.num_heads, table.paths, device.nodes)
    chances = dict(zip(table.paths, table.probabilities, strict=True))
    seconds = forward_seconds(device.costs, table.paths, device.context)
    return tree, TreeTuning(seconds, chances)


def isa_of(device_name: str) -> str:
    """Return "avx2" of "cpu (avx2, 8 threads)"."""
    return device_name.partition("(")[2].partition(",")[0]


def load_model(
    checkpoint: Checkpoint, dtype: str, num_threads: int, device: str = "cpu", stream: int = 0
) -> _core.Model:
    """Pack a backbone; the checkpoint may be dropped afterwards. `stream`: an address, or 0."""
    config = _core.ModelConfig(**checkpoint.config)
    tensors = {name: as_core(tensor) for name, tensor in checkpoint.tensors.items()}
    return _core.Model.load(
        config, tensors, **core_types(dtype), num_threads=num_threads, device=device, stream=stream
    )


def pack_heads(model: _core.Model, heads: HeadsCheckpoint) -> _core.Heads:
    """Pack heads for `model`."""
    residual = [
        [(as_core(weight), None if bias is None else as_core(bias)) for weight, bias in head]
        for head in heads.residual
    ]
    projection = [as_core(tensor) for tensor in heads.projection or ()]
    token_map = [] if heads.token_map is None else heads.token_map.tolist()
    return _core.Heads.load(model, residual, projection, token_map, heads.grounded)


def as_core(tensor: HostTensor) -> tuple[Any, ...]:
    """Return a tensor as the core takes it; the bytes stay where they are."""
    stored = tensor.data, tensor.dtype, tensor.shape
    return stored if tensor.scales is None else (*stored, tensor.scales, tensor.scale_block)


def _tokenizer(chosen: str | Path | Tokenizer | None, checkpoint: Checkpoint) -> Tokenizer:
    if chosen is None:
        return checkpoint.tokenizer
    if isinstance(chosen, Tokenizer):
        return chosen
    if isinstance(chosen, (str, Path)):
        return load_checkpoint(chosen).tokenizer
    raise InvalidArgument(f"tokenizer must be a folder or a Tokenizer, found {chosen!r}")
