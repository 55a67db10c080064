"""LoRA adapters: what is computed with one, against weights merged by hand and by PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_adapter import LINEAR, merged_by_hand, random_factors, save_adapter
from tiny_model import CONFIG, random_heads, random_tensors, save_heads, save_model

from medusa_native import Decoder, SamplingParams
from medusa_native.engine import load_adapted, load_model
from medusa_native.loading import AdapterConfig, HostTensor, load_checkpoint, write_adapter

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS = [(7 * i * i + 3) % 250 for i in range(40)]


def logits(model: Path, adapter: Path | None = None, dtype: str = "float32") -> Any:
    checkpoint, _ = load_adapted(model, adapter, dtype)
    return load_model(checkpoint, dtype, 1).logits(TOKENS, [len(TOKENS)])


def require_near(found: Any, expected: Any, bound: float) -> None:
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", [LINEAR, ("q_proj", "v_proj"), ("lm_head",)])
def test_weights_merged_by_hand(tmp_path: Path, targets: tuple[str, ...], tied: bool) -> None:
    model = save_model(tmp_path / "model", tie_word_embeddings=tied)
    adapter = save_adapter(tmp_path / "adapter", model, targets)
    tensors = random_tensors(CONFIG | {"tie_word_embeddings": tied}, 0)
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    factors = random_factors(load_checkpoint(model).config, targets)
    by_hand = save_model(tmp_path / "merged", tensors=merged_by_hand(tensors, factors, 2.0 / 4))
    found = logits(model, adapter)
    require_near(found, logits(by_hand), 1e-5)
    assert np.abs(found - logits(model)).max() > 0.1 * np.abs(found).max()


def test_a_gguf_holds_queries_and_keys_interleaved(
    gguf: Callable[..., Path], tmp_path: Path
) -> None:
    """The same adapter on a GGUF and on the folder it is a copy of."""
    path = gguf(dtype="Q8_0")
    adapter = save_adapter(tmp_path / "adapter", path)
    folder = hugging_face_copy(path, tmp_path / "folder")
    require_near(logits(path), logits(folder), 1e-5)
    require_near(logits(path, adapter), logits(folder, adapter), 1e-5)


def hugging_face_copy(path: Path, folder: Path) -> Path:
    """Write a tiny GGUF's weights as a folder; halves of heads are put apart again."""
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    tensors = {name: tensor.to_float32() for name, tensor in checkpoint.tensors.items()}
    for name, tensor in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            pairs = tensor.reshape(-1, config["head_dim"] // 2, 2, tensor.shape[1])
            tensors[name] = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(tensor.shape)
    sizes = {key: config[key] for key in CONFIG if key in config}
    return save_model(folder, tensors=tensors, **sizes)


@pytest.mark.parametrize(
    ("target", "moved"),
    [("down_proj", 2 * 96 * 64), ("v_proj", 2 * 32 * 64), ("up_proj", 2 * 2 * 96 * 64)],
)
def test_weights_that_an_adapter_leaves_stay_in_blocks(
    gguf: Callable[..., Path], tmp_path: Path, target: str, moved: int
) -> None:
    """Of two layers; gate and up are one matrix, and go together."""
    path = gguf(dtype="Q8_0")
    adapter = save_adapter(tmp_path / "adapter", path, (target,), rank=2)
    plain, adapted = Decoder(path).info(), Decoder(path, adapter=adapter).info()
    assert adapted["weight_formats"]["Q8_0"] == plain["weight_formats"]["Q8_0"] - moved
    assert plain["adapter"] is None
    assert adapted["adapter"] == {
        "path": str(adapter),
        "rank": 2,
        "alpha": 2.0,
        "adapted_weights": 2,
        "replaced_weights": [],
    }


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_medusa_is_plain(
    model: Path, heads: Path, tmp_path: Path, dtype: str, temperature: float
) -> None:
    adapter = save_adapter(tmp_path / "adapter", model)
    params = SamplingParams(max_tokens=64, temperature=temperature, ignore_eos=True)
    prompts = [TOKENS[:n] for n in (1, 5, 20)]
    plain = Decoder(model, adapter=adapter, dtype=dtype).generate(prompts, params)
    medusa = Decoder(model, heads, adapter=adapter, dtype=dtype).generate(prompts, params)
    without = Decoder(model, dtype=dtype).generate(prompts, params)
    assert answers(plain) == answers(medusa) != answers(without)


def answers(outputs: Any) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def test_medusa_is_plain_in_blocks(gguf: Callable[..., Path], tmp_path: Path) -> None:
    path = gguf(dtype="Q8_0")
    config = load_checkpoint(path).config
    adapter = save_adapter(tmp_path / "adapter", path, ("q_proj", "up_proj", "lm_head"))
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    tensors = {
        name: tensor[:vocab, :hidden] if name.endswith("1.weight") else resized(tensor, hidden)
        for name, tensor in random_heads(3, 1, 1).items()
    }
    heads = save_heads(tmp_path / "heads", tensors=tensors)
    params = SamplingParams(max_tokens=48, ignore_eos=True)
    prompts = [TOKENS[:n] for n in (1, 5, 20)]
    plain = Decoder(path, adapter=adapter).generate(prompts, params)
    assert answers(plain) == answers(
        Decoder(path, heads, adapter=adapter).generate(prompts, params)
    )


def resized(tensor: npt.NDArray[np.float32], hidden: int) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(tensor[tuple(slice(hidden) for _ in tensor.shape)])


def test_scales_and_patterns() -> None:
    """PEFT 0.21: the first pattern counts that fits the last parts of a name, or all of it."""
    config = AdapterConfig(
        rank=4,
        alpha=8.0,
        targets=("q_proj",),
        rank_pattern={"q_proj": 2, "layers.1.self_attn.k_proj": 16},
        alpha_pattern={"^model.layers.0.self_attn.k_proj": 1.0, "proj": 5.0},
    )
    assert config.scale_of("model.layers.0.self_attn.q_proj") == 8.0 / 2
    assert config.scale_of("model.layers.1.self_attn.k_proj") == 8.0 / 16
    assert config.scale_of("model.layers.11.self_attn.k_proj") == 8.0 / 4
    assert config.scale_of("model.layers.0.self_attn.k_proj") == 1.0 / 4
    assert AdapterConfig(4, 8.0, (), use_rslora=True).scale_of("lm_head") == 8.0 / 2


# PEFT

PEFT_SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "all": {"target_modules": list(LINEAR)},
    "regex": {"target_modules": r".*\.(up|down)_proj"},
    "rslora": {"target_modules": ["o_proj"], "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "k_proj", "up_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "^model.layers.0.mlp.up_proj": 9},
        "alpha_pattern": {"k_proj": 3, "^model.layers.0.mlp.up_proj": 20},
    },
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "input_layernorm"]},
}


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft")


