"""Gradients of heads and adapters through a whole model against torch, transformers and PEFT."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, quants
from joint_twin import JointTwin, random_batch
from tiny_model import save_model

from medusa_native import InvalidArgument, MedusaError, _core
from medusa_native.engine import as_core
from medusa_native.loading import load_checkpoint

pytest.importorskip("peft")

VOCAB = 320
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "mha": {"num_key_value_heads": 4},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
    "window": {"model_type": "mistral", "sliding_window": 9},
}


def extra_tensors(
    tensors: dict[str, npt.NDArray[np.float32]], family: str
) -> dict[str, npt.NDArray[np.float32]]:
    """Biases of Qwen2, norms of Qwen3's heads."""
    rng = np.random.default_rng(5)
    extra = {}
    for name, tensor in tensors.items():
        projection = name.split(".")[-2]
        if family == "qwen2" and projection in ("q_proj", "k_proj", "v_proj"):
            extra[name.replace("weight", "bias")] = rng.standard_normal(len(tensor))
        if family == "qwen3" and projection in ("q_proj", "k_proj"):
            extra[name.replace("proj", "norm")] = 1 + 0.2 * rng.standard_normal(32)
    return tensors | {name: array.astype(np.float32) for name, array in extra.items()}


def make_trainer(
    folder: Path, token_map: npt.NDArray[np.int32] | None = None, grounded: bool = False,
    noise: float = 0.05, **options: Any,
) -> _core.JointTrainer:  # fmt: skip
    checkpoint = load_checkpoint(folder)
    config = _core.ModelConfig(**checkpoint.config)
    tensors = {name: as_core(tensor) for name, tensor in checkpoint.tensors.items()}
    options = {
        "compute_type": "float32", "num_threads": 2, "lora_rank": 8,
        "lora_alpha": 16, "lora_dropout": 0.0, "num_heads": 3, "max_rows": 96,
    } | options  # fmt: skip
    trainer = _core.JointTrainer(
        config, tensors, [] if token_map is None else token_map.tolist(), grounded, **options
    )
    rng = np.random.default_rng(11)
    for array in trainer.weights().values():
        array += (noise * rng.standard_normal(array.shape)).astype(np.float32)
    trainer.refresh()
    return trainer


