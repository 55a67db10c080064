"""Heads that ship for a model: found by fingerprint, or by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_adapter import save_adapter
from tiny_model import save_heads

from medusa_native import Decoder, InvalidArgument
from medusa_native.heads import fingerprint
from medusa_native.loading import load_checkpoint


def test_shipped_heads_are_found_by_fingerprint(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fingerprint(load_checkpoint(model))
    save_heads(tmp_path / "other", base_model_fingerprint="0" * 16)
    save_heads(tmp_path / "tiny", base_model_fingerprint=own, medusa_choices=[[0], [1], [0, 0]])
    monkeypatch.setattr("medusa_native.heads.SHIPPED", tmp_path)
    info = Decoder(model, heads="auto").info()
    assert info["tree"] == {"nodes": 4, "depth": 2, "adaptive": False}


def test_one_of_several_shipped_sets_is_the_default_and_each_has_a_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fingerprint(load_checkpoint(model))
    save_heads(tmp_path / "a", base_model_fingerprint=own, medusa_choices=[[0]])
    save_heads(
        tmp_path / "b", grounded=True, base_model_fingerprint=own, medusa_choices=[[0], [1]],
        shipped_default=True,
    )  # fmt: skip
    save_heads(tmp_path / "c", base_model_fingerprint=own, medusa_choices=[[0], [1], [2]])
    monkeypatch.setattr("medusa_native.heads.SHIPPED", tmp_path)

    def loaded(heads: str) -> tuple[int, bool]:
        info = Decoder(model, heads).info()
        return info["tree"]["nodes"], info["heads"]["grounded"]

    assert [loaded(name) for name in ("auto", "a", "b", "c")] == [
        (3, True),
        (2, False),
        (3, True),
        (4, False),
    ]
    with pytest.raises(InvalidArgument, match="d: no such file or folder"):
        Decoder(model, "d")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    save_heads(tmp_path / "here/a", num_heads=2, medusa_choices=[[0]])
    assert Decoder(model, "a").info()["heads"]["num_heads"] == 2  # a path comes before a name


def test_a_shipped_set_with_an_adapter_names_both(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fingerprint(load_checkpoint(model))
    save_heads(tmp_path / "alone", base_model_fingerprint=own)
    save_heads(tmp_path / "both", base_model_fingerprint=own, medusa_adapter="lora")
    save_adapter(tmp_path / "both/lora", model)
    monkeypatch.setattr("medusa_native.heads.SHIPPED", tmp_path)
    info = Decoder(model, heads="both", adapter="both").info()
    assert info["adapter"]["path"] == str(tmp_path / "both/lora")
    with pytest.warns(UserWarning, match="both: these heads were trained together with an adapter"):
        Decoder(model, heads="both")
    with pytest.raises(InvalidArgument, match="set with an adapter expected, found alone: heads"):
        Decoder(model, adapter="alone")
