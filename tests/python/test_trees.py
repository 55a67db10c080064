"""From medusa_choices to a tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medusa_native import InvalidArgument, SpeculativeConfig, _core
from medusa_native.trees import DEFAULT_TREE, NODES_THAT_PAY, choose_tree, usual_nodes


def paths(num_heads: int = 4, stored: Any = None, **config: Any) -> list[tuple[int, ...]]:
    tree = choose_tree(SpeculativeConfig(**config), num_heads, stored)
    return [tuple(path) for path in tree.paths]


def test_auto_is_a_stock_tree_cut_to_the_heads() -> None:
    stock = {tuple(path) for path in _core.Tree.stock_paths(DEFAULT_TREE)}
    assert set(paths(4)) == stock
    assert set(paths(2)) == {path for path in stock if len(path) <= 2}


def test_auto_prefers_the_tree_stored_with_the_heads() -> None:
    assert paths(2, stored=[[0], [0, 0], [1], [0, 0, 0]]) == [(0,), (1,), (0, 0)]
    with pytest.raises(InvalidArgument, match="medusa_choices"):
        paths(2, stored={"tree": 1})


def test_usual_nodes() -> None:
    for isa, (plain, in_blocks) in NODES_THAT_PAY.items():
        assert usual_nodes(isa, {"Q8_0": 5, "BF16": 9}) == plain
        assert usual_nodes(isa, {"Q4_1": 9, "BF16": 5}) == in_blocks
    assert usual_nodes("sve", {"BF16": 1}) is None


@pytest.mark.parametrize("nodes", [2, 5, 30])
def test_auto_has_no_more_nodes_than_pay(nodes: int) -> None:
    best_first = _core.Tree.stock_paths(DEFAULT_TREE)
    tree = choose_tree(SpeculativeConfig(), 4, None, nodes)
    assert sorted(tree.paths) == sorted(best_first[: nodes - 1])
    assert choose_tree(SpeculativeConfig(max_total_draft_tokens=20), 4, None, nodes).size == 21
    named = SpeculativeConfig(medusa_choices=DEFAULT_TREE)
    assert choose_tree(named, 4, None, nodes).size == 64


def test_nothing_pays() -> None:
    assert choose_tree(SpeculativeConfig(), 4, None, 1).size == 1
    shallow = choose_tree(SpeculativeConfig(num_speculative_tokens=1), 4, None, 5)
    assert sorted(shallow.paths) == [[0], [1], [2], [3]]


def test_chain() -> None:
    assert paths(3, medusa_choices="chain") == [(0,), (0, 0), (0, 0, 0)]
    assert paths(3, medusa_choices="chain", num_speculative_tokens=1) == [(0,)]
    assert paths(3, medusa_choices="chain", max_total_draft_tokens=2) == [(0,), (0, 0)]


@pytest.mark.parametrize("name", _core.Tree.stock_names())
def test_stock_names(name: str) -> None:
    assert len(paths(4, medusa_choices=name)) == len(_core.Tree.stock_paths(name))


def test_a_list_and_a_json_file(tmp_path: Path) -> None:
    choices = [[0], [1], [0, 1]]
    file = tmp_path / "tree.json"
    for content in (choices, {"medusa_choices": choices}):
        file.write_text(json.dumps(content))
        assert paths(medusa_choices=file) == paths(medusa_choices=str(file))
        assert paths(medusa_choices=file) == paths(medusa_choices=choices)


def test_limits() -> None:
    best_first = _core.Tree.stock_paths(DEFAULT_TREE)
    assert set(paths(4, max_total_draft_tokens=10)) == {tuple(p) for p in best_first[:10]}
    assert max(map(len, paths(4, num_speculative_tokens=2))) == 2
    orphan_first = [[0, 0], [0], [1]]
    assert paths(4, medusa_choices=orphan_first, max_total_draft_tokens=2) == [(0,), (1,)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"medusa_choices": "mc_sim_8b"}, "medusa_choices.*mc_sim_7b_63"),
        ({"medusa_choices": "missing.json"}, "missing.json"),
        ({"medusa_choices": [[0, 0]]}, r"\[0, 0\]|path"),
        ({"medusa_choices": [[0], [0]]}, "twice"),
        ({"medusa_choices": [[0], [0, 0], [0, 0, 0]]}, "3 deep, found 2 heads"),
        ({"medusa_choices": DEFAULT_TREE}, "4 deep, found 2 heads"),
        ({"num_speculative_tokens": 3}, "num_speculative_tokens is 3, found 2 heads"),
    ],
)
def test_trees_that_cannot_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        paths(2, **config)


def test_a_file_that_is_no_tree(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    for content in ("{", "{}", "[1]", "[[null]]"):
        file.write_text(content)
        with pytest.raises(InvalidArgument, match="medusa_choices"):
            paths(medusa_choices=file)
