"""Whether a GPU computes what it should: a small model of random weights, decoded on it.

``device="auto"`` takes a GPU after this alone.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from medusa_native import _core
from medusa_native.errors import MedusaError

Array = npt.NDArray[np.float32]

CONFIG: dict[str, Any] = {
    "architecture": "llama",
    "vocab_size": 96,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
HEADS, TREE = 4, "mc_sim_7b_63"
PROMPTS = (list(range(1, 91)), [7, 3, 11])
# The furthest a logit may lie from the CPU's in float32, relative to the largest of all.
FURTHEST = {"bfloat16": 0.1, "float16": 0.02, "float32": 1e-3}


def choose_device(device: str, compute_type: str, kv_cache_dtype: str) -> str:
    """Return what ``"auto"`` means for these types: a GPU where one works, else the CPU.

    Warns of a GPU that is there and gives wrong results. Other names are returned as they are.
    """
    if device != "auto":
        return device
    if kv_cache_dtype != "auto" or _core.why_no_cuda():
        return "cpu"
    if reason := why_wrong(compute_type):
        warnings.warn(f"the CPU is used, for the GPU failed a check: {reason}", stacklevel=3)
        return "cpu"
    return "cuda"


@functools.cache
def why_wrong(compute_type: str) -> str:
    """Decode on device 0 and say what is wrong with it; empty where nothing is."""
    try:
        model = load(compute_type, "cuda")
        far = distance(model, load("float32", "cpu"))
        if not far <= FURTHEST[compute_type]:  # NaN is not either
            return f"{compute_type} logits are {far:.2g} of the largest away from the CPU's"
        if answers(model, heads=True) != answers(model, heads=False):
            return f"with Medusa heads it gives other tokens than without ({compute_type})"
    except MedusaError as error:
        return str(error)
    return ""


def distance(model: _core.Model, reference: _core.Model) -> float:
    """Return how far the logits of a prompt are apart, relative to the largest."""
    expected = reference.logits(PROMPTS[0])
    return float(np.abs(model.logits(PROMPTS[0]) - expected).max() / np.abs(expected).max())


def answers(model: _core.Model, *, heads: bool) -> list[list[int]]:
    """Return what follows the prompts, all in flight at once."""
    tree = _core.Tree.stock(TREE) if heads else _core.Tree.root_only()
    engine = _core.Engine(model, _heads(model) if heads else None, tree, kv_cache_memory=2**26)
    params = _core.SamplingParams(max_tokens=24)
    answers: dict[int, list[int]] = {engine.submit(prompt, params): [] for prompt in PROMPTS}
    while engine.has_unfinished():
        for output in engine.step():
            answers[output.request_id] += output.tokens
    return list(answers.values())


def load(compute_type: str, device: str) -> _core.Model:
    """Return the small model; its weights are the same each time."""
    config = _core.ModelConfig(**CONFIG)
    return _core.Model.load(config, _tensors(CONFIG), compute_type, device=device)


def _tensors(config: dict[str, Any]) -> dict[str, Any]:
    """Return weights whose logits spread, so that answers vary."""
    draw = _Draw()
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query, kv = (config[f"num_{k}_heads"] * config["head_dim"] for k in ("attention", "key_value"))
    shapes = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    tensors = {
        "model.embed_tokens.weight": draw(config["vocab_size"], hidden, scale=hidden**0.5),
        "model.norm.weight": _stored(np.ones(hidden, np.float32)),
        "lm_head.weight": draw(config["vocab_size"], hidden, scale=3),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors |= {
            f"{prefix}{name}.weight": draw(*shape, scale=2) for name, shape in shapes.items()
        }
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = _stored(np.ones(hidden, np.float32))
    return tensors


def _heads(model: _core.Model) -> _core.Heads:
    draw = _Draw()
    hidden, vocab = CONFIG["hidden_size"], CONFIG["vocab_size"]
    residual: list[list[Any]] = [[(draw(hidden, hidden, scale=1), None)] for _ in range(HEADS)]
    return _core.Heads.load(model, residual, [draw(vocab, hidden, scale=3) for _ in range(HEADS)])


class _Draw:
    """Matrices of normal numbers, as the core takes tensors; the same ones each time."""

    def __init__(self) -> None:
        self._numbers = np.random.default_rng(0)

    def __call__(self, rows: int, columns: int, *, scale: float) -> Any:
        numbers = self._numbers.standard_normal((rows, columns), np.float32)
        return _stored(numbers * np.float32(scale / columns**0.5))


def _stored(numbers: Array) -> Any:
    return numbers.reshape(-1).view(np.uint8), "F32", numbers.shape
