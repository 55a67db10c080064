"""The backbone's states for every row, computed once and kept on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from medusa_native.json_text import parse_json
from medusa_native.loading.writing import replace_file
from medusa_native.training.progress import Meter

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core
    from medusa_native.training.dataset import Dataset

_BATCH_TOKENS = 8192  # of one call, and of one entry in the progress record


def hidden_states(
    model: _core.Model, dataset: Dataset, folder: Path, key: str, *, progress: bool | None
) -> npt.NDArray[Any]:
    """Return the states of all rows, mapped: uint16 holding bfloat16, or float32, (rows, hidden).

    The file grows by whole batches, each recorded only when it is on disk, so that a run killed at
    any moment goes on where it stopped. A row's bits do not depend on its batch.

    Parameters
    ----------
    folder
        Where the file and its record lie.
    key
        What the states depend on; a file with another key is begun anew.
    """
    dtype = np.dtype(np.uint16 if model.compute_type == "bfloat16" else np.float32)
    width = model.config.hidden_size
    data, record = folder / "hidden.bin", folder / "hidden.json"
    row_bytes = width * dtype.itemsize
    done = _answers_done(record, key)
    fits = 0 <= done <= len(dataset.answers) and data.exists()
    if not fits or data.stat().st_size < dataset.first_row[done] * row_bytes:
        done = 0
    if done < len(dataset.answers):
        with data.open("r+b" if done else "w+b") as file:
            file.truncate(int(dataset.first_row[done]) * row_bytes)
            file.seek(0, os.SEEK_END)
            _extend(file, record, key, model, dataset, done, progress=progress)
    return np.memmap(data, dtype, "r", shape=(int(dataset.first_row[-1]), width))


def _extend(
    file: BinaryIO,
    record: Path,
    key: str,
    model: _core.Model,
    dataset: Dataset,
    done: int,
    *,
    progress: bool | None,
) -> None:
    """Append the states of answers `done` and up."""
    lengths = [len(dataset.inputs(i)) for i in range(len(dataset.answers))]
    with Meter("hidden states", sum(lengths), sum(lengths[:done]), shown=progress) as meter:
        while done < len(dataset.answers):
            batch = next_batch(dataset, done)
            states = model.hidden_states(batch)
            file.write(answer_rows(states, batch, dataset.num_rows[done:]).tobytes())
            file.flush()
            os.fsync(file.fileno())
            done += len(batch)
            _write_record(record, key, done)
            meter.update(meter.done + sum(map(len, batch)), "tokens")


def next_batch(dataset: Dataset, first: int) -> list[list[int]]:
    """Tokens of the answers from `first` on that fit one call of `Model.hidden_states`."""
    batch: list[list[int]] = []
    tokens = 0
    for i in range(first, len(dataset.answers)):
        sequence = dataset.inputs(i)
        if batch and tokens + len(sequence) > _BATCH_TOKENS:
            break
        batch.append(sequence)
        tokens += len(sequence)
    return batch


def answer_rows(
    states: npt.NDArray[Any], batch: list[list[int]], num_rows: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    """Keep the last rows of each sequence, those whose next token belongs to the answer."""
    ends = np.cumsum([len(sequence) for sequence in batch])
    return np.concatenate(
        [states[end - rows : end] for end, rows in zip(ends, num_rows, strict=False)]
    )


def _answers_done(record: Path, key: str) -> int:
    try:
        found = parse_json(record.read_text(encoding="utf-8"))
        return int(found["answers"]) if found["key"] == key else 0
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def _write_record(record: Path, key: str, done: int) -> None:
    text = json.dumps({"key": key, "answers": done})
    replace_file(record, lambda file: file.write(text.encode()))
