"""What tuning found: the paths of given heads, and what their trees cost and pay on devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medusa_native.errors import InvalidArgument, ModelFormatError

FORMAT = 1


@dataclass(frozen=True)
class StepCost:
    """Median seconds of a step of `batch` sequences, each with a tree of so many nodes.

    Attributes
    ----------
    context
        Positions in the cache of each sequence, within a quarter.
    nodes, seconds
        Ascending sizes, root included, and what a step costs with each. One node is plain
        decoding: no heads run.
    """

    context: int
    batch: int
    nodes: tuple[int, ...]
    seconds: tuple[float, ...]

    def at(self, nodes: int) -> float:
        """Seconds of a step, between measured sizes on a straight line."""
        if not self.nodes[0] <= nodes <= self.nodes[-1]:
            raise InvalidArgument(
                f"step cost: measured for {self.nodes[0]} to {self.nodes[-1]} nodes, asked for "
                f"{nodes}"
            )
        above = next(i for i, n in enumerate(self.nodes) if n >= nodes)
        if self.nodes[above] == nodes:
            return self.seconds[above]
        low, high = self.nodes[above - 1], self.nodes[above]
        share = (nodes - low) / (high - low)
        return self.seconds[above - 1] * (1 - share) + self.seconds[above] * share


@dataclass(frozen=True)
class DeviceKey:
    """What a step's cost depends on, besides model and heads.

    Attributes
    ----------
    device
        As the core names it: kind, instruction set and threads.
    processor
        The processor's own name.
    dtype
        Compute type.
    weight_format
        Type in which most weights are kept in memory.
    """

    device: str
    processor: str
    dtype: str
    weight_format: str


@dataclass(frozen=True)
class PathTable:
    """Paths of ranks, best first, and the probability of each; the same on every device.

    Attributes
    ----------
    tokens_per_step
        ``[n - 1]``: of a tree of n nodes, replayed over the answers.
    num_rows
        Positions that were looked at.
    """

    paths: tuple[tuple[int, ...], ...]
    probabilities: tuple[float, ...]
    tokens_per_step: tuple[float, ...]
    num_rows: int


@dataclass(frozen=True)
class DeviceTuning:
    """The tree that pays on one device, and the measurements behind the choice."""

    key: DeviceKey
    nodes: int
    context: int
    costs: tuple[StepCost, ...]


@dataclass(frozen=True)
class Tuning:
    """All that is stored for one set of heads."""

    heads: str
    table: PathTable
    devices: tuple[DeviceTuning, ...]

    def for_device(self, key: DeviceKey) -> DeviceTuning | None:
        """Return what was measured on this device, if anything was."""
        return next((device for device in self.devices if device.key == key), None)

    def with_device(self, device: DeviceTuning) -> Tuning:
        """Return this tuning with `device` in the place of an earlier one of the same key."""
        others = [d for d in self.devices if d.key != device.key]
        return Tuning(self.heads, self.table, (*others, device))

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, ready for JSON."""
        return {"format": FORMAT, **asdict(self)}


def speeds(cost: StepCost, tokens_per_step: Sequence[float]) -> list[tuple[int, float]]:
    """Tokens a second of all sequences together, for each measured size of tree."""
    return [
        (nodes, cost.batch * tokens_per_step[nodes - 1] / seconds)
        for nodes, seconds in zip(cost.nodes, cost.seconds, strict=True)
    ]


def best_size(cost: StepCost, tokens_per_step: Sequence[float]) -> int:
    """Nodes of the fastest tree; the smaller one on ties."""
    return max(speeds(cost, tokens_per_step), key=lambda entry: (entry[1], -entry[0]))[0]


def parse(where: str, value: Any, max_depth: int) -> Tuning:
    """Return what `to_dict` gave.

    Raises
    ------
    ModelFormatError
        `value` is anything else; the message names `where` and the field.
    """
    found = _object(where, value)
    if found.get("format") != FORMAT:
        raise ModelFormatError(f"{where}: format: expected {FORMAT}, found {found.get('format')!r}")
    try:
        table = _table(found["table"], max_depth)
        devices = tuple(_device(device, len(table.paths) + 1) for device in found["devices"])
        return Tuning(str(found["heads"]), table, devices)
    except KeyError as error:
        raise ModelFormatError(f"{where}: field {error} is missing") from error
    except (TypeError, ValueError, OverflowError, InvalidArgument) as error:
        raise ModelFormatError(f"{where}: not a tuning: {error}") from error


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ModelFormatError(f"{where}: expected an object, found {value!r:.60}")
    return value


def _table(value: Any, max_depth: int) -> PathTable:
    paths = tuple(tuple(_whole("paths", r, 0, 2**31 - 1) for r in path) for path in value["paths"])
    table = PathTable(
        paths,
        tuple(_positive("probabilities", p) for p in value["probabilities"]),
        tuple(_positive("tokens_per_step", t) for t in value["tokens_per_step"]),
        int(value["num_rows"]),
    )
    seen: set[tuple[int, ...]] = {()}
    for path in paths:
        if not path or len(path) > max_depth or path in seen:
            raise ValueError(f"paths: {list(path)} is no new path of at most {max_depth} ranks")
        if path[:-1] not in seen:
            raise ValueError(f"paths: {list(path)} comes before {list(path[:-1])}")
        seen.add(path)
    if not len(paths) == len(table.probabilities) == len(table.tokens_per_step) - 1:
        raise ValueError("paths, probabilities and tokens_per_step differ in number")
    return table


def _device(value: Any, max_nodes: int) -> DeviceTuning:
    costs = tuple(
        StepCost(
            int(cost["context"]),
            _whole("batch", cost["batch"], 1, 4096),
            tuple(_whole("nodes", n, 1, 256) for n in cost["nodes"]),
            tuple(_positive("seconds", s) for s in cost["seconds"]),
        )
        for cost in value["costs"]
    )
    for cost in costs:
        ascending = all(a < b for a, b in zip(cost.nodes, cost.nodes[1:], strict=False))
        if not cost.nodes or not ascending or len(cost.nodes) != len(cost.seconds):
            raise ValueError("costs: nodes must ascend, and each needs its seconds")
    nodes, context = _whole("nodes", value["nodes"], 1, max_nodes), int(value["context"])
    if not any(cost.context == context and cost.batch == 1 for cost in costs):
        raise ValueError(f"costs: none of one sequence at context {context}")
    return DeviceTuning(DeviceKey(**value["key"]), nodes, context, costs)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    number = int(value)
    if not low <= number <= high:
        raise ValueError(f"{name}: expected {low} to {high}, found {number}")
    return number


def _positive(name: str, value: Any) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{name}: expected positive numbers, found {value!r}")
    return number
