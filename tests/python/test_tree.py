"""Stock trees against the buffers of the reference implementation, by hash."""

from __future__ import annotations

import hashlib
import json

import pytest

from medusa_native import _core

# sha256[:12] of compact JSON of tree_indices, position_ids, mask, retrieve_indices as
# generate_medusa_buffers (FasterDecoding/Medusa) makes them with TOPK = 10.
REFERENCE = {
    "mc_sim_7b_63": ("4eeeedca270a", "aa81ca6c96cc", "f4b16b806290", "be550fdc4df7"),
    "vicuna_7b_stage1": ("00f35b61f40c", "21efd80396ab", "b722b14a9473", "cc0cf3564c3a"),
    "vicuna_7b_stage1_ablation": ("962a9e65f287", "b54c831754c0", "c0891f93baac", "a6da989e1d0f"),
    "vicuna_7b_stage2": ("1ee77974fb83", "b7af8ea5ee48", "db0b06d5ddb8", "b44711ef4733"),
    "vicuna_13b_stage1": ("23be96c40e26", "e0a90e725025", "2907b8989a39", "69333d2d51ef"),
    "vicuna_13b_stage2": ("5915bfa016f7", "8a923f5e33de", "12d0741763b8", "4edd772baa84"),
    "vicuna_33b_stage1": ("1c0cebcf4b38", "05bb7562706d", "d6c253667e5e", "8cdb4d685f54"),
    "vicuna_33b_stage2": ("2bba9614b6f1", "2cf50abd930a", "92c83414ef01", "26ab0191feab"),
    "zephyr_stage2": ("8cee750e453d", "81b4ba73c19e", "028fad02c3c1", "137349c88db4"),
}


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", REFERENCE)
def test_stock_tree_has_the_reference_buffers(name: str) -> None:
    tree = _core.Tree.stock(name)
    assert (
        digest(tree.tree_indices(10)),
        digest(tree.depths),
        digest(tree.attention_mask()),
        digest(tree.retrieve_indices()),
    ) == REFERENCE[name]


def test_all_stock_trees_are_checked() -> None:
    assert sorted(_core.Tree.stock_names()) == sorted(REFERENCE)
