"""``medusa-native bench``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer
from rich.table import Table

from medusa_native.cli import options as opt
from medusa_native.cli.terminal import console, messages, reports_errors, write_json
from medusa_native.params import SpeculativeConfig


class Mode(str, Enum):
    """What is measured."""

    latency = "latency"
    throughput = "throughput"


@reports_errors
def bench(
    model: opt.Model,
    mode: Annotated[Mode, typer.Argument(help="One request at a time, or many.")] = Mode.latency,
    heads: opt.Heads = None,
    adapter: opt.Adapter = None,
    prompts: Annotated[
        str | None, typer.Option(help="JSON Lines with `prompt` or `messages`; default: built in.")
    ] = None,
    input_len: Annotated[
        int | None, typer.Option(min=1, help="Instead: prompts of so many random tokens.")
    ] = None,
    output_len: Annotated[int, typer.Option(min=2, help="Tokens of every answer.")] = 128,
    num_prompts: Annotated[
        int | None, typer.Option(min=1, help="Default: 8 for latency, 64 for throughput.")
    ] = None,
    num_iters: Annotated[int, typer.Option(min=1, help="Times all of it is done.")] = 3,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="At once, for throughput.")] = 8,
    synthetic_acceptance_length: Annotated[
        float | None,
        typer.Option(help="Keep drafts at random, so many tokens a step: the text means nothing."),
    ] = None,
    num_heads: Annotated[int, typer.Option(min=1, help="Of random heads.")] = 4,
    draft_vocab: Annotated[int, typer.Option(min=1, help="Of random heads.")] = 8192,
    medusa_choices: opt.Choices = "auto",
    max_total_draft_tokens: opt.DraftTokens = None,
    dtype: opt.DType = "auto",
    threads: opt.Threads = None,
    max_model_len: opt.MaxModelLen = None,
    kv_cache_dtype: opt.KvCacheDType = "auto",
    seed: opt.Seed = None,
    json: opt.Json = False,
) -> None:
    """Measure plain decoding and Medusa in turns; exit 1 where their tokens differ.

    Without trained heads, --synthetic-acceptance-length tells what heads of that quality would
    give.

    Example: medusa-native bench throughput -m demo --heads auto --max-num-seqs 4
    """
    from medusa_native.bench import run, workload

    if prompts is not None and input_len is not None:
        raise typer.BadParameter("give --prompts or --input-len, not both")
    config = SpeculativeConfig(
        model=heads, medusa_choices=medusa_choices, max_total_draft_tokens=max_total_draft_tokens
    )
    loaded = run.open_engine(
        opt.resolve_model(model),
        config,
        synthetic_acceptance_length=synthetic_acceptance_length,
        num_heads=num_heads,
        draft_vocab=draft_vocab,
        adapter=adapter,
        dtype=dtype,
        num_threads=threads or 0,
        max_num_seqs=1 if mode is Mode.latency else max_num_seqs,
        max_model_len=max_model_len or 0,
        kv_cache_dtype=kv_cache_dtype,
    )
    count = num_prompts or (8 if mode is Mode.latency else 64)
    if input_len is not None:
        listed = workload.random_workload(count, input_len, loaded.vocab_size, seed or 0)
    else:
        listed = workload.repeat(workload.read_workload(prompts, loaded.tokenizer), count)
    run.check_lengths(loaded, listed, output_len)
    measure = run.measure_latency if mode is Mode.latency else run.measure_throughput
    sides = ["plain"] if loaded.tree.size == 1 else ["plain", "medusa"]
    runs = measure(loaded.engine, listed, output_len, num_iters, sides=sides)
    result = {"mode": mode.value, "output_len": output_len} | run.report(loaded, runs)
    write_json(result) if json else show(result)
    if result.get("identical") is False:
        raise typer.Exit(1)


def show(result: dict[str, Any]) -> None:
    """Print both sides next to each other, and what to make of them."""
    length = result["synthetic_acceptance_length"]
    tree = f", tree of {result['tree']['nodes']} nodes" if "medusa" in result["sides"] else ""
    console.print(f"{result['mode']}: {result['device']}, {result['dtype']}{tree}")
    if length:
        messages.print(
            f"synthetic: {length:g} tokens a step are kept at random; the text means nothing",
            style="yellow",
        )
    console.print(_table(result["sides"]))
    console.print(_parts(result["sides"]))
    if "medusa" in result["sides"]:
        console.print(_ranks(result["sides"]["medusa"]))
    if "speedup" in result:
        same = {None: "", True: ", every token agrees", False: ", TOKENS DIFFER"}
        console.print(f"{result['speedup']:.2f} x plain{same[result['identical']]}")
    for warning in result["warnings"]:
        messages.print(f"warning: {warning}", style="yellow")


def _table(sides: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None)
    table.add_column("")
    for side in sides:
        table.add_column(side, justify="right")
    first = next(iter(sides.values()))
    for name, value in first.items():
        if name in ("rank_histogram", "step_ms"):
            continue
        shown = [_cell(figures[name]) for figures in sides.values()]
        label = name.replace("_", " ")
        table.add_row(f"{label} (p50 / p95)" if isinstance(value, dict) else label, *shown)
    return table


def _parts(sides: dict[str, dict[str, Any]]) -> Table:
    """Where the time of a forward pass goes."""
    table = Table(title="A forward pass, ms", title_justify="left", box=None)
    for column in ("", *sides):
        table.add_column(column, justify="right" if column else "left")
    for part in next(iter(sides.values()))["step_ms"]:
        table.add_row(part, *(_share(part, figures["step_ms"]) for figures in sides.values()))
    return table


def _share(part: str, parts: dict[str, float]) -> str:
    return f"{parts[part]:.3f}  {100 * parts[part] / (sum(parts.values()) or 1):3.0f} %"


def _ranks(medusa: dict[str, Any]) -> Table:
    """Which guess of each head won, in per cent of drafts; ranks that never did are left out."""
    counts = medusa["rank_histogram"]
    used = max((rank + 1 for row in counts for rank, n in enumerate(row) if n), default=0)
    table = Table(title="Guess that won, % of drafts", title_justify="left", box=None)
    for column in ("", *(f"rank {rank}" for rank in range(used))):
        table.add_column(column, justify="right" if column else "left")
    for head, row in enumerate(counts, 1):
        shares = (f"{100 * n / max(medusa['num_drafts'], 1):.1f}" for n in row[:used])
        table.add_row(f"head {head}", *shares)
    return table


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['p50']:.2f} / {value['p95']:.2f}"
    if isinstance(value, list):
        return " ".join(f"{share:.2f}" for share in value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)
