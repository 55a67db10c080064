"""``medusa-native distill``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from medusa_native.cli import options as opt
from medusa_native.cli.terminal import messages, reports_errors, write_json


@reports_errors
def distill(
    model: opt.Model,
    prompts: Annotated[
        str, typer.Option("--prompts", help="JSON Lines with `prompt` or `messages`.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="JSON Lines of answers.")],
    max_tokens: opt.MaxTokens = 256,
    temperature: opt.Temperature = 0.0,
    top_p: opt.TopP = 1.0,
    seed: opt.Seed = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Answer every user turn of a conversation.")
    ] = False,
    max_turns: Annotated[int | None, typer.Option(help="With --replay: at most so many.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many prompts.")] = None,
    max_num_seqs: Annotated[int, typer.Option(help="Answers in flight.")] = 64,
    max_model_len: opt.MaxModelLen = None,
    dtype: opt.TrainDType = "bfloat16",
    threads: opt.Threads = None,
    json: opt.Json = False,
) -> None:
    """Let a model answer prompts: the data its heads are trained on.

    An interrupted run, called again, goes on where it stopped.

    Example: medusa-native distill -m demo --prompts prompts.jsonl -o answers.jsonl
    """
    from medusa_native.training import distill as run

    report = run(
        opt.resolve_model(model),
        prompts,
        output,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed or 0,
        replay=replay,
        max_turns=max_turns,
        limit=limit,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        dtype=dtype,
        num_threads=threads,
    )
    if json:
        write_json(asdict(report))
        return
    speed = report.num_new_tokens / max(report.seconds, 1e-9)
    cut = f", {report.num_cut} conversations cut short" if report.num_cut else ""
    messages.print(
        f"{output}: {report.num_answers} answers, {report.num_new_answers} of them new "
        f"({report.num_new_tokens} tokens, {speed:.0f} tokens/s), {report.num_skipped} prompts "
        f"too long{cut}"
    )
