"""The comparison with peers: protocol, turns and figures, with workers that need no peer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import medusa_native

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "benchmarks"))  # after everything else: it has names of its own

from peers import figures
from peers.bars import save_bars
from peers.contenders import FORMATS, MEDUSA, PLAIN, REFERENCE, Contender, Settings, contenders
from peers.environments import RECIPES
from peers.process import Worker, WorkerError
from peers.rounds import answer_prompts, session

PROMPTS = [[1, 2, 3], [40, 50, 60, 70]]


def state(worker: Worker) -> str:
    """Return the letter by which the system tells what a process does."""
    text = Path(f"/proc/{worker._process.pid}/stat").read_text()
    return text.rpartition(") ")[2][0]


def start_ours(log: Path) -> Worker:
    package = Path(medusa_native.__file__).parents[1]
    return Worker(sys.executable, "ours", log, os.environ | {"PYTHONPATH": str(package)})


def test_ours_in_turns(model: Path, heads: Path, tmp_path: Path) -> None:
    """Plain and Medusa decode the same tokens; who cannot load is named, and the others go on."""
    load = {"model": str(model), "threads": 1, "length": 64, "dtype": "float32"}
    taking_part = [
        Contender(PLAIN, "ours", "ours", load),
        Contender(MEDUSA, "ours", "ours", load | {"heads": str(heads)}),
        Contender("no file", "ours", "ours", load | {"model": str(tmp_path / "none.gguf")}),
    ]

    def start(contender: Contender) -> tuple[Worker, dict[str, Any]]:
        worker = start_ours(tmp_path / f"{contender.name}.log")
        try:
            return worker, worker.ask("load", **contender.load)
        except WorkerError:
            worker.close()
            raise

    with session(taking_part, start) as running:
        assert {state(worker) for worker in running.workers.values()} == {"T"}
        answers = answer_prompts(running, PROMPTS, rounds=2, count=9, warm=1)
    assert "none.gguf" in running.failed["no file"]
    assert list(answers) == [PLAIN, MEDUSA]
    assert figures.same_tokens(answers)
    assert set(answers[PLAIN]) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all(len(answer["tokens"]) == 9 for answer in answers[MEDUSA].values())


def test_a_worker_that_dies_says_why(tmp_path: Path) -> None:
    worker = Worker(sys.executable, "nobody", tmp_path / "log", os.environ)
    try:
        with pytest.raises(WorkerError, match=r"No module named peers.workers.nobody"):
            worker.ask("load")
    finally:
        worker.close()


def reply(tokens: list[int], rest: float, first_count: int = 1) -> dict[str, Any]:
    return {"tokens": tokens, "first": 0.5, "rest": rest, "first_count": first_count}


def test_figures_by_hand() -> None:
    everyone = {
        REFERENCE: {(0, 0): reply([1, 2, 3, 4, 5], 4.0), (1, 0): reply([1, 2, 3, 4, 5], 4.0)},
        PLAIN: {(0, 0): reply([1, 2, 3, 4, 5], 2.0), (1, 0): reply([1, 2, 3, 9, 5], 1.0)},
    }
    found = figures.summarize(everyone[REFERENCE], everyone)
    assert found["tokens_per_second"] == 1
    assert found["ours_over_it"] == 3  # the median of 2 and 4
    assert found["first_token_ms"] == 500
    assert "medusa_over_it" not in found
    mine = figures.summarize(everyone[PLAIN], everyone)
    assert (mine["equal_prefix"], mine["equal_answers"]) == (0.8, 0.5)
    assert figures.speed(reply([1, 2, 3, 4], 1.0, first_count=2)) == 2
    assert figures.aggregate({"tokens": [[1, 2], [3, 4]], "seconds": 0.5}) == 8


@pytest.mark.parametrize("form", FORMATS)
def test_every_contender_has_an_environment(form: str) -> None:
    found = list(contenders(form, Settings(2, 512, "auto", None)))
    assert {c.peer for c in found} <= {"ours", *RECIPES}
    assert len({c.name for c in found}) == len(found)
    assert {REFERENCE, PLAIN, MEDUSA} <= {c.name for c in found}


def test_bars(tmp_path: Path) -> None:
    groups = {"16-bit": {"llama.cpp": 63.0, "ours": 125.0}, "Q4_1": {"ours, Medusa": 250.0}}
    text = save_bars(tmp_path / "bars.svg", "Speed & size", groups).read_text()
    assert text.count("<rect") == 3
    assert "Speed &amp; size" in text
