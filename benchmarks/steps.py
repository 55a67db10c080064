"""Where does a step's time go on the CPU, and how near is it to reading its bytes?

Runs step_profile (built with the tests) on random weights, a question a process: SmolLM2-135M's
shapes verb by verb, for one tree in 16 and 4 bits and for as many sequences; TinyLlama-1.1B's; 8,192 positions with
either cache; a prompt of 1,024 tokens beside the peak of the bf16 instruction; an lm_head that
ranks beside one that stores its logits; and threads pinned to cores beside free ones.

    python benchmarks/steps.py --build build/release
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common

Line = Mapping[str, Any]
QUESTIONS = {
    "one tree": ("steps", "rows=1,4,8,16,24,32,48,64"),
    "one tree, Q4_1": ("steps", "format=Q4_1", "rows=1,2,4,6,8,12,16,24,32"),
    "sequences": ("steps", "sequences=rows", "rows=1,8,16,32,64"),
    "1.1B": ("steps", "shapes=1.1b", "rows=1,16,32,64", "repeats=11"),
    "8,192 positions": ("steps", "context=8192", "rows=1,64", "cache=auto,int8"),
    "prompt": ("prefill", "shapes=1.1b", "rows=1024", "repeats=5"),
    "greedy": ("greedy", "rows=1,16,64"),
    "pinning": ("pinning", "rows=1,16,64"),
}
COLUMNS = {
    "step": ("cache", "context", "sequences", "rows", "ms", "GB/s", "of_stream", "to_first",
             "outside"),
    "prefill": ("rows", "ms", "GMAC/s", "peak GMAC/s", "of_peak"),
    "greedy": ("rows", "stored_ms", "ranked_ms", "stored_over_ranked", "same_ids"),
    "pinning": ("rows", "other_thread", "free_ms", "pinned_ms", "free_over_pinned"),
}  # fmt: skip


def measure(program: Path, threads: int, question: tuple[str, ...]) -> list[dict[str, Any]]:
    command = [str(program), *question, f"threads={threads}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def show(name: str, lines: list[dict[str, Any]]) -> None:
    for stream in (line for line in lines if line["section"] == "stream"):
        name += f": a stream of {stream['bytes'] / 1e6:.0f} MB at {stream['GB/s']:.1f} GB/s"
    rows = [line for line in lines if line["section"] != "stream"]
    columns = COLUMNS[rows[0]["section"]]
    common.show(name, columns, [[row[column] for column in columns] for row in rows])
    for row in rows:
        if "verbs_ms" in row and row["rows"] * row["sequences"] in (1, 64):
            print(f"  {row['sequences']} x {row['rows']}:", spent(row))
    print(flush=True)


def spent(row: Line) -> str:
    """Say what each verb takes, the longest first."""
    verbs = sorted(row["verbs_ms"].items(), key=lambda item: -item[1])
    return ", ".join(f"{verb} {ms:.3f}" for verb, ms in verbs) + " ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=common.ROOT / "build/release")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--questions", default=";".join(QUESTIONS), help="separated by ;")
    args = parser.parse_args()
    program = args.build / "benchmarks/step_profile"
    answers = {}
    for name in args.questions.split(";"):
        answers[name] = measure(program, args.threads, QUESTIONS[name])
        show(name, answers[name])
    settings = {key: value for key, value in vars(args).items() if key != "build"}
    print(common.save("steps", settings, answers))


if __name__ == "__main__":
    main()
