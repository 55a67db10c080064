"""Heads that know the answers by heart: on a real model, heads that are always right.

A backbone's states along its own answers are known once it has answered. V1 heads without a
residual step are then linear classifiers of these states; trained until every guess along every
answer is right, they let each step accept the tree's full depth. By the row law the states a
Medusa step meets are the same bits, so what was right in training is right in decoding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from medusa_native import _core

Tokens = list[int]
_STEPS = 3000


def memory_heads(
    model: _core.Model, prompts: list[Tokens], answers: list[Tokens], folder: Path, num_heads: int
) -> Path:
    """Write heads that guess `answers` to `prompts`, and nothing else.

    Raises
    ------
    RuntimeError
        A guess stays wrong: too many answers for one linear layer.
    """
    states, first = _states(model, prompts, answers)
    vocabulary = sorted({token for answer in answers for token in answer})
    draft_id = {token: index for index, token in enumerate(vocabulary)}
    tensors = {"token_map": torch.tensor(vocabulary, dtype=torch.int32)}
    for head in range(num_heads):
        rows, targets = [], []
        for start, answer in zip(first, answers, strict=True):
            # The state before answer[i] decides it; head k guesses k + 1 tokens after that.
            ahead = answer[head + 1 :]
            rows += range(start, start + len(ahead))
            targets += [draft_id[token] for token in ahead]
        weight = _classifier(states[rows], torch.tensor(targets), len(vocabulary))
        hidden = weight.shape[1]
        tensors[f"{head}.0.linear.weight"] = torch.zeros(hidden, hidden)
        tensors[f"{head}.1.weight"] = weight
    save_file(tensors, folder / "medusa_lm_head.safetensors")
    return folder


def _states(
    model: _core.Model, prompts: list[Tokens], answers: list[Tokens]
) -> tuple[torch.Tensor, list[int]]:
    """Return states (rows, hidden) and, of each answer, the row that decides its first token."""
    sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    states: npt.NDArray[np.generic] = model.hidden_states(sequences)
    if states.dtype == np.uint16:
        states = (states.astype(np.uint32) << 16).view(np.float32)
    starts = np.cumsum([0, *map(len, sequences[:-1])])
    first = [int(s) + len(p) - 1 for s, p in zip(starts, prompts, strict=True)]
    return torch.from_numpy(states.astype(np.float32)), first


def _classifier(states: torch.Tensor, targets: torch.Tensor, classes: int) -> torch.Tensor:
    """Return a bfloat16 matrix whose products with the states all peak at the targets."""
    weight = torch.zeros(classes, states.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.02)
    for step in range(_STEPS):
        loss = torch.nn.functional.cross_entropy(states @ weight.T, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49 and _margin(states, targets, weight.detach()) > 0.5:
            return weight.detach().bfloat16().float()
    raise RuntimeError(f"{len(targets)} guesses do not fit one matrix of {classes} classes")


def _margin(states: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> float:
    """Return by how much the right class leads where it leads least, with rounded weights."""
    logits = states @ weight.bfloat16().float().T
    right = logits.gather(1, targets[:, None])
    others = logits.scatter(1, targets[:, None], float("-inf")).amax(1, keepdim=True)
    return float((right - others).min())
