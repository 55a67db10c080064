"""Medusa heads as read from disk, whatever their layout.

Rules: counts come from the tensors' names, never from config.json, because published files
contradict their own configuration; a missing bias is zero; heads without any projection use the
backbone's (V2), heads of which some have one are damaged.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.float8 import widen_heads
from medusa_native.loading.heads_files import HUB_FILES, HeadsFiles, read_heads_files
from medusa_native.loading.heads_notes import Notes, compare, compare_vocabulary
from medusa_native.loading.heads_tensors import HeadTensors, Key, sort_tensors
from medusa_native.loading.heads_writer import GROUNDED
from medusa_native.loading.hub import resolve
from medusa_native.loading.tensors import (
    HostTensor,
    require_finite,
    require_shape,
    require_weight,
)

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

_MAX_PADDING = 1024  # rows by which exporters round a vocabulary up
_MAX_VOCAB = 2**31 - 1

Layer = tuple[HostTensor, HostTensor | None]


@dataclass(frozen=True)
class HeadsCheckpoint:
    """Medusa heads as read from disk.

    Attributes
    ----------
    residual
        [head][layer] -> weight (hidden, hidden) and bias (hidden) or None. Layer 0 of grounded
        heads: (hidden, 2 · hidden), for the state and the root's embedding behind it.
    projection
        [head] -> weight (draft_vocab, hidden); None for V2 heads, which use the backbone's lm_head.
    token_map
        int32 (draft_vocab,), draft id to token id; None: the whole vocabulary in order.
    config
        What config.json beside the tensors says, for information.
    path
        The file or folder they came from.
    family
        Whose names the tensors have: a key of `heads_names.FAMILIES`.
    vocab_size
        Tokens of the backbone's vocabulary; None: not known from the files.
    notes
        What is odd about the files, one statement each.
    """

    residual: list[list[Layer]]
    projection: list[HostTensor] | None = None
    token_map: npt.NDArray[np.int32] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()
    family: str = "medusa"
    vocab_size: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return len(self.residual)

    @property
    def num_layers(self) -> int:
        """Residual blocks of each head."""
        return len(self.residual[0])

    @property
    def version(self) -> int:
        """1: heads have their own projections; 2: they use the backbone's."""
        return 2 if self.projection is None else 1

    @property
    def grounded(self) -> bool:
        """Whether heads see the root's embedding beside the state."""
        rows, columns = self.residual[0][0][0].shape
        return columns == 2 * rows

    @property
    def hidden_size(self) -> int:
        """Width of the states the heads read."""
        return self.residual[0][0][0].shape[0]


def load_heads(
    source: str | os.PathLike[str], hidden_size: int | None = None, vocab_size: int | None = None
) -> HeadsCheckpoint:
    """Read Medusa heads of any known layout without copying them; FP8 weights become float32.

    Parameters
    ----------
    source
        A `.safetensors` or `.pt` file, a folder, or a hub id, perhaps with `@revision`.
    hidden_size, vocab_size
        Of the backbone they are meant for; None: what the files themselves say.

    Raises
    ------
    InvalidArgument
        Nothing is there.
    ModelFormatError
        The file is damaged, incomplete, not finite, or made for another model. The message names
        file, tensor, expected and found.

    Warns
    -----
    UserWarning
        Where config.json contradicts the tensors, or the heads were trained on a changed backbone.
    """
    files = read_heads_files(resolve(source, HUB_FILES))
    heads = sort_tensors(
        files.path,
        files.tensors,
        files=files.files,
        own_lm_head=files.is_vllm,
        shared=files.config.get("original_lm_head") is True,
    )
    notes = Notes(files.path)
    if widened := widen_heads(heads):
        notes.add(f"{widened} FP8 weights (E4M3) are widened to float32 with their scales")
    compare(files, heads, notes)
    checkpoint = _checked(files, heads, notes, hidden_size, vocab_size)
    for text in notes.warnings:
        warnings.warn(text, stacklevel=2)
    return checkpoint


def _checked(
    files: HeadsFiles, heads: HeadTensors, notes: Notes, hidden: int | None, vocab: int | None
) -> HeadsCheckpoint:
    hidden = hidden or (heads.tensors["weight", 0, 0].shape or (0,))[0]
    vocab = vocab or _vocab_size(files, heads)
    residual = _residual(heads, hidden, grounded=_grounded(files, heads))
    token_map = _token_map(heads, vocab or _MAX_VOCAB)
    projection = _projection(heads, vocab, hidden, token_map, notes)
    _require_finite(heads)
    if vocab:
        rows = vocab if token_map is None else token_map.size
        compare_vocabulary(files, rows, vocab, notes)
    return HeadsCheckpoint(
        residual,
        projection,
        token_map,
        files.config,
        files.path,
        heads.family,
        vocab,
        tuple(notes.all),
    )


def _vocab_size(files: HeadsFiles, heads: HeadTensors) -> int | None:
    """Return the vocabulary of the backbone, as far as the files tell."""
    size = files.config.get("vocab_size")
    known = size if type(size) is int and 0 < size <= _MAX_VOCAB else None
    projection = heads.tensors.get(("projection", 0, 0))
    token_map = heads.tensors.get(("token_map", 0, 0))
    if projection is None or (token_map is not None and token_map.shape == projection.shape[:1]):
        return known
    rows = projection.shape[0] if projection.shape else 0
    return known if known and known <= rows <= known + _MAX_PADDING else rows


