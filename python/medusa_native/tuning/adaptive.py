"""From what was measured to what the engine's adaptive tree chooses by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medusa_native.tuning.record import StepCost

Paths = Sequence[Sequence[int]]


def forward_seconds(costs: Sequence[StepCost], paths: Paths, context: int) -> list[float]:
    """Return seconds of a step of 1, 2, ... rows at `context`, the heads' time not counted.

    A plain step runs no heads. So one of two sequences beside one of a tree of two nodes, equally
    many rows, shows what a head costs; what trees cost beyond that is their rows. Rows between
    those measured lie on straight lines.

    Parameters
    ----------
    paths
        Those of the trees that were timed, best first.
    """
    cells = {cost.batch: cost for cost in costs if cost.context == context}
    head = _seconds_per_head(cells)
    points: dict[int, list[float]] = defaultdict(list)
    for batch, cost in cells.items():
        for nodes, seconds in zip(cost.nodes, cost.seconds, strict=True):
            heads = max((len(path) for path in paths[: nodes - 1]), default=0)
            points[batch * nodes].append(max(seconds - heads * head, cells[1].seconds[0]))
    rows = sorted(points)
    seconds_at = [median(points[row]) for row in rows]
    return [float(x) for x in np.interp(range(1, rows[-1] + 1), rows, seconds_at)]


def _seconds_per_head(cells: dict[int, StepCost]) -> float:
    """Return what a head costs one sequence; 0 where no two sequences were timed."""
    if 2 not in cells or 2 not in cells[1].nodes:
        return 0.0
    return max(cells[1].at(2) - cells[2].at(1), 0.0)
