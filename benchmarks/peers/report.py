"""What a run says: tables on the screen, figures for the file, bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
from peers import figures
from peers.bars import save_bars
from peers.contenders import WIDENED, Contender
from peers.rounds import Session

COLUMNS = {
    "tokens_per_second": "tokens/s",
    "ours_over_it": "ours/it",
    "medusa_over_it": "Medusa/it",
    "first_token_ms": "first, ms",
    "equal_prefix": "same ids",
    "load_seconds": "load, s",
}


def of_format(
    form: str,
    contenders: Sequence[Contender],
    running: Session,
    answers: Mapping[str, figures.Answers],
) -> dict[str, Any]:
    """Show the table of one format; return its figures."""
    by_name = {
        name: figures.summarize(mine, answers) | about(running.loaded[name])
        for name, mine in answers.items()
    }
    show(form, COLUMNS, by_name, running.failed)
    return {
        "contenders": by_name,
        "failed": running.failed,
        "drawn": [c.name for c in contenders if c.drawn and c.name in by_name],
        "medusa_is_plain": all(figures.same_tokens(answers, s) for s in ("", WIDENED)),
    }


def of_many(seqs: int, running: Session, answers: Mapping[str, figures.Answers]) -> dict[str, Any]:
    """Show the table of many sequences at once; return its figures."""
    by_name = {
        name: figures.summarize_many(mine, answers) | about(running.loaded[name])
        for name, mine in answers.items()
    }
    columns = {"tokens_per_second": "tokens/s", "over_vllm": "over vLLM", "load_seconds": "load, s"}
    show(f"{seqs} sequences at once, 16-bit", columns, by_name, running.failed)
    return {"sequences": seqs, "contenders": by_name, "failed": running.failed}


def about(loaded: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a worker said of itself when it had loaded."""
    return {("load_seconds" if key == "seconds" else key): value for key, value in loaded.items()}


def show(
    title: str,
    columns: Mapping[str, str],
    by_name: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
) -> None:
    rows = [[name, *(found.get(key, "") for key in columns)] for name, found in by_name.items()]
    common.show(title, ["", *columns.values()], rows)
    for name, reason in failed.items():
        print(f"{name} did not run: {reason}")
    print()


def draw(path: Path, title: str, groups: Mapping[str, Any]) -> Path | None:
    """Draw the formats' bars, where anyone ran."""
    bars = {
        form: {n: group["contenders"][n]["tokens_per_second"] for n in group["drawn"]}
        for form, group in groups.items()
        if group["drawn"]
    }
    return save_bars(path, title, bars) if bars else None
