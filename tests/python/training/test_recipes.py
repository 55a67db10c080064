"""Recipes: the published numbers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medusa_native import InvalidArgument
from medusa_native.cli import app
from medusa_native.training.recipe import FOLDER, LORA_TARGETS, load_recipe, recipe_names

STAGED = (FOLDER / "medusa-2-vicuna.toml").read_text()


def test_published_numbers() -> None:
    """Paper, sections B.2 to B.4: settings of each run."""
    staged, together = load_recipe("medusa-2-vicuna"), load_recipe("medusa-2-self-distilled")
    assert [stage.trained for stage in staged.stages] == [("heads",), ("heads", "lora")]
    assert [stage.trained for stage in together.stages] == [("heads", "lora")]
    assert staged.batch_tokens == 64 * staged.sequence_length == 64 * 4096
    assert together.batch_tokens == 128 * together.sequence_length == 128 * 2048
    for recipe, rate, warmup in ((staged, 5e-4, 40), (together, 1e-4, 20)):
        assert recipe.lora is not None
        assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout) == (32, 16, 0.05)
        assert set(recipe.lora.targets) == set(LORA_TARGETS)
        assert recipe.heads.learning_rate_multiplier == 4
        assert (recipe.heads.num_heads, recipe.heads.num_layers) == (5, 1)
        assert all(
            (s.epochs, s.learning_rate, s.warmup_steps) == (2, rate, warmup) for s in recipe.stages
        )
    assert (staged.heads_coefficient, staged.heads_schedule) == (0.2, "constant")
    assert (together.heads_coefficient, together.heads_schedule) == (0.01, "sine")
    assert (staged.self_distillation, together.self_distillation) == (False, True)


@pytest.mark.parametrize("name", recipe_names())
def test_a_copy_reads_the_same(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["recipes", name])
    copy = tmp_path / "mine.toml"
    copy.write_text(result.stdout)
    assert result.exit_code == 0
    assert load_recipe(copy) == load_recipe(name)


def test_the_list_names_every_recipe() -> None:
    result = CliRunner().invoke(app, ["recipes"])
    assert [line.split()[0] for line in result.stdout.splitlines()] == recipe_names()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rank = 32 ", "rank = 0 ", r"'lora.rank' must be a whole number in \[1, 4096\], found 0"),
        ("rank = 32 ", "rank = 32.0 ", "'lora.rank' must be a whole number .* found 32.0"),
        ("rank = 32 ", "", "'lora.rank' must be a whole number .* found nothing"),
        ("rank = 32 ", "rnk = 1\nrank = 32 ", "'lora.rnk' is unknown: expected one of rank,"),
        ("alpha = 16", "alpha = nan", r"'lora.alpha' must be a number in \(0, .*, found nan"),
        ("dropout = 0.05", "dropout = 1", r"'lora.dropout' must be a number in \[0, 1\), found 1"),
        ('"lm_head"]', '"lm"]', "'lora.targets' must be a list of distinct names .* found"),
        ("epochs = 2", "epochs = true", "'stages.0..epochs' must be a whole number .* found True"),
        ('["heads", "lora"]', '["lora"]', "'stages.1..trained' must be heads, alone or with"),
        ('["heads", "lora"]', '["heads"]', "'lora' must be left out where no stage trains it"),
        ('schedule = "cosine"', 'schedule = "cosin"', "'stages.0..schedule' must be one of"),
        ("warmup_steps = 40", "warmup_steps = 4\nwarmup_ratio = 0.1", "exclude each other"),
        ("packing = true", "packing = 1", "'packing' must be true or false, found 1"),
        ("packing = true", "pack = true", "'pack' is unknown"),
        ("262144", "100", "'batch_tokens' must be at least 'sequence_length', 4096, found 100"),
        ("seed = 42", "seed = 42\nheads_schedule_fraction = 0.5", "unless 'heads_schedule'"),
        ("[heads]", "[[heads]]", "'heads' must be a table, found"),
        ("[[stages]]", "[stages]", "cannot be read as TOML"),
    ],
)
def test_what_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    assert old in STAGED
    path.write_text(STAGED.replace(old, new, 1))
    with pytest.raises(InvalidArgument, match=message) as error:
        load_recipe(path)
    assert str(path) in str(error.value)


def test_what_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="'nothing': a file or one of medusa-1-"):
        load_recipe("nothing")
    path = tmp_path / "mine.toml"
    for content in (b"\xff", b"a = " + b"[" * 100_000, b"#" * (2 << 20), b"a"):
        path.write_bytes(content)
        with pytest.raises(InvalidArgument, match=r"mine\.toml"):
            load_recipe(path)
