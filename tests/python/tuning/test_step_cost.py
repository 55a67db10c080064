"""What is timed; how long it takes is no matter of a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medusa_native import InvalidArgument, SpeculativeConfig, _core
from medusa_native.engine import LoadedEngine, load_engine
from medusa_native.tuning.step_cost import (
    MAX_CACHED,
    StepTimer,
    cells,
    measure_steps,
    non_decreasing,
    sizes_to_measure,
)

PATHS = [[0], [1], [0, 0], [2], [0, 1], [0, 0, 0]]


@pytest.fixture(scope="module")
def loaded(model: Path, heads: Path) -> LoadedEngine:
    return load_engine(model, SpeculativeConfig(model=heads), None, dtype="bfloat16", num_threads=1)


def test_sizes() -> None:
    assert sizes_to_measure(1) == [1]
    assert sizes_to_measure(20) == [*range(1, 13), 14, 16, 20]
    assert sizes_to_measure(41)[-3:] == [32, 40, 41]
    assert sizes_to_measure(128)[-3:] == [96, 112, 128]
    assert sizes_to_measure(16, batch=8) == [1, 2, 3, 4, 6, 8, 12, 16]


def test_cells_fit_the_model_and_the_memory() -> None:
    assert cells([128, 512], [1, 8], 400) == [(128, 1), (128, 8)]
    assert (MAX_CACHED, 1) in cells([MAX_CACHED], [1, 2], 100_000)
    assert (MAX_CACHED, 2) not in cells([MAX_CACHED], [1, 2], 100_000)


def test_every_cell_is_timed(loaded: LoadedEngine) -> None:
    assert loaded.heads is not None
    costs = measure_steps(
        loaded.model, loaded.heads, PATHS, range(200), contexts=(32, 100), batches=(1, 3),
        max_nodes=100, repeats=2,
    )  # fmt: skip
    assert [(cost.context, cost.batch) for cost in costs] == [(32, 1), (32, 3), (100, 1), (100, 3)]
    for cost in costs:
        assert cost.nodes == ((1, 2, 3, 4, 5, 6, 7) if cost.batch == 1 else (1, 2, 3, 4, 6, 7))
        assert min(cost.seconds) > 0


def test_trees_of_many_sequences_share_the_rows(loaded: LoadedEngine) -> None:
    assert loaded.heads is not None
    (cost,) = measure_steps(
        loaded.model, loaded.heads, PATHS, range(9), contexts=(32,), batches=(40,), max_nodes=64,
        repeats=1,
    )  # fmt: skip
    assert cost.nodes == (1, 2, 3)


def test_sequences_of_a_step_share_no_text(
    loaded: LoadedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences that begin alike would share pages, and read them for less than in use."""
    prompts: list[list[int]] = []
    submit = _core.Engine.submit

    def watched(engine: _core.Engine, prompt: list[int], params: _core.SamplingParams) -> int:
        prompts.append(prompt)
        return submit(engine, prompt, params)

    monkeypatch.setattr(_core.Engine, "submit", watched)
    assert loaded.heads is not None
    list(StepTimer(loaded.model, loaded.heads, [loaded.tree], range(200), 32, batch=4).run(0))
    assert len({tuple(prompt) for prompt in prompts}) == 4
    assert {len(prompt) for prompt in prompts} == {16}


def test_a_context_beyond_the_model(loaded: LoadedEngine) -> None:
    assert loaded.heads is not None
    with pytest.raises(InvalidArgument, match="512 positions"):
        measure_steps(loaded.model, loaded.heads, PATHS, [1], contexts=(500,))


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12))
def test_timings_that_fall_share_their_mean(values: list[float]) -> None:
    """The minimax form of the same fit: max over starts of min over ends of means."""
    count = len(values)
    fit = [
        max(min(np.mean(values[a:b]) for b in range(i + 1, count + 1)) for a in range(i + 1))
        for i in range(count)
    ]
    assert non_decreasing(values) == pytest.approx(fit)
    assert non_decreasing(sorted(values)) == pytest.approx(sorted(values))
