"""Transformers as the oracle, for Hugging Face folders and for GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers

from medusa_native.loading.gguf_file import GgufFile


def _arguments(path: str) -> tuple[str, dict[str, Any]]:
    file = Path(path)
    return (str(file.parent), {"gguf_file": file.name}) if file.suffix == ".gguf" else (path, {})


def transformers_tokenizer(path: str) -> Any:
    """Return the model's tokenizer as its Hugging Face repository has it.

    Transformers' reader of GGUF files does not look at `tokenizer.ggml.pre`. For "smollm" the
    original tokenizer.json sets digits apart before the byte-level split; that is put back.
    """
    folder, arguments = _arguments(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **arguments)
    if arguments and GgufFile(Path(path)).metadata.get("tokenizer.ggml.pre") == "smollm":
        split = pre_tokenizers.Digits(individual_digits=True)
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    return tokenizer


def transformers_model(path: str, dtype: torch.dtype) -> Any:
    """Return the model with its weights dequantised to `dtype`."""
    folder, arguments = _arguments(path)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, **arguments
    ).eval()
