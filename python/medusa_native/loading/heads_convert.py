"""Medusa heads of one kind from heads of another: version, vocabulary, type.

Nothing here touches files; `heads_writer` lays the result out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.errors import InvalidArgument
from medusa_native.loading.casting import PLAIN_DTYPES, cast
from medusa_native.loading.heads import HeadsCheckpoint, gather_rows

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native.loading.tensors import Checkpoint, HostTensor


def convert_heads(
    heads: HeadsCheckpoint,
    *,
    version: int | None = None,
    token_ids: Sequence[int] | npt.NDArray[np.int32] | None = None,
    dtype: str | None = None,
    backbone: Checkpoint | None = None,
) -> HeadsCheckpoint:
    """Return heads of another kind that guess the same tokens, as far as they can name them.

    Parameters
    ----------
    heads
        As `load_heads` returns them.
    version
        1: a projection for each head; 2: the backbone's lm_head for all; None: as they are. Heads
        of version 1 become 2 only where their projections are the backbone's lm_head.
    token_ids
        Keep only the guesses that are among these tokens; None: all that the heads know.
    dtype
        "float32", "float16" or "bfloat16"; None: as stored. Rounds to nearest.
    backbone
        The model they are for. Needed to change the version.

    Raises
    ------
    InvalidArgument
        The conversion would lose something, or needs a backbone.
    """
    if version not in (None, 1, 2):
        raise InvalidArgument(f"version must be 1 or 2, found {version!r}")
    if dtype is not None and dtype not in PLAIN_DTYPES:
        raise InvalidArgument(f"dtype must be one of {', '.join(PLAIN_DTYPES)}, found {dtype!r}")
    if backbone is not None:
        heads = replace(heads, vocab_size=backbone.config["vocab_size"])
    if token_ids is not None:
        heads = trim(heads, token_ids)
    if version not in (None, heads.version):
        lm_head = _lm_head(heads, version or 0, backbone)
        heads = _own_projections(heads, lm_head) if version == 1 else _shared(heads, lm_head)
    return heads if dtype is None else _cast(heads, PLAIN_DTYPES[dtype])


def trim(
    heads: HeadsCheckpoint, token_ids: Sequence[int] | npt.NDArray[np.int32]
) -> HeadsCheckpoint:
    """Return heads that name only these tokens, in ascending order so that ties stay as they were.

    Raises
    ------
    InvalidArgument
        A token is out of range, repeated, or one that the heads cannot name.
    """
    given = np.asarray(token_ids).reshape(-1)
    if given.dtype.kind not in "iu" and given.size:
        raise InvalidArgument(f"token list: whole numbers expected, found {given.dtype}")
    ids = np.unique(given)
    limit = heads.vocab_size or 2**31 - 1
    if not ids.size or ids[0] < 0 or ids[-1] >= limit:
        found = f"{ids[0]} to {ids[-1]}" if ids.size else "none"
        raise InvalidArgument(f"token list: ids in [0, {limit}) expected, found {found}")
    if ids.size != given.size:
        raise InvalidArgument(
            f"token list: each id once expected, found {given.size - ids.size} repeats"
        )
    rows = _rows_of(heads, ids)
    projection = heads.projection and [gather_rows(matrix, rows) for matrix in heads.projection]
    return replace(heads, projection=projection, token_map=ids.astype(np.int32))


def untrimmed(heads: HeadsCheckpoint) -> HeadsCheckpoint:
    """Return heads without token map where the map names every token, in whatever order."""
    if heads.token_map is None or len(heads.token_map) != heads.vocab_size:
        return heads
    rows = np.argsort(heads.token_map).astype(np.int32)
    projection = heads.projection and [gather_rows(matrix, rows) for matrix in heads.projection]
    return replace(heads, projection=projection, token_map=None)


def _rows_of(heads: HeadsCheckpoint, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Draft ids of these tokens."""
    if heads.token_map is None:
        return ids.astype(np.int32)
    order = np.argsort(heads.token_map)
    known = heads.token_map[order]
    at = np.minimum(np.searchsorted(known, ids), known.size - 1)
    missing = ids[known[at] != ids]
    if missing.size:
        raise InvalidArgument(
            f"token list: tokens of the heads' own {known.size} expected, found {missing.size} "
            f"others, the first {missing[0]}"
        )
    return order[at].astype(np.int32)


def _lm_head(heads: HeadsCheckpoint, version: int, backbone: Checkpoint | None) -> HostTensor:
    """Return the backbone's rows for the tokens that the heads name."""
    if backbone is None:
        raise InvalidArgument(
            f"{heads.path}: V{heads.version} heads become V{version} only with the model they are "
            "for, whose lm_head is needed; found none"
        )
    if backbone.config["hidden_size"] != heads.hidden_size:
        raise InvalidArgument(
            f"{heads.path}: heads for a hidden size of {heads.hidden_size} expected a model of it, "
            f"found {backbone.config['hidden_size']} in {backbone.path}"
        )
    tensors = backbone.tensors
    matrix = tensors.get("lm_head.weight") or tensors["model.embed_tokens.weight"]
    return matrix if heads.token_map is None else gather_rows(matrix, heads.token_map)


def _own_projections(heads: HeadsCheckpoint, lm_head: HostTensor) -> HeadsCheckpoint:
    """Give every head the backbone's lm_head, one matrix in memory; block formats are widened."""
    plain = lm_head.dtype in PLAIN_DTYPES.values()
    matrix = lm_head if plain else cast("lm_head.weight", lm_head, heads.residual[0][0][0].dtype)
    return replace(heads, projection=[matrix] * heads.num_heads)


def _shared(heads: HeadsCheckpoint, lm_head: HostTensor) -> HeadsCheckpoint:
    """Drop projections that are the backbone's lm_head anyway."""
    for head, matrix in enumerate(heads.projection or []):
        expected = cast("lm_head.weight", lm_head, matrix.dtype).to_float32()
        differs = np.any(expected != matrix.to_float32(), axis=1)
        if differs.any():
            raise InvalidArgument(
                f"{heads.path}: V2 heads use the backbone's lm_head; head {head} has a projection "
                f"of its own that differs in {int(differs.sum())} of {len(differs)} rows and would "
                "be lost. Keep them V1, perhaps with a smaller draft vocabulary"
            )
    return replace(heads, projection=None)


def _cast(heads: HeadsCheckpoint, dtype: str) -> HeadsCheckpoint:
    residual = [
        [
            (
                cast(f"{h}.{k}.linear.weight", weight, dtype),
                None if bias is None else cast(f"{h}.{k}.linear.bias", bias, dtype),
            )
            for k, (weight, bias) in enumerate(layers)
        ]
        for h, layers in enumerate(heads.residual)
    ]
    done: dict[int, HostTensor] = {}  # heads may share a matrix, and shall go on sharing it
    for h, matrix in enumerate(heads.projection or []):
        if id(matrix) not in done:
            done[id(matrix)] = cast(f"{h}.{heads.num_layers}.weight", matrix, dtype)
    projection = heads.projection and [done[id(matrix)] for matrix in heads.projection]
    return replace(heads, residual=residual, projection=projection)
