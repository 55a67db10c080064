"""Files matter while they are loaded, and no longer: afterwards nothing reads or maps them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loading.tiny_files import GgufRecipe, write_gguf
from safetensors.numpy import load_file
from tiny_model import CONFIG, random_tensors, save_heads, save_model

from medusa_native import Decoder, SamplingParams

PARAMS = SamplingParams(max_tokens=24, ignore_eos=True)


def as_pickle(path: Path, name: str) -> Path:
    """Put a torch file in the place of a safetensors file."""
    target = path.with_name(name)
    torch.save({key: torch.from_numpy(value) for key, value in load_file(path).items()}, target)
    path.unlink()
    return target


@pytest.fixture(params=["gguf", "safetensors", "bin"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A model and its file of weights."""
    if request.param == "gguf":
        path = write_gguf(tmp_path / "tiny.gguf", GgufRecipe(dtype="Q8_0"))
        return path, path
    folder = save_model(tmp_path / "model")
    path = folder / "model.safetensors"
    return folder, path if request.param == "safetensors" else as_pickle(path, "pytorch_model.bin")


def mapped_files() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}


def cut(path: Path) -> None:
    """Shorten the file itself: whoever still reads a map of it dies of SIGBUS."""
    with path.open("r+b") as file:
        file.truncate(0)


def test_a_model_file_cut_after_loading(backbone: tuple[Path, Path]) -> None:
    model, weights = backbone
    expected = Decoder(model).generate([1, 2, 3], PARAMS)[0].outputs
    decoder = Decoder(model)
    assert str(weights) not in mapped_files()
    cut(weights)
    assert decoder.generate([1, 2, 3], PARAMS)[0].outputs == expected


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_heads_file_cut_after_loading(
    model: Path, plain: Decoder, tmp_path: Path, suffix: str, version: int
) -> None:
    path = save_heads(tmp_path, version=version) / "medusa_lm_head.safetensors"
    path = path if suffix == "safetensors" else as_pickle(path, "medusa_lm_head.pt")
    decoder = Decoder(model, tmp_path)
    assert str(path) not in mapped_files()
    cut(path)
    (output,) = decoder.generate("cut", PARAMS)
    assert output.outputs == plain.generate("cut", PARAMS)[0].outputs
    assert output.metrics.num_draft_tokens > 0


def test_a_model_that_was_refused_is_not_mapped(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG, 0)
    tensors["model.layers.1.mlp.down_proj.weight"][5, 7] = float("nan")
    folder = save_model(tmp_path, tensors=tensors)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj.*NaN"):
        Decoder(folder)
    assert str(folder / "model.safetensors") not in mapped_files()