def transformers_model(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def torch_logits(model: Any) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        found: npt.NDArray[np.float32] = model(torch.tensor([TOKENS])).logits[0].numpy()
    return found


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("settings", PEFT_SETTINGS)
def test_peft_and_this_package_agree(peft: Any, tmp_path: Path, settings: str, tied: bool) -> None:
    """An adapter that PEFT made and saved: its own logits in float32, and ours."""
    folder = save_model(tmp_path / "model", tie_word_embeddings=tied)
    options = {"r": 4, "lora_alpha": 6, "init_lora_weights": False}
    config = peft.LoraConfig(**options | PEFT_SETTINGS[settings])
    torch.manual_seed(1)
    model = peft.get_peft_model(transformers_model(folder), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".modules_to_save." in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "adapter")
    expected = torch_logits(model)
    found = logits(folder, tmp_path / "adapter")
    require_near(found, expected, 1e-5)
    assert np.abs(found - logits(folder)).max() > 0.01 * np.abs(found).max()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_peft_reads_what_is_written(peft: Any, model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model)
    adapted = peft.PeftModel.from_pretrained(transformers_model(model), adapter).eval()
    require_near(logits(model, adapter), torch_logits(adapted), 1e-5)
    require_near(logits(model, adapter), torch_logits(adapted.merge_and_unload()), 1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_peft_writes_the_same_names_and_shapes(peft: Any, model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "ours", model)
    reread = peft.PeftModel.from_pretrained(transformers_model(model), adapter)
    reread.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    name = "adapter_model.safetensors"
    ours, theirs = load_file(adapter / name), load_file(tmp_path / "theirs" / name)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_a_pickle_reads_the_same(model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model)
    expected = logits(model, adapter)
    path = adapter / "adapter_model.safetensors"
    state = {name: torch.from_numpy(tensor) for name, tensor in load_file(path).items()}
    path.unlink()
    torch.save(state, adapter / "adapter_model.bin")
    assert np.array_equal(logits(model, adapter), expected)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_factors_in_16_bits(model: Path, tmp_path: Path, dtype: str) -> None:
    from medusa_native.loading.casting import cast

    factors = random_factors(load_checkpoint(model).config, ("q_proj",))
    stored = {
        module: tuple(cast(module, HostTensor.from_array(f), dtype) for f in pair)
        for module, pair in factors.items()
    }
    widened = {module: tuple(f.to_float32() for f in pair) for module, pair in stored.items()}
    config = AdapterConfig(4, 2.0, ("q_proj",))
    write_adapter(tmp_path / "a", stored, config)  # type: ignore[arg-type]
    write_adapter(tmp_path / "b", widened, config)  # type: ignore[arg-type]
    assert np.array_equal(logits(model, tmp_path / "a"), logits(model, tmp_path / "b"))
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.filterwarnings("ignore:.*LoRA:UserWarning")
def test_heads_and_adapter_in_one_file(model: Path, heads: Path, tmp_path: Path) -> None:
    """What Medusa-2 trained with PEFT leaves: heads as modules_to_save, beside LoRA."""
    adapter = save_adapter(tmp_path / "adapter", model)
    both = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in load_file(heads / "medusa_lm_head.safetensors").items():
        both[f"base_model.model.medusa_head.{name}"] = tensor
    expected = logits(model, adapter)
    save_file(both, adapter / "adapter_model.safetensors")
    assert np.array_equal(logits(model, adapter), expected)
    decoder = Decoder(model, adapter, adapter=adapter)
    assert decoder.info()["heads"]["num_heads"] == 3
    params = SamplingParams(max_tokens=32, ignore_eos=True)
    plain = Decoder(model, adapter=adapter).generate([TOKENS], params)
    assert answers(decoder.generate([TOKENS], params)) == answers(plain)
