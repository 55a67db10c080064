"""From `medusa_choices` to the candidate tree that the engine runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medusa_native import _core
from medusa_native.errors import InvalidArgument
from medusa_native.json_text import parse_json
from medusa_native.params import SpeculativeConfig, check_paths

DEFAULT_TREE = "mc_sim_7b_63"
# Nodes, root included, beyond which one more costs a step more time than it brings in tokens:
# where products are bound by arithmetic, not by memory, small trees win (benchmarks/decode.py).
# First with weights in bfloat16 or float32, then in blocks, whose stream leaves less time to compute.
NODES_THAT_PAY = {
    "amx": (64, 16),
    "avx512_bf16": (10, 5),
    "avx512": (8, 2),
    "avx2": (8, 2),
    "generic": (4, 1),
}
Paths = Sequence[Sequence[int]]


def usual_nodes(isa: str, weight_formats: Mapping[str, int]) -> int | None:
    """Return the nodes of a tree, root included, that usually pay; None: no telling.

    Parameters
    ----------
    weight_formats
        Types of the weights in memory, and how many weights of each.
    """
    most = max(weight_formats, key=lambda name: weight_formats[name])
    pay = NODES_THAT_PAY.get(isa)
    return None if pay is None else pay[most.startswith("Q")]


def choose_tree(
    config: SpeculativeConfig,
    num_heads: int,
    stored: Any = None,
    nodes: int | None = None,
) -> _core.Tree:
    """Return the tree that `config` asks for.

    Parameters
    ----------
    num_heads
        How many heads there are: no tree is deeper.
    stored
        Paths of the heads' tuning, or ``medusa_choices`` of their configuration, best first; or
        None.
    nodes
        Most nodes of an automatic tree, root included, as tuned for this device or as usually pay
        (`usual_nodes`), unless `max_total_draft_tokens` says how many; 1: nothing pays, and the
        tree is its root.

    Raises
    ------
    InvalidArgument
        For an unknown name, an unreadable file, malformed paths, or a tree that was asked for by
        name or paths and is deeper than there are heads.
    """
    depth = _depth_limit(config, num_heads)
    if config.medusa_choices == "chain":
        return _core.Tree.chain(min(depth, config.max_total_draft_tokens or depth))
    paths, adaptable = _paths(config, stored)
    if config.num_speculative_tokens is not None or adaptable:
        paths = [path for path in paths if len(path) <= depth]
    deepest = max((len(path) for path in paths), default=0)
    if deepest > num_heads:
        raise InvalidArgument(
            f"SpeculativeConfig: medusa_choices is {deepest} deep, found {num_heads} heads; "
            "num_speculative_tokens cuts it"
        )
    limit = config.max_total_draft_tokens
    if limit is None and adaptable:
        limit = None if nodes is None else nodes - 1
    return _core.Tree.root_only() if limit == 0 else _core.Tree(_limit_nodes(paths, limit))


def _depth_limit(config: SpeculativeConfig, num_heads: int) -> int:
    wanted = config.num_speculative_tokens
    if wanted is not None and wanted > num_heads:
        raise InvalidArgument(
            f"SpeculativeConfig: num_speculative_tokens is {wanted}, found {num_heads} heads"
        )
    return wanted or num_heads


def _paths(config: SpeculativeConfig, stored: Any) -> tuple[Paths, bool]:
    """Paths, best first where that is known, and whether they may be cut to the heads' depth."""
    choices = config.medusa_choices
    if not isinstance(choices, (str, Path)):
        return choices, False
    if choices == "auto":
        if stored is not None:
            return check_paths(stored), True
        return _core.Tree.stock_paths(DEFAULT_TREE), True
    if choices in _core.Tree.stock_names():
        return _core.Tree.stock_paths(str(choices)), False
    return _read_paths(choices), False


def _read_paths(choices: str | Path) -> Paths:
    """Read a JSON file: a list of paths, or an object that has one under "medusa_choices"."""
    path = Path(choices)
    if path.suffix != ".json" and not path.exists():
        names = ", ".join(["auto", "chain", *_core.Tree.stock_names()])
        raise InvalidArgument(
            f"SpeculativeConfig: medusa_choices must be one of {names}, a JSON file or a list of "
            f"paths, found {str(choices)!r}"
        )
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(
            f"SpeculativeConfig: medusa_choices: cannot read {path}: {error}"
        ) from error
    return check_paths(value.get("medusa_choices") if isinstance(value, dict) else value)


def _limit_nodes(paths: Paths, limit: int | None) -> list[list[int]]:
    """Keep the first `limit` paths whose parents are kept too."""
    if limit is None or len(paths) <= limit:
        return [list(path) for path in paths]
    kept: dict[tuple[int, ...], None] = {(): None}
    grown = True
    while grown and len(kept) <= limit:
        grown = False
        for path in map(tuple, paths):
            if path not in kept and path[:-1] in kept and len(kept) <= limit:
                kept[path] = None
                grown = True
    return [list(path) for path in kept if path]
