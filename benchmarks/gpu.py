"""Keep what gpu_benchmark measured, with machine and commit, and show it beside the goals.

Usage: python benchmarks/gpu.py FIGURES.jsonl (make bench-gpu makes and passes the file)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
SMALL, LARGE = "Llama-3.2-1B", ("Llama-3.1-8B", "Vicuna-7B")
PRODUCTS = ("qkv", "o", "gate_up", "down", "lm_head, stored")
BLOCKS = tuple(f"{verb}, {name}" for verb in ("gate_up", "down") for name in ("Q8_0", "Q4_0"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def matching(lines: Iterable[Line], **wanted: Any) -> list[Line]:
    """Return the lines that have these values."""
    return [line for line in lines if all(line.get(k) == v for k, v in wanted.items())]


def worst(lines: Iterable[Line], figure: str, pick: Any = max) -> float | None:
    """Return the worst figure of some lines; None without lines."""
    return pick((line[figure] for line in lines), default=None)


def ratio(over: list[Line], under: list[Line]) -> float | None:
    """Return how much longer the first line took than the second."""
    return over[0]["us"] / under[0]["us"] if over and under else None


def goals(lines: list[Line]) -> list[tuple[str, float | None, str]]:
    """Return what was measured of each goal: its name, the figure, what it should be."""
    steps, verbs = matching(lines, section="step"), matching(lines, section="verb")
    answers = matching(lines, section="answer")
    near = min((line["context"] for line in steps), default=0)
    far = max((line["context"] for line in steps), default=0)
    alone = matching(steps, rows=1, context=near)
    products = [v for v in verbs if v["verb"] in PRODUCTS and v["rows"] <= 64]
    blocks = [v for v in verbs if v["verb"] in BLOCKS and v["rows"] <= 64]
    deciding = [
        ratio(*(matching(verbs, verb=verb, rows=64, model=model) for verb in pair))
        for model in (SMALL, *LARGE)
        for pair in (("lm_head, exact", "lm_head, stored"), ("lm_head, typical", "lm_head, stored"))
    ]
    exact = [a for a in answers if a["synthetic"] == 0 and a["heads"] != "plain"]
    real = [a for a in answers if a["synthetic"] > 0]
    attention = matching(verbs, verb="tree_attention", context=far)
    small = matching(alone, model=SMALL)
    return [
        (f"us of a plain step, {SMALL}", worst(small, "us"), "<= 640"),
        ("share of the stream of a plain step, 1B", worst(small, "of_stream"), ">= 0.85"),
        (
            "the same, 7B and 8B",
            worst((line for line in alone if line["model"] in LARGE), "of_stream", min),
            ">= 0.95",
        ),
        ("t(64 rows) / t(1 row), worst", worst(matching(steps, rows=64), "to_one_row"), "<= 1.05"),
        ("Medusa's step / a plain step, worst", worst(exact, "step_to_plain"), "<= 1.10"),
        ("speedup / tokens a step, worst", worst(real, "speedup_over_length", min), ">= 0.90"),
        ("share of the stream of a product, worst", worst(products, "of_stream", min), ">= 0.92"),
        ("the same of 4 and 8 bit blocks", worst(blocks, "of_stream", min), ">= 0.92"),
        (
            "lm_head that decides / that stores, 64 rows, worst",
            max((found for found in deciding if found is not None), default=None),
            "<= 1.03",
        ),
        ("us of acceptance in a step, worst", worst(exact, "accept_us"), "<= 5"),
        (
            "us of a step outside forward, acceptance and heads, worst",
            worst(exact, "outside_us"),
            "<= 2",
        ),
        (
            f"attention at {far:.0f}, 64 rows / 1 row, {LARGE[0]}",
            ratio(
                matching(attention, rows=64, model=LARGE[0]),
                matching(attention, rows=1, model=LARGE[0]),
            ),
            "<= 1.15",
        ),
        (
            "tokens/s, Vicuna-7B, 2.31 tokens a step",
            worst(matching(real, model="Vicuna-7B", synthetic=2.31), "tokens/s"),
            ">= 650",
        ),
        (
            f"tokens/s, {SMALL}, 2.31 tokens a step",
            worst(matching(real, model=SMALL, synthetic=2.31), "tokens/s"),
            ">= 2800",
        ),
    ]


def main() -> None:
    from common import add, show

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    lines = read_lines(parser.parse_args().figures)
    device = matching(lines, section="device")[0]["name"]
    rows = [(name, "-" if found is None else found, goal) for name, found, goal in goals(lines)]
    show(f"{device}", ["figure", "measured", "goal"], rows)
    print(f"saved in {add('gpu', {}, {'device': device, 'lines': lines})}")


if __name__ == "__main__":
    main()
