"""One LLM answers faster without changing a single token of the answer.

>>> from medusa_native import Decoder, SamplingParams, demo_model
>>> decoder = Decoder(demo_model(), heads="auto")  # doctest: +SKIP
>>> decoder.chat([{"role": "user", "content": "Why is the sky blue?"}])  # doctest: +SKIP
"""

from __future__ import annotations

from medusa_native.decoder import Decoder
from medusa_native.demo_model import demo_model
from medusa_native.errors import (
    DeviceError,
    InvalidArgument,
    MedusaError,
    ModelFormatError,
    OutOfMemory,
)
from medusa_native.logprobs import Logprob
from medusa_native.outputs import (
    CompletionOutput,
    Metrics,
    Piece,
    RequestOutput,
    StepTimes,
    StreamChunk,
    TotalMetrics,
)
from medusa_native.params import SamplingParams, SpeculativeConfig

__version__ = "0.1.0"

__all__ = [
    "CompletionOutput",
    "Decoder",
    "DeviceError",
    "InvalidArgument",
    "Logprob",
    "MedusaError",
    "Metrics",
    "ModelFormatError",
    "OutOfMemory",
    "Piece",
    "RequestOutput",
    "SamplingParams",
    "SpeculativeConfig",
    "StepTimes",
    "StreamChunk",
    "TotalMetrics",
    "demo_model",
]
