"""``medusa-native demo``: the same answers, plainly and with Medusa, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from medusa_native.cli import options as opt
from medusa_native.cli.terminal import DRAFTED, console, messages, reports_errors, write_json
from medusa_native.decoder import Decoder
from medusa_native.outputs import Metrics, Piece
from medusa_native.params import SamplingParams

PROMPTS = (
    "Explain in simple words why the sky is blue.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "A train travels 60 miles in 1.5 hours. What is its average speed? Show your steps.",
    "Write a short email asking a colleague to review a report by Friday.",
    "Give me five tips for falling asleep more easily.",
    "Describe how a bill becomes a law in the United States.",
    "Summarise the story of Little Red Riding Hood in one paragraph.",
    "What are the main differences between plants and animals?",
)


@dataclass(frozen=True)
class Run:
    """One answer, as it was decoded."""

    pieces: list[Piece]
    token_ids: list[int]
    metrics: Metrics


@reports_errors
def demo(
    max_tokens: opt.MaxTokens = 128,
    prompts: Annotated[int, typer.Option(min=1, max=len(PROMPTS), help="How many.")] = len(PROMPTS),
    model: opt.Model = "demo",
    heads: Annotated[str, typer.Option(help='Medusa heads; "auto": those that ship.')] = "auto",
    medusa_choices: opt.Choices = "auto",
    max_total_draft_tokens: opt.DraftTokens = None,
    threads: opt.Threads = None,
    json: opt.Json = False,
) -> None:
    """Decode real prompts plainly and with Medusa; exit 1 unless every token id agrees.

    Example: medusa-native demo -n 128
    """
    decoder = opt.open_decoder(
        model,
        heads,
        choices=medusa_choices,
        draft_tokens=max_total_draft_tokens,
        num_threads=threads,
        max_num_seqs=1,
    )
    if not json:
        _introduce(decoder)
    pairs = []
    _decode(decoder, PROMPTS[0], 16, speculative=True)  # touches every page before the clock runs
    for index, prompt in enumerate(PROMPTS[:prompts]):
        pair = _decode_both(decoder, prompt, max_tokens, medusa_first=index % 2 == 1)
        pairs.append(pair)
        if not json:
            _show_pair(prompt, *pair)
    result = summarize(pairs)
    write_json(result) if json else _show_summary(result)
    if not result["identical"]:
        raise typer.Exit(1)


def _decode_both(
    decoder: Decoder, prompt: str, max_tokens: int, *, medusa_first: bool
) -> tuple[Run, Run]:
    """Decode plainly and with Medusa, in alternating order, so that drift favours neither."""
    runs = {
        speculative: _decode(decoder, prompt, max_tokens, speculative=speculative)
        for speculative in (medusa_first, not medusa_first)
    }
    return runs[False], runs[True]


def _decode(decoder: Decoder, prompt: str, max_tokens: int, *, speculative: bool) -> Run:
    params = SamplingParams(max_tokens=max_tokens, speculative=speculative)
    chunks = list(decoder.stream([{"role": "user", "content": prompt}], params))
    metrics = chunks[-1].metrics
    assert metrics is not None
    return Run(
        [piece for chunk in chunks for piece in chunk.pieces],
        [token for chunk in chunks for token in chunk.token_ids],
        metrics,
    )


def summarize(pairs: list[tuple[Run, Run]]) -> dict[str, Any]:
    """Return totals over all prompts; speeds are tokens after the first over decode seconds."""
    plain, medusa = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    steps = sum(run.metrics.num_steps for run in medusa)
    accepted = sum(run.metrics.num_accepted_tokens for run in medusa)
    return {
        "prompts": len(pairs),
        "tokens": sum(len(run.token_ids) for run in medusa),
        "plain_tokens_per_second": _speed(plain),
        "medusa_tokens_per_second": _speed(medusa),
        "speedup": _speed(medusa) / max(_speed(plain), 1e-9),
        "mean_acceptance_length": 1 + accepted / max(steps, 1),
        "identical": all(a.token_ids == b.token_ids for a, b in pairs),
    }


def _speed(runs: list[Run]) -> float:
    seconds = sum(run.metrics.decode_time for run in runs)
    return sum(len(run.token_ids) - 1 for run in runs) / max(seconds, 1e-9)


def _introduce(decoder: Decoder) -> None:
    info = decoder.info()
    heads, tree = info["heads"], info["tree"]
    console.print(
        f"{info['device']}, {info['dtype']}, {heads['num_heads']} heads, tree of "
        f"{tree['nodes']} nodes"
    )
    console.print(Text.assemble(("Green", DRAFTED), " tokens were guessed by the heads.\n"))


def _show_pair(prompt: str, plain: Run, medusa: Run) -> None:
    console.rule(f"[bold]{prompt}", align="left")
    table = Table(box=None, expand=True, padding=(0, 1))
    table.add_column(f"plain, {plain.metrics.tokens_per_second:.0f} tokens/s", ratio=1)
    medusa_speed = f"{medusa.metrics.tokens_per_second:.0f} tokens/s"
    steps = f"{medusa.metrics.mean_acceptance_length:.2f} tokens a step"
    table.add_column(f"Medusa, {medusa_speed}, {steps}", ratio=1)
    table.add_row(_text(plain), _text(medusa))
    console.print(table)
    if plain.token_ids != medusa.token_ids:
        messages.print("the answers differ", style="red")


def _text(run: Run) -> Text:
    return Text.assemble(*((p.text, DRAFTED if p.drafted else "") for p in run.pieces))


def _show_summary(result: dict[str, Any]) -> None:
    console.rule()
    table = Table(box=None, show_header=False)
    table.add_row("plain", f"{result['plain_tokens_per_second']:.1f} tokens/s")
    table.add_row("Medusa", f"{result['medusa_tokens_per_second']:.1f} tokens/s")
    table.add_row("speed-up", f"{result['speedup']:.2f} x")
    table.add_row("mean acceptance length", f"{result['mean_acceptance_length']:.2f} tokens a step")
    verdict = "yes" if result["identical"] else "NO"
    table.add_row("every token id agrees", f"{verdict} ({result['tokens']} tokens)")
    console.print(table)
