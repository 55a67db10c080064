"""``medusa-native chat``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from medusa_native.cli import options as opt
from medusa_native.cli.terminal import messages, report, reports_errors, write, write_json
from medusa_native.decoder import Decoder
from medusa_native.errors import InvalidArgument
from medusa_native.params import SamplingParams

HELP = "/exit ends, /reset forgets the conversation, Ctrl-C stops an answer"
Conversation = list[dict[str, str]]


@reports_errors
def chat(
    model: opt.Model,
    heads: opt.Heads = None,
    adapter: opt.Adapter = None,
    system: Annotated[str | None, typer.Option(help="What the model shall be.")] = None,
    max_tokens: opt.MaxTokens = 512,
    temperature: opt.Temperature = 0.0,
    top_p: opt.TopP = 1.0,
    top_k: opt.TopK = 0,
    min_p: opt.MinP = 0.0,
    seed: opt.Seed = None,
    medusa_choices: opt.Choices = "auto",
    max_total_draft_tokens: opt.DraftTokens = None,
    acceptance_method: opt.Acceptance = "exact",
    posterior_threshold: opt.PosteriorThreshold = 0.09,
    posterior_alpha: opt.PosteriorAlpha = 0.3,
    device: opt.Device = "auto",
    dtype: opt.DType = "auto",
    threads: opt.Threads = None,
    max_model_len: opt.MaxModelLen = None,
    kv_cache_dtype: opt.KvCacheDType = "auto",
    json: opt.Json = False,
) -> None:
    """Talk with a model, turn after turn. Lines may also come from a pipe.

    Example: medusa-native chat -m demo --heads auto
    """
    params = opt.sampling_params(
        seed,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
    )
    decoder = opt.open_decoder(
        model,
        heads,
        choices=medusa_choices,
        draft_tokens=max_total_draft_tokens,
        acceptance=acceptance_method,
        posterior_threshold=posterior_threshold,
        posterior_alpha=posterior_alpha,
        adapter=adapter,
        device=device,
        dtype=dtype,
        num_threads=threads,
        max_model_len=max_model_len,
        kv_cache_dtype=kv_cache_dtype,
    )
    start = [] if system is None else [{"role": "system", "content": system}]
    _converse(decoder, start, params, json)


def _converse(decoder: Decoder, start: Conversation, params: SamplingParams, json: bool) -> None:
    if sys.stdin.isatty():
        messages.print(HELP, style="dim")
    conversation = list(start)
    while (line := _read_line()) is not None:
        if line == "/exit":
            return
        if line == "/reset":
            conversation = list(start)
        elif line.startswith("/"):
            messages.print(HELP, style="dim")
        elif line:
            _turn(decoder, conversation, line, params, json)


def _read_line() -> str | None:
    """Return the next line, stripped; None at the end of input."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def _turn(
    decoder: Decoder, conversation: Conversation, line: str, params: SamplingParams, json: bool
) -> None:
    """Answer one line; a turn that fails leaves the conversation as it was."""
    asked = [*conversation, {"role": "user", "content": line}]
    try:
        answer = _answer(decoder, asked, params, json)
    except InvalidArgument as error:
        messages.print(f"{error}\n{HELP}", style="red", markup=False)
        return
    conversation[:] = [*asked, {"role": "assistant", "content": answer}]


def _answer(decoder: Decoder, asked: Conversation, params: SamplingParams, json: bool) -> str:
    """Stream an answer and return its text, cut short where the user interrupts."""
    if json:
        output = decoder.chat(asked, params)[0]
        write_json(output.to_dict())
        return output.outputs[0].text
    text = ""
    stream = decoder.stream(asked, params)
    try:
        for chunk in stream:
            text += chunk.text
            write(chunk.pieces)
            if chunk.metrics is not None:
                print()
                report(chunk.metrics)
    except KeyboardInterrupt:
        stream.close()
        print()
    return text