def _grounded(files: HeadsFiles, heads: HeadTensors) -> bool:
    """Whether the heads are grounded: config.json and the first layer's shape must agree."""
    stated = files.config.get(GROUNDED, False)
    if not isinstance(stated, bool):
        raise ModelFormatError(
            f"{files.path}: {GROUNDED!r} of config.json must be true or false, found {stated!r:.60}"
        )
    key = ("weight", 0, 0)
    shape = heads.tensors[key].shape
    wide = len(shape) == 2 and shape[1] == 2 * shape[0]
    if stated != wide:
        raise ModelFormatError(
            f"{heads.file(key)}: tensor {heads.names[key]!r} of shape {shape} belongs to "
            f"{'grounded' if wide else 'plain'} heads; {GROUNDED!r} of config.json must be "
            f"{str(wide).lower()}, found {str(stated).lower()}"
        )
    return wide


def _residual(heads: HeadTensors, hidden: int, *, grounded: bool) -> list[list[Layer]]:
    for key, weight in heads.role("weight").items():
        wide = grounded and key[2] == 0
        _check(heads, key, weight, (hidden, 2 * hidden if wide else hidden))
    for key, bias in heads.role("bias").items():
        _check(heads, key, bias, (hidden,))
    tensors = heads.tensors
    return [
        [(tensors["weight", h, k], tensors.get(("bias", h, k))) for k in range(heads.num_layers)]
        for h in range(heads.num_heads)
    ]


def _check(heads: HeadTensors, key: Key, tensor: HostTensor, shape: tuple[int, ...]) -> None:
    require_weight(heads.file(key), heads.names[key], tensor)
    require_shape(heads.file(key), heads.names[key], tensor, shape)


def _projection(
    heads: HeadTensors,
    vocab: int | None,
    hidden: int,
    token_map: npt.NDArray[np.int32] | None,
    notes: Notes,
) -> list[HostTensor] | None:
    """Return the projections with exactly one row for each draft id."""
    rows = vocab if token_map is None else token_map.size
    fitted: dict[str, HostTensor] = {}  # by name: heads may share one
    for key, tensor in heads.role("projection").items():
        name = heads.names[key]
        fitted[name] = fitted.get(name) or _draft_rows(tensor, vocab, token_map, notes)
        _check(heads, key, fitted[name], (rows or 0, hidden))
    names = [heads.names["projection", h, 0] for h in range(heads.num_heads if fitted else 0)]
    return [fitted[name] for name in names] or None


def _draft_rows(
    tensor: HostTensor, vocab: int | None, token_map: npt.NDArray[np.int32] | None, notes: Notes
) -> HostTensor:
    """Leave padding out and, where all rows are stored beside a token map, take the map's rows."""
    mapped = token_map is not None and tensor.shape[:1] == (token_map.size,)
    if len(tensor.shape) != 2 or mapped or vocab is None:
        return tensor
    whole = _without_padding(tensor, vocab)
    if whole is not tensor:
        notes.add(f"projections have {tensor.shape[0] - vocab} rows of padding")
    if token_map is None or whole.shape[0] != vocab:
        return whole
    notes.add("projections have a row for every token; those of token_map are taken")
    return gather_rows(whole, token_map)


def gather_rows(tensor: HostTensor, rows: npt.NDArray[np.int32]) -> HostTensor:
    """Return a copy of some rows of a matrix, in the type it is stored in."""
    stored = tensor.data.reshape(tensor.shape[0], -1)[rows]
    return HostTensor(stored.reshape(-1), tensor.dtype, (len(rows), *tensor.shape[1:]))


def _without_padding(tensor: HostTensor, rows: int) -> HostTensor:
    if not rows < tensor.shape[0] <= rows + _MAX_PADDING:
        return tensor
    row_bytes = tensor.data.size // tensor.shape[0]
    return HostTensor(tensor.data[: rows * row_bytes], tensor.dtype, (rows, tensor.shape[1]))


def _token_map(heads: HeadTensors, vocab: int) -> npt.NDArray[np.int32] | None:
    key = ("token_map", 0, 0)
    tensor = heads.tensors.get(key)
    if tensor is None:
        return None
    where = f"{heads.file(key)}: tensor '{heads.names[key]}'"
    if tensor.dtype not in ("I32", "I64") or len(tensor.shape) != 1 or tensor.shape[0] < 1:
        raise ModelFormatError(
            f"{where} must be a list of I32 or I64, found {tensor.dtype} {tensor.shape}"
        )
    ids = tensor.to_int64()
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab:
        raise ModelFormatError(f"{where} must hold ids in [0, {vocab}), found {low} to {high}")
    values, counts = np.unique(ids, return_counts=True)
    if values.size != ids.size:
        raise ModelFormatError(
            f"{where} must hold each id once, found repeats of {values[counts > 1][0]}"
        )
    return ids.astype(np.int32)


def _require_finite(heads: HeadTensors) -> None:
    for role in ("weight", "bias", "projection"):
        for key, tensor in heads.role(role).items():
            require_finite(heads.file(key), heads.names[key], tensor)
