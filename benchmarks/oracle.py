"""Transformers as the oracle, for Hugging Face folders and for GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers


def _arguments(path: str) -> tuple[str, dict[str, Any]]:
    file = Path(path)
    return (str(file.parent), {"gguf_file": file.name}) if file.suffix == ".gguf" else (path, {})


def transformers_tokenizer(path: str) -> Any:
    folder, arguments = _arguments(path)
    return transformers.AutoTokenizer.from_pretrained(folder, **arguments)


def transformers_model(path: str, dtype: torch.dtype) -> Any:
    """Return the model with its weights dequantised to `dtype`."""
    folder, arguments = _arguments(path)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, **arguments
    ).eval()
