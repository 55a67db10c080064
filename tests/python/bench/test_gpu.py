"""What benchmarks/gpu.py makes of the lines that gpu_benchmark writes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_report", BENCHMARKS / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def step(rows: int, us: float, **others: Any) -> dict[str, Any]:
    line = {"section": "step", "model": "Llama-3.2-1B", "context": 128, "of_stream": 0.8}
    return line | {"rows": rows, "us": us, "to_one_row": us / 600} | others


def test_goals_name_what_was_measured(gpu: ModuleType, tmp_path: Path) -> None:
    verb = {"section": "verb", "model": "Llama-3.2-1B", "context": 0}
    answer = {"section": "answer", "model": "Vicuna-7B", "synthetic": 2.31}
    lines = [
        step(1, 600.0),
        step(64, 660.0),
        step(1, 3000.0, model="Vicuna-7B", of_stream=0.9),
        verb | {"verb": "down", "rows": 64, "of_stream": 0.5},
        verb | {"verb": "down", "rows": 128, "of_stream": 0.1},
        answer | {"heads": "own", "tokens/s": 700.0, "speedup_over_length": 0.91},
    ]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {name: figure for name, figure, _ in gpu.goals(gpu.read_lines(path))}
    assert found["us of a plain step, Llama-3.2-1B"] == 600
    assert found["the same, 7B and 8B"] == 0.9
    assert found["t(64 rows) / t(1 row), worst"] == pytest.approx(1.1)
    assert found["share of the stream of a product, worst"] == 0.5
    assert found["speedup / tokens a step, worst"] == 0.91
    assert found["tokens/s, Vicuna-7B, 2.31 tokens a step"] == 700
    assert found["Medusa's step / a plain step, worst"] is None


def test_goals_about_the_lm_head(gpu: ModuleType) -> None:
    verb = {"section": "verb", "model": "Vicuna-7B", "context": 0, "of_stream": 0.9}
    times = {"lm_head, stored": 100.0, "lm_head, exact": 101.0, "lm_head, typical": 104.0}
    lines = [verb | {"verb": name, "rows": 64, "us": us} for name, us in times.items()]
    lines += [verb | {"verb": name, "rows": 1, "us": 1000.0} for name in times]
    found = {name: figure for name, figure, _ in gpu.goals(lines)}
    assert found["lm_head that decides / that stores, 64 rows, worst"] == pytest.approx(1.04)
    assert found["share of the stream of a product, worst"] == 0.9
