"""``medusa-native generate``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from medusa_native.cli import options as opt
from medusa_native.cli.terminal import console, report, reports_errors, write, write_json
from medusa_native.decoder import Decoder
from medusa_native.params import SamplingParams


@reports_errors
def generate(
    model: opt.Model,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A prompt; repeat for several. Default: stdin."),
    ] = None,
    heads: opt.Heads = None,
    adapter: opt.Adapter = None,
    chat: Annotated[bool, typer.Option("--chat", help="Use the model's chat format.")] = False,
    max_tokens: opt.MaxTokens = 256,
    temperature: opt.Temperature = 0.0,
    top_p: opt.TopP = 1.0,
    top_k: opt.TopK = 0,
    min_p: opt.MinP = 0.0,
    seed: opt.Seed = None,
    stop: opt.Stop = None,
    ignore_eos: opt.IgnoreEos = False,
    min_tokens: opt.MinTokens = 0,
    repetition_penalty: opt.RepetitionPenalty = 1.0,
    presence_penalty: opt.PresencePenalty = 0.0,
    frequency_penalty: opt.FrequencyPenalty = 0.0,
    bad_word: opt.BadWord = None,
    logprobs: opt.Logprobs = None,
    n: opt.Completions = 1,
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
    """Complete prompts.

    Example: medusa-native generate -m demo --heads auto --chat -p "Why is the sky blue?" -n 128
    """
    params = opt.sampling_params(
        seed,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        stop=stop,
        ignore_eos=ignore_eos,
        min_tokens=min_tokens,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        bad_words=bad_word,
        logprobs=logprobs,
        n=n,
    )
    if logprobs is not None and not json:
        raise typer.BadParameter("--logprobs needs --json")
    prompts = prompt or [sys.stdin.read()]
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
    if len(prompts) == 1 and n == 1 and not json:
        _stream(decoder, prompts[0], chat, params)
    else:
        _answer_all(decoder, prompts, chat, params, json)


def _stream(decoder: Decoder, prompt: str, chat: bool, params: SamplingParams) -> None:
    messages = [{"role": "user", "content": prompt}]
    for chunk in decoder.stream(messages if chat else prompt, params):
        write(chunk.pieces)
        if chunk.metrics is not None:
            print()
            report(chunk.metrics)


def _answer_all(
    decoder: Decoder, prompts: list[str], chat: bool, params: SamplingParams, json: bool
) -> None:
    if chat:
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        outputs = decoder.chat(conversations, params)
    else:
        outputs = decoder.generate(prompts, params)
    for prompt, output in zip(prompts, outputs, strict=True):
        if json:
            write_json(output.to_dict())
            continue
        console.rule(prompt.strip().splitlines()[0][:60] if prompt.strip() else "", align="left")
        for answer in output.outputs:
            print(answer.text)
        report(output.metrics)
