"""Loading keeps no second copy: peak anonymous memory is the packed weights and little more."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from medusa_native import _core

HIDDEN, INNER, LAYERS, VOCAB = 768, 2048, 6, 16384


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/self/status")


def shapes() -> dict[str, tuple[int, ...]]:
    named: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        named[layer + "input_layernorm.weight"] = (HIDDEN,)
        named[layer + "post_attention_layernorm.weight"] = (HIDDEN,)
        for name in "qkvo":
            named[f"{layer}self_attn.{name}_proj.weight"] = (HIDDEN, HIDDEN)
        named[layer + "mlp.gate_proj.weight"] = (INNER, HIDDEN)
        named[layer + "mlp.up_proj.weight"] = (INNER, HIDDEN)
        named[layer + "mlp.down_proj.weight"] = (HIDDEN, INNER)
    return named


def mapped_tensors(path: Path) -> dict[str, tuple[np.ndarray, str, tuple[int, ...]]]:
    sizes = {name: int(np.prod(shape)) for name, shape in shapes().items()}
    np.full(sum(sizes.values()), 0x3C00, np.uint16).tofile(path)  # bfloat16 0.0078
    file = np.memmap(path, np.uint16, "r")
    tensors, begin = {}, 0
    for name, shape in shapes().items():
        tensors[name] = (file[begin : begin + sizes[name]], "BF16", shape)
        begin += sizes[name]
    return tensors


class PeakSampler:
    """Watches RssAnon from another thread."""

    def __enter__(self) -> PeakSampler:
        self.start = self.peak = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, anonymous_bytes())

    def _watch(self) -> None:
        while not self._done.wait(0.0005):
            self.peak = max(self.peak, anonymous_bytes())


def test_loading_needs_the_packed_weights_and_a_tenth(tmp_path: Path) -> None:
    tensors = mapped_tensors(tmp_path / "weights.bin")
    config = _core.ModelConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // 64,
        num_key_value_heads=HIDDEN // 64,
        head_dim=64,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    with PeakSampler() as sampler:
        model = _core.Model.load(config, tensors)
    parameters = sum(int(np.prod(shape)) for shape in shapes().values())
    assert model.weight_bytes >= 2 * (parameters - HIDDEN * (2 * LAYERS + 1))
    assert sampler.peak - sampler.start <= 1.10 * model.weight_bytes
