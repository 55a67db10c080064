"""Medusa-2 as anybody would write it with transformers, PEFT and torch: the oracle."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM

Ids = npt.NDArray[np.int32]
MODULES = [
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head",
]  # fmt: skip


@dataclass
class Packed:
    """Documents one after another, as `_core.JointTrainer` takes them."""

    tokens: Ids
    lengths: Ids
    lm_targets: Ids
    head_targets: Ids

    def core(self) -> tuple[Ids, Ids, Ids, Ids]:
        return self.tokens, self.lengths, self.lm_targets, self.head_targets

    def documents(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        ends = np.cumsum(self.lengths)
        return [
            tuple(
                torch.tensor(array[end - length : end].astype(np.int64))
                for array in (self.tokens, self.lm_targets, self.head_targets)
            )
            for end, length in zip(ends, self.lengths, strict=True)
        ]


def random_batch(
    rng: np.random.Generator,
    lengths: list[int],
    vocab: int,
    num_heads: int,
    token_map: Ids | None = None,
) -> Packed:
    """Documents of random tokens, whose first third is a prompt."""
    tokens, lm, heads = [], [], []
    draft = np.full(vocab + 1, -1, dtype=np.int32)
    draft[:-1] = np.arange(vocab) if token_map is None else -1
    if token_map is not None:
        draft[token_map] = np.arange(len(token_map))
    for length in lengths:
        ids = rng.integers(0, vocab, length).astype(np.int32)
        after = np.concatenate([ids, np.full(num_heads + 2, vocab, np.int32)])
        targets = np.stack([after[i + 1 : i + 1 + length] for i in range(num_heads + 1)], axis=1)
        targets[: length // 3] = vocab
        tokens.append(ids)
        lm.append(np.where(targets[:, 0] == vocab, -1, targets[:, 0]))
        heads.append(draft[targets[:, 1:]])
    return Packed(
        np.concatenate(tokens),
        np.asarray(lengths, np.int32),
        np.concatenate(lm).astype(np.int32),
        np.concatenate(heads).astype(np.int32),
    )


class JointTwin:
    """The same model, adapters, heads, losses, schedules and optimiser in `dtype`.

    Parameters
    ----------
    folder
        A Hugging Face model.
    weights
        Adapters under PEFT's names, or the backbone's tensors under Hugging Face's, and heads under
        theirs.
    all_weights
        The backbone's own weights are trained; no adapters.
    """

    def __init__(
        self,
        folder: Path,
        weights: dict[str, npt.NDArray[np.float32]],
        *,
        rank: int,
        alpha: float,
        num_heads: int,
        num_layers: int = 1,
        token_map: Ids | None = None,
        grounded: bool = False,
        backbone_loss: str = "divergence",
        head_decay: float = 0.8,
        heads_coefficient: float = 0.2,
        heads_schedule: str = "constant",
        heads_learning_rate_multiple: float = 4.0,
        learning_rate: float = 1e-3,
        max_grad_norm: float = 1.0,
        warmup_steps: int = 0,
        total_steps: int = 1,
        weight_decay: float = 0.0,
        target_modules: list[str] | None = None,
        all_weights: bool = False,
        dtype: torch.dtype = torch.float64,
        tensors: dict[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        torch.set_num_threads(1)  # matrices are tiny
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        base = base.to(dtype)
        base.config._attn_implementation = "eager"
        if tensors is not None:
            state = {name: torch.tensor(array) for name, array in tensors.items()}
            base.load_state_dict(state, strict=False)
        self.lm, self.adapted = base, None
        self.original = copy.deepcopy(base)
        if not all_weights:
            config = LoraConfig(
                r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=target_modules or MODULES
            )
            with warnings.catch_warnings():  # PEFT asks Transformers by an old name
                warnings.simplefilter("ignore", FutureWarning)
                warnings.filterwarnings("ignore", "Model has `tie_word", UserWarning)
                self.adapted = get_peft_model(base, config).to(dtype)
            self.lm = self.adapted.base_model.model
        named = {
            name.replace(".default.", "."): p
            for name, p in (self.adapted or self.lm).named_parameters()
            if p.requires_grad
        }
        adapters = {name for name in weights if not name[0].isdigit()}
        assert set(named) == adapters
        for name, parameter in named.items():
            parameter.data = torch.tensor(weights[name], dtype=dtype)
        self.adapters = named
        self.heads = {
            name: torch.tensor(array, dtype=dtype, requires_grad=True)
            for name, array in weights.items()
            if name not in adapters
        }
        self.num_heads, self.num_layers = num_heads, num_layers
        self.token_map = None if token_map is None else torch.tensor(token_map.astype(np.int64))
        self.grounded, self.backbone_loss = grounded, backbone_loss
        self.head_decay, self.coefficient = head_decay, heads_coefficient
        self.schedule = heads_schedule
        self.learning_rate, self.multiple = learning_rate, heads_learning_rate_multiple
        self.max_grad_norm = max_grad_norm
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.steps = 0
        groups = [
            {"params": [p for p in group.values() if (p.ndim == 2) == decays],
             "weight_decay": weight_decay if decays else 0.0}
            for decays in (True, False)
            for group in (self.adapters, self.heads)
        ]  # fmt: skip
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate)

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        return {**self.adapters, **self.heads}

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.lm.model(input_ids=tokens[None]).last_hidden_state[0]

    def teacher_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.original(input_ids=tokens[None]).logits[0]

    def head_logits(self, head: int, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        lm = self.lm
        x = hidden
        if self.grounded:
            roots = torch.cat([tokens[1:], tokens.new_zeros(1)])
            x = torch.cat([hidden, lm.model.embed_tokens(roots)], dim=1)
        for layer in range(self.num_layers):
            name = f"{head}.{layer}.linear"
            z = functional.linear(x, self.heads[f"{name}.weight"], self.heads[f"{name}.bias"])
            x = x[:, : z.shape[1]] + functional.silu(z)
        own = self.heads.get(f"{head}.{self.num_layers}.weight")
        if own is not None:
            return x @ own.T
        logits = lm.lm_head(x)
        return logits if self.token_map is None else logits[:, self.token_map]

    def loss(self, batches: list[Packed]) -> tuple[torch.Tensor, float]:
        """Return the step's loss and its backbone's part."""
        lm_count = sum(int((b.lm_targets >= 0).sum()) for b in batches)
        counts = sum((b.head_targets >= 0).sum(axis=0) for b in batches)
        weight = self.coefficient * self.share()
        lm_total: Any = 0.0
        total: Any = 0.0
        for batch in batches:
            for tokens, lm_targets, head_targets in batch.documents():
                hidden = self.hidden(tokens)
                logits = self.lm.lm_head(hidden)
                active = lm_targets >= 0
                if self.backbone_loss == "divergence":
                    base = functional.log_softmax(self.teacher_logits(tokens)[active], dim=-1)
                    own = functional.log_softmax(logits[active], dim=-1)
                    lm = functional.kl_div(own, base, log_target=True, reduction="sum")
                else:
                    lm = functional.cross_entropy(
                        logits, lm_targets, ignore_index=-1, reduction="sum"
                    )
                lm_total = lm_total + lm / lm_count
                for k in range(self.num_heads):
                    ce = functional.cross_entropy(
                        self.head_logits(k, hidden, tokens),
                        head_targets[:, k],
                        ignore_index=-1,
                        reduction="sum",
                    )
                    total = total + weight * self.head_decay**k * ce / int(counts[k])
        return lm_total + total, float(lm_total.detach())

    def share(self) -> float:
        progress = min(1.0, (self.steps + 1) / self.total_steps)
        return {
            "constant": 1.0, "linear": progress, "sine": math.sin(math.pi / 2 * progress)
        }[self.schedule]  # fmt: skip

    def rate(self, step: int) -> float:
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def step(self, batches: list[Packed]) -> float:
        self.optimizer.zero_grad()
        loss, _ = self.loss(batches)
        loss.backward()
        self.steps += 1
        if self.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.max_grad_norm)
        rate = self.rate(self.steps)
        for group, multiple in zip(
            self.optimizer.param_groups, [1.0, self.multiple] * 2, strict=True
        ):
            group["lr"] = rate * multiple
        self.optimizer.step()
        return float(loss.detach())
