"""Where tunings are kept, and what is refused."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tiny_model import CONFIG, save_heads

from medusa_native import ModelFormatError
from medusa_native.loading import HeadsCheckpoint, load_heads
from medusa_native.tuning import store
from medusa_native.tuning.adaptive import forward_seconds
from medusa_native.tuning.record import (
    DeviceKey,
    DeviceTuning,
    PathTable,
    StepCost,
    Tuning,
    best_size,
    parse,
)

KEY = DeviceKey("cpu (avx2, 4 threads)", "A processor", "bfloat16", "Q4_1")
TABLE = PathTable(((0,), (1,), (0, 0)), (0.5, 0.25, 0.2), (1.0, 1.5, 1.7, 1.9), 100)
COST = StepCost(512, 1, (1, 2, 4), (0.010, 0.011, 0.020))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def heads(tmp_path: Path) -> HeadsCheckpoint:
    folder = save_heads(tmp_path / "heads")
    return load_heads(folder, CONFIG["hidden_size"], CONFIG["vocab_size"])


def tuning(heads: HeadsCheckpoint, key: DeviceKey = KEY, nodes: int = 2) -> Tuning:
    device = DeviceTuning(key, nodes, 512, (COST,))
    return Tuning(store.heads_fingerprint(heads), TABLE, (device,))


def test_what_was_stored_is_found(heads: HeadsCheckpoint) -> None:
    assert store.find_tuning(heads) is None
    path = store.store_tuning(tuning(heads), heads, shipped=False)
    assert path == heads.path.parent / "tuning.json"
    assert store.find_tuning(heads) == tuning(heads)


def test_heads_that_ship_are_tuned_in_the_cache(heads: HeadsCheckpoint) -> None:
    path = store.store_tuning(tuning(heads), heads, shipped=True)
    assert path == store.cached_path(store.heads_fingerprint(heads))
    assert not (heads.path.parent / "tuning.json").exists()
    assert store.find_tuning(heads) == tuning(heads)


def test_the_users_own_comes_first(heads: HeadsCheckpoint) -> None:
    store.store_tuning(tuning(heads, nodes=2), heads, shipped=False)
    store.store_tuning(tuning(heads, nodes=3), heads, shipped=True)
    found = store.find_tuning(heads)
    assert found is not None
    assert found.devices[0].nodes == 3


def test_a_folder_that_cannot_be_written(
    heads: HeadsCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    writable = os.access
    closed = heads.path.parent
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and writable(path, mode))
    path = store.store_tuning(tuning(heads), heads, shipped=False)
    assert path == store.cached_path(store.heads_fingerprint(heads))


def test_devices_live_side_by_side(heads: HeadsCheckpoint) -> None:
    other = DeviceKey("cpu (amx, 8 threads)", "Another", "bfloat16", "Q4_1")
    store.store_tuning(tuning(heads), heads, shipped=False)
    store.store_tuning(tuning(heads, other, 4), heads, shipped=False)
    store.store_tuning(tuning(heads, KEY, 1), heads, shipped=False)
    found = store.find_tuning(heads)
    assert found is not None
    assert {device.key: device.nodes for device in found.devices} == {KEY: 1, other: 4}
    chosen = found.for_device(other)
    assert chosen is not None
    assert chosen.nodes == 4
    assert found.for_device(DeviceKey("cpu", "", "", "")) is None


def test_other_heads_are_told_apart(heads: HeadsCheckpoint, tmp_path: Path) -> None:
    folder = save_heads(tmp_path / "others", seed=9)
    others = load_heads(folder, CONFIG["hidden_size"], CONFIG["vocab_size"])
    path = store.store_tuning(tuning(heads), heads, shipped=False)
    (folder / "tuning.json").write_text(path.read_text())
    with pytest.warns(UserWarning, match="belongs to other heads"):
        assert store.find_tuning(others) is None


def test_a_damaged_file_is_passed_over(heads: HeadsCheckpoint) -> None:
    path = store.store_tuning(tuning(heads), heads, shipped=False)
    path.write_text(path.read_text()[:-20])
    with pytest.warns(UserWarning, match=r"tuning\.json: cannot be read"):
        assert store.find_tuning(heads) is None
    store.store_tuning(tuning(heads), heads, shipped=False)
    assert store.find_tuning(heads) == tuning(heads)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, '{"heads": 1, "heads": 2}'])
def test_json_that_nobody_writes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(text)
    with pytest.raises(ModelFormatError, match=r"tuning\.json: cannot be read: "):
        store.read_tuning(path, 3)


def changed(*route: Any, to: Any) -> Any:
    def change(value: dict[str, Any]) -> None:
        for key in route[:-1]:
            value = value[key]
        value[route[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("format", to=2), "format: expected 1, found 2"),
        (lambda v: v.pop("heads"), "'heads' is missing"),
        (changed("table", to=[]), "not a tuning"),
        (changed("table", "paths", 0, to=[0, 0, 0, 0]), "at most 3 ranks"),
        (changed("table", "paths", 1, to=[0]), "no new path"),
        (changed("table", "paths", 0, to=[5]), r"\[0, 0\] comes before \[0\]"),
        (changed("table", "paths", 0, to=[-1]), "paths: expected 0 to 2147483647, found -1"),
        (changed("table", "paths", 1, to=[2**31]), "paths: expected 0 to 2147483647"),
        (changed("table", "num_rows", to=float("inf")), "not a tuning"),
        (changed("table", "probabilities", to=[0.5]), "differ in number"),
        (changed("table", "probabilities", 0, to=float("nan")), "positive numbers"),
        (changed("table", "probabilities", 0, to=10**400), "not a tuning"),
        (changed("devices", 0, "nodes", to=5), "nodes: expected 1 to 4, found 5"),
        (changed("devices", 0, "key", "color", to="red"), "color"),
        (changed("devices", 0, "context", to=64), "costs: none of one sequence at context 64"),
        (changed("devices", 0, "costs", 0, "batch", to=10**9), "batch: expected 1 to 4096"),
        (changed("devices", 0, "costs", 0, "nodes", 2, to=10**9), "nodes: expected 1 to 256"),
        (changed("devices", 0, "costs", 0, "nodes", to=[2, 1, 4]), "ascend"),
        (changed("devices", 0, "costs", 0, "seconds", 0, to=-1), "positive numbers"),
        (changed("devices", 0, "costs", 0, "seconds", to=[1.0]), "ascend"),
    ],
)
def test_every_field_is_checked(heads: HeadsCheckpoint, change: Any, message: str) -> None:
    value = json.loads(json.dumps(tuning(heads).to_dict()))
    assert parse("file", copy.deepcopy(value), 3) == tuning(heads)
    change(value)
    with pytest.raises(ModelFormatError, match=f"file: .*{message}"):
        parse("file", value, 3)


def test_no_object_is_no_tuning() -> None:
    with pytest.raises(ModelFormatError, match="file: expected an object"):
        parse("file", [1], 3)


def test_cost_between_sizes() -> None:
    assert COST.at(2) == 0.011
    assert COST.at(3) == pytest.approx(0.0155)
    with pytest.raises(ValueError, match="1 to 4 nodes, asked for 5"):
        COST.at(5)


def test_the_fastest_size_is_not_the_largest() -> None:
    assert best_size(COST, TABLE.tokens_per_step) == 2
    flat = StepCost(512, 1, (1, 2, 4), (0.01, 0.01, 0.01))
    assert best_size(flat, TABLE.tokens_per_step) == 4
    assert best_size(flat, (1.0, 1.0, 1.0, 1.0)) == 1


def test_forward_seconds_leave_the_heads_out() -> None:
    """Rows cost 1 each beside 10 for any step, a head 3."""

    def cost(batch: int, sizes: tuple[int, ...]) -> StepCost:
        heads = {1: 0, 2: 1, 3: 1, 4: 2}
        return StepCost(512, batch, sizes, tuple(10.0 + batch * n + 3 * heads[n] for n in sizes))

    costs = [cost(1, (1, 2, 3, 4)), cost(2, (1, 2)), cost(8, (1,)), StepCost(64, 1, (1,), (9.0,))]
    found = forward_seconds(costs, TABLE.paths, 512)
    assert found == pytest.approx([10 + rows for rows in range(1, 9)])


def test_forward_seconds_of_one_sequence_alone() -> None:
    assert forward_seconds([COST], TABLE.paths, 512) == pytest.approx([0.01, 0.011, 0.0155, 0.02])
