"""Options that commands share, and what they mean for a Decoder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from medusa_native.decoder import Decoder
from medusa_native.params import SamplingParams, SpeculativeConfig

Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help='GGUF file, Hugging Face folder or hub id; "demo": the demo model.'
    ),
]
OptionalModel = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help='GGUF file, Hugging Face folder or hub id; "demo": the demo model.'
    ),
]
Heads = Annotated[
    str | None,
    typer.Option(
        help='Medusa heads: folder, file, hub id or name of a shipped set; "auto": the shipped set.'
    ),
]
Adapter = Annotated[
    str | None, typer.Option(help="LoRA adapter in PEFT's format, merged as it is loaded.")
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", help="Most tokens to generate.")]
Temperature = Annotated[float, typer.Option(help="0: always the most likely token.")]
TopP = Annotated[float, typer.Option(help="Sample from the most likely tokens of this mass.")]
TopK = Annotated[int, typer.Option(help="Sample from this many tokens; 0: all.")]
MinP = Annotated[float, typer.Option(help="Least probability, relative to the best token's.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same answer. Default: 0.")]
Stop = Annotated[list[str] | None, typer.Option(help="End the answer before this text.")]
MinTokens = Annotated[int, typer.Option(help="No end of the answer before.")]
RepetitionPenalty = Annotated[float, typer.Option(help="Above 1: fewer tokens seen before.")]
PresencePenalty = Annotated[float, typer.Option(help="Off logits of tokens the answer has.")]
FrequencyPenalty = Annotated[float, typer.Option(help="Likewise, once for each time.")]
BadWord = Annotated[list[str] | None, typer.Option(help="The answer does not contain it.")]
Logprobs = Annotated[int | None, typer.Option(help="Likeliest tokens to report; needs --json.")]
Completions = Annotated[int, typer.Option("--n", help="Answers to each prompt.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Go on after the end token.")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:N".')]
DType = Annotated[str, typer.Option(help='"auto", "bfloat16", "float32" or, on a GPU, "float16".')]
TrainDType = Annotated[str, typer.Option("--dtype", help='"bfloat16" or "float32".')]
Threads = Annotated[int | None, typer.Option(help="Default: one a processor.")]
MaxModelLen = Annotated[int | None, typer.Option(help="Most tokens of prompt and answer.")]
KvCacheDType = Annotated[
    str, typer.Option("--kv-cache-dtype", help='"auto", or "int8": half the bytes (CPU).')
]
Choices = Annotated[str, typer.Option(help='Tree: "auto", "chain", a stock name or a JSON file.')]
DraftTokens = Annotated[int | None, typer.Option(help="Most nodes of the tree.")]
Acceptance = Annotated[
    str, typer.Option(help='"exact": what plain decoding would produce; "typical": what is likely.')
]
PosteriorThreshold = Annotated[
    float, typer.Option(help='Of "typical": probability that is enough.')
]
PosteriorAlpha = Annotated[
    float, typer.Option(help='Of "typical": likewise, as a multiple of exp(-entropy).')
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def open_decoder(
    model: str,
    heads: str | None,
    *,
    choices: str = "auto",
    draft_tokens: int | None = None,
    acceptance: str = "exact",
    posterior_threshold: float = 0.09,
    posterior_alpha: float = 0.3,
    **limits: Any,
) -> Decoder:
    """Load what the options name."""
    config = speculative_config(
        heads, choices, draft_tokens, acceptance, posterior_threshold, posterior_alpha
    )
    return Decoder(resolve_model(model), speculative_config=config, **limits)


def resolve_model(model: str) -> str:
    """Return a path or id; the demo model is fetched."""
    if model != "demo":
        return model
    from medusa_native.demo_model import demo_model

    return str(demo_model())


def speculative_config(
    heads: str | None,
    choices: str,
    draft_tokens: int | None,
    acceptance: str,
    posterior_threshold: float = 0.09,
    posterior_alpha: float = 0.3,
) -> SpeculativeConfig | None:
    """Return the configuration the options describe; without heads they must not be set."""
    config = SpeculativeConfig(
        model=heads,
        medusa_choices=choices,
        max_total_draft_tokens=draft_tokens,
        acceptance_method=acceptance,
        posterior_threshold=posterior_threshold,
        posterior_alpha=posterior_alpha,
    )
    if heads is not None:
        return config
    if config != SpeculativeConfig():
        raise typer.BadParameter("options of the tree and of acceptance need --heads")
    return None


def sampling_params(seed: int | None, **options: Any) -> SamplingParams:
    """Return the sampling the options describe."""
    return SamplingParams(seed=seed, **options)
