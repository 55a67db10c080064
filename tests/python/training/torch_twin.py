"""Medusa-1 training as anybody would write it in torch: the oracle, and the benchmark's rival."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional


class Twin:
    """The same heads, loss, schedule and optimiser in `dtype`.

    Parameters
    ----------
    weights
        Initial tensors by name; V1 heads have "{head}.{layers}.weight".
    lm_head
        (draft_vocab, hidden).
    """

    def __init__(
        self,
        weights: Mapping[str, npt.NDArray[np.float32]],
        lm_head: npt.NDArray[np.float32],
        *,
        num_heads: int,
        num_layers: int,
        dtype: torch.dtype = torch.float64,
        head_decay: float = 0.8,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        warmup_steps: int = 0,
        total_steps: int = 1,
    ) -> None:
        self.weights = {
            name: torch.tensor(array, dtype=dtype, requires_grad=True)
            for name, array in weights.items()
        }
        self.lm_head = torch.tensor(lm_head, dtype=dtype)
        self.num_heads, self.num_layers = num_heads, num_layers
        self.head_decay, self.max_grad_norm = head_decay, max_grad_norm
        self.learning_rate = learning_rate
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.steps = 0
        matrices = [w for w in self.weights.values() if w.ndim == 2]
        biases = [w for w in self.weights.values() if w.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": weight_decay},
                {"params": biases, "weight_decay": 0.0},
            ],
            lr=learning_rate,
        )

    def logits(self, head: int, x: torch.Tensor) -> torch.Tensor:
        for layer in range(self.num_layers):
            name = f"{head}.{layer}.linear"
            z = functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])
            x = x[:, : z.shape[1]] + functional.silu(z)  # grounded: the root's embedding ends here
        return x @ self.weights.get(f"{head}.{self.num_layers}.weight", self.lm_head).T

    def loss(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over heads of head_decay^k times the mean cross-entropy; -1 marks no target."""
        total = x.new_zeros(())
        for head in range(self.num_heads):
            if bool((targets[:, head] >= 0).any()):
                loss = functional.cross_entropy(
                    self.logits(head, x), targets[:, head], ignore_index=-1
                )
                total = total + self.head_decay**head * loss
        return total

    def rate(self, step: int) -> float:
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def step(self, x: torch.Tensor, targets: torch.Tensor) -> float:
        self.optimizer.zero_grad()
        loss = self.loss(x, targets)
        loss.backward()
        self.update()
        return float(loss.detach())

    def update(self) -> None:
        """Clip the gradients and apply them."""
        self.steps += 1
        if self.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.weights.values(), self.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.steps)
        self.optimizer.step()
