"""Reading backbones, Medusa heads and tokenizers from disk."""

from medusa_native.loading.adapter import Adapter, load_adapter
from medusa_native.loading.adapter_config import AdapterConfig
from medusa_native.loading.adapter_merge import with_adapter
from medusa_native.loading.adapter_writer import write_adapter
from medusa_native.loading.checkpoint import load_checkpoint, load_tokenizer
from medusa_native.loading.heads import HeadsCheckpoint, load_heads
from medusa_native.loading.heads_convert import convert_heads
from medusa_native.loading.heads_folder import write_heads
from medusa_native.loading.heads_writer import save_heads
from medusa_native.loading.merge import merge_adapter
from medusa_native.loading.tensors import Checkpoint, HostTensor

__all__ = [
    "Adapter",
    "AdapterConfig",
    "Checkpoint",
    "HeadsCheckpoint",
    "HostTensor",
    "convert_heads",
    "load_adapter",
    "load_checkpoint",
    "load_heads",
    "load_tokenizer",
    "merge_adapter",
    "save_heads",
    "with_adapter",
    "write_adapter",
    "write_heads",
]
