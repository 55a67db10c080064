"""Who takes part: for each format of the weights, every peer that reads it, and ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SIXTEEN_BITS = "16-bit"
FORMATS = (SIXTEEN_BITS, "Q8_0", "Q4_1", "Q4_0")
# Compared with in every format.
REFERENCE, PLAIN, MEDUSA = "Transformers", "ours", "ours, Medusa"
WIDENED = " bf16"  # of quantised weights: what computes in bfloat16, and says so


@dataclass(frozen=True)
class Contender:
    """`load` is what the worker is asked to load; its model is the name of a format, or folder."""

    name: str
    peer: str  # its environment
    module: str  # of peers.workers
    load: dict[str, Any]
    drawn: bool = True  # in the plot


@dataclass(frozen=True)
class Settings:
    threads: int
    length: int  # tokens of the longest prompt and its answer
    heads: str
    nodes: int | None


def contenders(form: str, settings: Settings) -> Iterator[Contender]:
    """Those that decode one sequence. 16 bits are F16 in files; everyone but llama.cpp computes
    them in bfloat16.
    """
    sixteen = form == SIXTEEN_BITS
    model = "F16" if sixteen else form
    yield from _transformers(model, settings, sixteen)
    yield from _llama(("F16", "BF16") if sixteen else (form,), settings)
    yield from _openvino(model, settings)
    if sixteen:
        yield from _vllm(settings)
        yield from _ours(model, settings, "bfloat16")
    else:
        yield from _ours(model, settings, "auto")
        yield from _ours(model, settings, "bfloat16", WIDENED, drawn=False)


def _transformers(model: str, settings: Settings, sixteen: bool) -> Iterator[Contender]:
    """The reference of every format; its speed is that of bfloat16 whatever the file."""
    load = {"model": model, "threads": settings.threads}
    yield Contender(REFERENCE, "transformers", "hugging_face", load, sixteen)
    if sixteen:
        lookup = load | {"lookup": 10}
        yield Contender(f"{REFERENCE}, lookup", "transformers", "hugging_face", lookup)


def _llama(models: tuple[str, ...], settings: Settings) -> Iterator[Contender]:
    for model in models:
        load = {"model": model, "threads": settings.threads, "length": settings.length}
        name = "llama.cpp" if len(models) == 1 else f"llama.cpp, {model}"
        yield Contender(name, "llama.cpp", "llama", load)


def _openvino(model: str, settings: Settings) -> Iterator[Contender]:
    load = {"model": model, "threads": settings.threads}
    yield Contender("OpenVINO", "openvino", "openvino_genai", load)
    yield Contender("OpenVINO, lookup", "openvino", "openvino_genai", load | {"lookup": 5})


def _vllm(settings: Settings) -> Iterator[Contender]:
    load = {"model": "folder", "threads": settings.threads, "length": settings.length, "seqs": 1}
    yield Contender("vLLM", "vllm", "vllm_cpu", load)
    yield Contender("vLLM, n-grams", "vllm", "vllm_cpu", load | {"lookup": 5})


def _ours(
    model: str, settings: Settings, dtype: str, suffix: str = "", drawn: bool = True
) -> Iterator[Contender]:
    limits = {"threads": settings.threads, "length": settings.length}
    load = {"model": model, "dtype": dtype, **limits}
    medusa = load | {"heads": settings.heads, "nodes": settings.nodes}
    yield Contender(PLAIN + suffix, "ours", "ours", load, drawn)
    yield Contender(MEDUSA + suffix, "ours", "ours", medusa, drawn)


def many_at_once(seqs: int, settings: Settings) -> Iterator[Contender]:
    """Those that decode many sequences, at 16 bits."""
    limits = {"threads": settings.threads, "seqs": seqs}
    vllm = {"model": "folder", "length": settings.length, **limits}
    yield Contender("vLLM", "vllm", "vllm_cpu", vllm)
    for name, kind in (("ours", "plain"), ("ours, adaptive tree", "adaptive")):
        load = {"model": "F16", "dtype": "bfloat16", "kind": kind, **limits}
        yield Contender(name, "ours", "ours_many", load)