def copies(views: dict[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
    return {name: np.array(array) for name, array in views.items()}


def save_family(folder: Path, family: str) -> Path:
    from tiny_model import CONFIG, random_tensors

    changes = FAMILIES[family]
    tensors = extra_tensors(random_tensors(CONFIG | changes, 3), family)
    return save_model(folder, tensors=tensors, **changes)


def compare(trainer: _core.JointTrainer, twin: JointTwin, batches: list[Any], bound: float) -> None:
    report = trainer.backward([batch.core() for batch in batches])
    loss, backbone = twin.loss(batches)
    loss.backward()
    assert report.loss == pytest.approx(float(loss.detach()), rel=bound)
    assert report.backbone_loss == pytest.approx(backbone, rel=bound)
    for name, gradient in trainer.gradients().items():
        expected = twin.parameters[name].grad.numpy()
        scale = np.abs(expected).max()
        assert scale > 0, name
        assert np.abs(gradient - expected).max() <= bound * scale, name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_model(tmp_path: Path, family: str) -> None:
    folder = save_family(tmp_path, family)
    trainer = make_trainer(folder)
    twin = JointTwin(folder, copies(trainer.weights()), rank=8, alpha=16, num_heads=3)
    rng = np.random.default_rng(0)
    batches = [random_batch(rng, lengths, VOCAB, 3) for lengths in ([40, 7, 30], [90])]
    compare(trainer, twin, batches, 2e-4)


@pytest.mark.parametrize("loss", ["divergence", "cross_entropy"])
@pytest.mark.parametrize(
    ("version", "trimmed", "grounded", "layers"),
    [(1, False, False, 1), (2, True, False, 2), (1, True, True, 1), (2, False, True, 2)],
)
def test_kinds_of_heads(
    tmp_path: Path, version: int, trimmed: bool, grounded: bool, layers: int, loss: str
) -> None:
    folder = save_model(tmp_path)
    token_map = np.arange(3, 130, 3, dtype=np.int32) if trimmed else None
    trainer = make_trainer(
        folder, token_map, grounded, version=version, num_layers=layers, backbone_loss=loss
    )
    twin = JointTwin(
        folder, copies(trainer.weights()), rank=8, alpha=16, num_heads=3, num_layers=layers,
        token_map=token_map, grounded=grounded, backbone_loss=loss,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    compare(trainer, twin, [random_batch(rng, [33, 50], VOCAB, 3, token_map)], 2e-4)


def test_quantised_weights_are_what_they_widen_to(tmp_path: Path) -> None:
    """Over a 4-bit base: the bits of the same model widened before."""
    rng = np.random.default_rng(2)
    folder = save_model(tmp_path)
    checkpoint = load_checkpoint(folder)
    config = _core.ModelConfig(**checkpoint.config)
    wide, narrow = {}, {}
    for name, tensor in checkpoint.tensors.items():
        array = tensor.to_float32()
        if array.ndim == 1:
            wide[name] = narrow[name] = as_core(tensor)
            continue
        blocks = quants.quantize(array, GGMLQuantizationType.Q4_0)
        narrow[name] = (blocks.reshape(-1), "Q4_0", array.shape)
        values = quants.dequantize(blocks, GGMLQuantizationType.Q4_0).astype(np.float32)
        wide[name] = (values, "F32", array.shape)
    batch = random_batch(rng, [40, 50], VOCAB, 2).core()
    for compute in ("float32", "bfloat16"):
        found = []
        for tensors in (wide, narrow):
            trainer = _core.JointTrainer(
                config, tensors, compute_type=compute, num_heads=2, lora_rank=8, max_rows=96,
                lora_dropout=0.1, stages=[{"steps": 3}],
            )  # fmt: skip
            losses = [trainer.step([batch]).loss for _ in range(3)]
            found.append((losses, copies(trainer.weights())))
        assert found[0][0] == found[1][0]
        assert all((found[0][1][name] == found[1][1][name]).all() for name in found[0][1])


def test_bits_depend_neither_on_threads_nor_on_how_documents_are_packed(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    rng = np.random.default_rng(3)
    documents = [random_batch(rng, [length], VOCAB, 3).core() for length in (40, 33)]
    packed = tuple(np.concatenate(parts) for parts in zip(*documents, strict=True))
    gradients = []
    for threads in (1, 3):
        trainer = make_trainer(folder, num_threads=threads, compute_type="bfloat16")
        losses = [trainer.step([packed]).loss for _ in range(2)]
        gradients.append((losses, copies(trainer.weights())))
    assert gradients[0][0] == gradients[1][0]
    assert all((gradients[0][1][n] == gradients[1][1][n]).all() for n in gradients[0][1])
    one, two = (make_trainer(folder).backward(b) for b in ([packed], documents))
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-5)


def test_what_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    trainer = make_trainer(save_model(tmp_path))
    rng = np.random.default_rng(4)
    batches = [random_batch(rng, [20], VOCAB, 3).core() for _ in range(2)]
    trainer.step(batches)
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
    trainer.weights()[name][0, 0] = np.inf
    trainer.refresh()
    before = np.array(trainer.weights()["0.0.linear.weight"])
    with pytest.raises(MedusaError, match="step 2, batch 0 of 2: the loss is"):
        trainer.step(batches)
    assert trainer.num_steps == 1
    assert (trainer.weights()["0.0.linear.weight"] == before).all()


def test_bad_options_and_batches_are_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"target_modules": ["q"]}, "target_modules: expected some of.*found q"),
        ({"stages": [{"steps": 5, "warmup_steps": 5}]}, r"warmup_steps must be in \[0, 5\)"),
        ({"stages": [{"steps": 0}]}, "steps of a stage must be 1 to .* found 0"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"heads_schedule": "cubic"}, "heads_schedule: expected one of.*found cubic"),
        ({"colour": 1}, "unknown option colour"),
    ]
    for options, message in wrong:
        with pytest.raises(InvalidArgument, match=message):
            make_trainer(folder, **options)
    trainer = make_trainer(folder)
    tokens, lengths, lm, heads = random_batch(np.random.default_rng(0), [20], VOCAB, 3).core()
    for batch, message in [
        ((tokens + 400, lengths, lm, heads), "token 0: expected 0 to 319"),
        ((tokens, lengths + 1, lm, heads), "lengths: expected documents of 20"),
        ((tokens, lengths, lm[:-1], heads), "lm_targets: expected 20, found 19"),
        ((tokens, lengths, lm, heads[:, :2].copy()), "head_targets: expected 20"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            trainer.backward([batch])


def test_dropout_is_the_same_on_the_way_back(tmp_path: Path) -> None:
    """Along the gradient, the loss falls by the gradient's squared norm, masks and all."""
    trainer = make_trainer(save_model(tmp_path), lora_dropout=0.3)
    batch = random_batch(np.random.default_rng(6), [40, 20], VOCAB, 3).core()
    plain = make_trainer(tmp_path).backward([batch])
    report = trainer.backward([batch])
    assert abs(report.loss - plain.loss) > 1e-3  # something was dropped
    gradients, start = copies(trainer.gradients()), copies(trainer.weights())
    reach = 0.02 / report.grad_norm**2
    losses = []
    for side in (1, -1):
        for name, array in trainer.weights().items():
            array[...] = start[name] + side * reach * gradients[name]
        trainer.refresh()
        losses.append(trainer.backward([batch]).loss)
    slope = (losses[0] - losses[1]) / (2 * reach)
    assert slope == pytest.approx(report.grad_norm**2, rel=5e-3)


MEASURE = """
import sys
import numpy as np
from medusa_native import _core
from medusa_native.engine import as_core
from medusa_native.loading import load_checkpoint

def resident():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) * 1024

checkpoint = load_checkpoint(sys.argv[1])
config = _core.ModelConfig(**checkpoint.config)
tensors = {name: as_core(tensor) for name, tensor in checkpoint.tensors.items()}
for array, _, _ in tensors.values():
    array.sum()  # mapped pages are the file's
options = dict(num_heads=4, lora_rank=32, max_rows=1024, num_threads=1) | eval(sys.argv[2])
rows = np.arange(1024, dtype=np.int32) % 300
heads = np.stack([rows] * 4, axis=1)
before = resident()
trainer = _core.JointTrainer(config, tensors, **options)
trainer.step([(rows, np.array([1024], np.int32), rows, heads)])
print(resident() - before, _core.joint_memory_estimate(config, 320, False, **options))
"""


ALL_WEIGHTS: dict[str, Any] = {"all_weights": True, "target_modules": []}


@pytest.mark.parametrize(
    "options", [{"version": 1}, {"version": 2}, ALL_WEIGHTS | {"compute_type": "bfloat16"}]
)
def test_the_memory_estimate_is_what_is_used(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = save_model(tmp_path, hidden_size=512, intermediate_size=1024, num_hidden_layers=4)
    command = [sys.executable, "-c", MEASURE, str(folder), repr(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used, estimated = map(int, done.stdout.split())
    assert estimated == pytest.approx(used, rel=0.15)
