"""Reading backbones, Medusa heads and tokenizers from disk."""

from medusa_native.loading.checkpoint import load_checkpoint, load_tokenizer
from medusa_native.loading.heads import HeadsCheckpoint, load_heads
from medusa_native.loading.heads_writer import save_heads
from medusa_native.loading.tensors import Checkpoint, HostTensor

__all__ = [
    "Checkpoint",
    "HeadsCheckpoint",
    "HostTensor",
    "load_checkpoint",
    "load_heads",
    "load_tokenizer",
    "save_heads",
]
