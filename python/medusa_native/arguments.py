"""What callers may pass to a Decoder, brought into one form each; errors name the parameter."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from medusa_native import _core
from medusa_native.checks import check_integer
from medusa_native.errors import DeviceError, InvalidArgument
from medusa_native.params import SamplingParams, SpeculativeConfig

Prompt = str | Sequence[int]
Message = Mapping[str, Any]


def check_device(device: str) -> None:
    """Raise DeviceError, with advice, for a device that this build or machine does not have."""
    if device in ("auto", "cpu"):
        return
    if not re.fullmatch(r"cuda(:\d+)?", str(device)):
        raise InvalidArgument(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', found {device!r}")
    if reason := _core.why_no_cuda():
        raise DeviceError(f"device {device!r}: {reason}")


def core_types(dtype: str) -> dict[str, str]:
    """Return the core's compute type and weight format for a `dtype`, as keyword arguments."""
    names = {
        "auto": ("bfloat16", "as_stored"),
        "bfloat16": ("bfloat16", "widened"),
        "float16": ("float16", "widened"),
        "float32": ("float32", "widened"),
    }
    if dtype not in names:
        raise InvalidArgument(f"dtype must be one of {', '.join(names)}, found {dtype!r}")
    return dict(zip(("compute_type", "weight_format"), names[dtype], strict=True))


def cache_type(kv_cache_dtype: str, dtype: str) -> str:
    """Return `kv_cache_dtype` where it is one that goes with `dtype`."""
    if kv_cache_dtype not in ("auto", "int8"):
        raise InvalidArgument(f"kv_cache_dtype must be 'auto' or 'int8', found {kv_cache_dtype!r}")
    if kv_cache_dtype == "int8" and dtype == "float32":
        raise InvalidArgument("kv_cache_dtype 'int8' needs dtype 'auto' or 'bfloat16'")
    return kv_cache_dtype


def limit(name: str, value: int | None) -> int:
    """Return a positive limit, or 0 where the core shall choose."""
    return 0 if value is None else check_integer("Decoder", name, value, 1, 2**63 - 1)


def speculative(
    heads: str | Path | None, config: SpeculativeConfig | Mapping[str, Any] | None
) -> SpeculativeConfig | None:
    """Return the one configuration that `heads` or `speculative_config` stands for."""
    if config is None:
        return None if heads is None else SpeculativeConfig(model=heads)
    if heads is not None:
        raise InvalidArgument("heads and speculative_config exclude each other; give one")
    chosen = SpeculativeConfig.of(config)
    if chosen.model is None:
        raise InvalidArgument("speculative_config: model, the heads, is missing")
    return chosen


def list_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Return one or several prompts as a list."""
    if isinstance(prompts, str):
        return [prompts]
    listed = _to_list("prompts", prompts)
    if not listed:
        raise InvalidArgument("prompts is empty")
    is_one_prompt = isinstance(listed[0], (int, np.integer))
    return [cast("Prompt", listed)] if is_one_prompt else listed


def token_list(index: int, prompt: object) -> list[int]:
    """Return a prompt's token ids as integers."""
    try:
        return [operator.index(token) for token in _to_list(f"prompt {index}", prompt)]
    except TypeError as error:
        raise InvalidArgument(
            f"prompt {index} must be a text or a list of token ids: {error}"
        ) from error


def is_conversation(prompt: object) -> bool:
    """Tell messages from a prompt."""
    return isinstance(prompt, Sequence) and bool(prompt) and isinstance(prompt[0], Mapping)


def list_conversations(
    messages: Sequence[Message] | Sequence[Sequence[Message]],
) -> list[Sequence[Message]]:
    """Return one or several conversations as a list."""
    if is_conversation(messages):
        return [cast("Sequence[Message]", messages)]
    listed = _to_list("messages", messages)
    if not listed or not all(is_conversation(conversation) for conversation in listed):
        raise InvalidArgument(
            "messages must be mappings with 'role' and 'content', or lists of such, found "
            f"{messages!r:.80}"
        )
    return listed


def list_params(
    params: SamplingParams | Sequence[SamplingParams] | None, count: int
) -> list[SamplingParams]:
    """Return sampling parameters for each of `count` prompts."""
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    listed = _to_list("sampling_params", params)
    if not all(isinstance(chosen, SamplingParams) for chosen in listed):
        raise InvalidArgument(f"sampling_params must be SamplingParams, found {params!r:.80}")
    if len(listed) != count:
        raise InvalidArgument(
            f"sampling_params must be one, or one for each of {count} prompts; found {len(listed)}"
        )
    return listed


def _to_list(name: str, value: object) -> list[Any]:
    if hasattr(value, "tolist"):  # NumPy arrays, torch tensors
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InvalidArgument(f"{name} must be a list, found {value!r:.80}")
    return list(value)
