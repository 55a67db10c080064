"""Medusa-2 updates natively and in torch with PEFT, taken in turn, each in a process of its own.

Shapes are SmolLM2-135M's, weights random: LoRA of rank 16 on every linear layer, 4 heads over 8192
tokens, self-distillation on three quarters of the tokens; an update is one sequence of packed
documents. Products in bfloat16 on both sides. torch runs without and with activation checkpoints.
Peak memory is the process's, before the first update (the frozen weights, libraries) and after.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np

VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV, DIM = 49152, 576, 1536, 30, 9, 3, 64
DRAFT, NUM_HEADS, RANK, ALPHA, DECAY, COEFFICIENT = 8192, 4, 16, 32, 0.8, 0.2
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]


def batch(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, ...]:
    """Return tokens, document lengths, and targets, of four documents."""
    length = rows // 4
    tokens = rng.integers(0, VOCAB, rows).astype(np.int32)
    at = np.arange(rows) % length
    lm = np.where((at >= length // 4) & (at < length - 1), np.roll(tokens, -1), -1)
    heads = [
        np.where((at >= length // 4) & (at < length - 2 - k), np.roll(tokens, -2 - k) % DRAFT, -1)
        for k in range(NUM_HEADS)
    ]
    return (
        tokens,
        np.full(4, length, np.int32),
        lm.astype(np.int32),
        np.stack(heads, 1, dtype=np.int32),
    )


def native_step(rows: int, threads: int) -> Callable[[], float]:
    """Return an update of the native trainer."""
    from medusa_native import _core

    rng = np.random.default_rng(0)
    tensors = {}

    def add(name: str, *shape: int) -> None:
        bits = rng.integers(0x3C00, 0x3C80, shape, np.uint16)  # 2^-7 to 2^-6, either sign
        bits += 0x8000 * rng.integers(0, 2, shape, np.uint16)
        if len(shape) == 1:
            bits[:] = 0x3F80  # 1
        tensors[name] = (bits, "BF16", shape)

    add("model.embed_tokens.weight", VOCAB, HIDDEN)
    add("model.norm.weight", HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        add(prefix + "input_layernorm.weight", HIDDEN)
        add(prefix + "post_attention_layernorm.weight", HIDDEN)
        for name, rows_of in (("q_proj", HEADS), ("k_proj", KV), ("v_proj", KV)):
            add(prefix + f"self_attn.{name}.weight", rows_of * DIM, HIDDEN)
        add(prefix + "self_attn.o_proj.weight", HIDDEN, HEADS * DIM)
        add(prefix + "mlp.gate_proj.weight", INNER, HIDDEN)
        add(prefix + "mlp.up_proj.weight", INNER, HIDDEN)
        add(prefix + "mlp.down_proj.weight", HIDDEN, INNER)
    config = _core.ModelConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=DIM,
        max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    trainer = _core.JointTrainer(
        config, tensors, list(range(DRAFT)), num_heads=NUM_HEADS, lora_rank=RANK,
        lora_alpha=float(ALPHA), lora_dropout=0.0, heads_coefficient=COEFFICIENT, max_rows=rows,
        num_threads=threads, stages=[{"steps": 1000}],
    )  # fmt: skip
    return lambda: trainer.step([batch(rng, rows)]).loss


def torch_step(rows: int, threads: int, checkpoints: bool) -> Callable[[], float]:
    """Return the same update in torch, transformers and PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn import functional
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=DIM,
        max_position_embeddings=8192, tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    base = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if checkpoints:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=MODULES))
    model.train()
    weights = [torch.zeros(HIDDEN, HIDDEN, requires_grad=True) for _ in range(NUM_HEADS)]
    biases = [torch.zeros(HIDDEN, requires_grad=True) for _ in range(NUM_HEADS)]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": trained}, {"params": weights + biases, "lr": 4e-3}], lr=1e-3, weight_decay=0.0
    )
    rng = np.random.default_rng(0)
    inner, lm_head = model.base_model.model.model, model.base_model.model.lm_head

    def hidden(tokens: torch.Tensor) -> torch.Tensor:
        return inner(input_ids=tokens).last_hidden_state  # a document a row: none sees another

    def draft_logits(x: torch.Tensor) -> torch.Tensor:
        low = functional.linear(x, lm_head.lora_A["default"].weight) * (ALPHA / RANK)
        added = functional.linear(low, lm_head.lora_B["default"].weight[:DRAFT])
        return functional.linear(x, lm_head.base_layer.weight[:DRAFT]) + added

    def step() -> float:
        tokens, _, lm, heads = (torch.tensor(x.astype(np.int64)) for x in batch(rng, rows))
        tokens = tokens.view(4, -1)
        answered = (lm >= 0).nonzero()[:, 0]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad(), model.disable_adapter():
                teacher = lm_head(hidden(tokens).flatten(0, 1)[answered]).float()
                teacher = functional.log_softmax(teacher, dim=-1)
            states = hidden(tokens).flatten(0, 1)
            student = functional.log_softmax(lm_head(states[answered]).float(), dim=-1)
            loss = functional.kl_div(student, teacher, log_target=True, reduction="batchmean")
            for k in range(NUM_HEADS):
                x = states[answered]
                x = x + functional.silu(functional.linear(x, weights[k], biases[k]))
                logits = draft_logits(x).float()
                ce = functional.cross_entropy(logits, heads[answered, k], ignore_index=-1)
                loss = loss + COEFFICIENT * DECAY**k * ce
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*trained, *weights, *biases], 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def peak_mib() -> float:
    """Return the largest memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(side: str, rows: int, threads: int) -> None:
    """Do an update for every line on standard input, and print its time."""
    makers: dict[str, Callable[[], Callable[[], float]]] = {
        "native": lambda: native_step(rows, threads),
        "torch": lambda: torch_step(rows, threads, checkpoints=False),
        "torch, checkpoints": lambda: torch_step(rows, threads, checkpoints=True),
    }
    step = makers[side]()
    before = peak_mib()
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "before": before, "peak": peak_mib()}), flush=True)


def measure(sides: list[str], rows: int, threads: int, repeats: int) -> list[dict[str, Any]]:
    """Time all sides in turn; the first update of each does not count."""
    command = [sys.executable, __file__, "--rows", str(rows), "--threads", str(threads), "--work"]
    workers = {
        side: subprocess.Popen(
            [*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for side in sides
    }
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(1 + repeats):
        for side, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            found[side].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    return [
        {
            "side": side,
            "tokens/s": round(rows / statistics.median(e["seconds"] for e in entries[1:]), 1),
            "before MiB": round(entries[-1]["before"]),
            "peak MiB": round(entries[-1]["peak"]),
        }
        for side, entries in found.items()
    ]


def main() -> None:
    """Measure, or be one side's process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sides", nargs="+", default=["native", "torch", "torch, checkpoints"])
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.rows, options.threads)
    found = measure(options.sides, options.rows, options.threads, options.repeats)
    common.show("joint_training", list(found[0]), [list(side.values()) for side in found])
    del options.work
    print(common.save("joint_training", vars(options), {"sides": found}))
    return None


if __name__ == "__main__":
    main()
