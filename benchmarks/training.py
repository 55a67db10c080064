"""Training steps natively and in torch, taken in turn in one process.

Shapes are those of the demo heads: 4 heads on 576 channels, 8192 draft rows, batches of 1024 rows.
Products in bfloat16, weights and moments in float32, on both sides. A step is loss, gradients,
clipping and AdamW. Work counts multiply-adds of the products: per row and head
layers * 2 d^2 + 2 d V (V2), and d V more for the projection's own gradient (V1).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from medusa_native import _core

HIDDEN, VOCAB, HEADS, DECAY = 576, 8192, 4, 0.8


def native_step(version: int, layers: int, batch: int, threads: int) -> Callable[[], float]:
    """Return a step of the native trainer."""
    rng = np.random.default_rng(0)
    lm_head = (0.05 * rng.standard_normal((VOCAB, HIDDEN))).astype(np.float32)
    hidden = rng.standard_normal((8 * batch, HIDDEN)).astype(np.float32)
    bits = (hidden.view(np.uint32) >> 16).astype(np.uint16)
    targets = rng.integers(0, VOCAB, (batch, HEADS)).astype(np.int32)
    trainer = _core.Trainer(
        lm_head,
        version=version,
        num_heads=HEADS,
        num_layers=layers,
        total_steps=1_000_000,
        num_threads=threads,
    )

    def step() -> float:
        rows = rng.integers(0, len(bits), batch)
        return trainer.step(bits, rows, targets).loss

    return step


def torch_step(version: int, layers: int, batch: int) -> Callable[[], float]:
    """Return the same step in torch."""
    generator = torch.Generator().manual_seed(0)
    bf16 = torch.bfloat16
    lm_head = 0.05 * torch.randn(VOCAB, HIDDEN, generator=generator)
    hidden = torch.randn(8 * batch, HIDDEN, generator=generator).to(bf16)
    targets = torch.randint(0, VOCAB, (batch, HEADS), generator=generator)
    weights = [[torch.zeros(HIDDEN, HIDDEN) for _ in range(layers)] for _ in range(HEADS)]
    biases = [[torch.zeros(HIDDEN) for _ in range(layers)] for _ in range(HEADS)]
    projections = [lm_head.clone() for _ in range(HEADS)] if version == 1 else []
    trained = [t for group in (*weights, *biases, projections) for t in group]
    for tensor in trained:
        tensor.requires_grad_()
    frozen = lm_head.to(bf16)
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True)

    def head_loss(head: int, x: torch.Tensor) -> torch.Tensor:
        for weight, bias in zip(weights[head], biases[head], strict=True):
            x = x + functional.silu(functional.linear(x, weight.to(bf16), bias.to(bf16)))
        projection = projections[head].to(bf16) if projections else frozen
        return functional.cross_entropy((x @ projection.T).float(), targets[:, head])

    def step() -> float:
        x = hidden[torch.randint(0, len(hidden), (batch,), generator=generator)]
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for head in range(HEADS):  # one head's logits at a time
            loss = DECAY**head * head_loss(head, x)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return total

    return step


def measure(version: int, layers: int, batch: int, threads: int, repeats: int) -> dict[str, float]:
    """Time both in turn."""
    sides = {
        "native": native_step(version, layers, batch, threads),
        "torch": torch_step(version, layers, batch),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for step in sides.values():
        step(), step()
    for _ in range(repeats):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    rate = {name: batch / statistics.median(values) for name, values in times.items()}
    work = HEADS * (layers * 2 * HIDDEN**2 + (3 if version == 1 else 2) * HIDDEN * VOCAB)
    return {
        "version": version,
        "layers": layers,
        "native rows/s": round(rate["native"]),
        "torch rows/s": round(rate["torch"]),
        "ratio": round(rate["native"] / rate["torch"], 2),
        "native GMAC/s": round(rate["native"] * work / 1e9, 1),
    }


def main() -> None:
    """Print one line of JSON a kind of heads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for version, layers in ((2, 1), (2, 2), (1, 1)):
        found = measure(version, layers, options.batch, options.threads, options.repeats)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
