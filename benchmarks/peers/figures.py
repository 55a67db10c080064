"""From answers to figures: medians, and medians of the ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from peers.contenders import MEDUSA, PLAIN, REFERENCE
from peers.rounds import Turn

Answers = Mapping[Turn, Mapping[str, Any]]  # to what a worker replied


def speed(answer: Mapping[str, Any]) -> float:
    """Tokens a second after the first ones."""
    return (len(answer["tokens"]) - answer["first_count"]) / answer["rest"]


def prefix_share(tokens: Sequence[int], expected: Sequence[int]) -> float:
    """Share of `expected` that comes before the first token that differs."""
    pairs = zip(tokens, expected, strict=False)
    length = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(tokens), len(expected)))
    return length / len(expected)


def median_ratio(answers: Answers, others: Answers) -> float:
    """How many times as fast as the others, turn by turn."""
    return statistics.median(speed(answers[turn]) / speed(others[turn]) for turn in answers)


def summarize(mine: Answers, everyone: Mapping[str, Answers]) -> dict[str, Any]:
    """Return one contender's figures; those compared with who did not run are left out."""
    figures: dict[str, Any] = {
        "tokens_per_second": statistics.median(map(speed, mine.values())),
        "first_token_ms": 1e3 * statistics.median(a["first"] for a in mine.values()),
    }
    for key, name in (("ours_over_it", PLAIN), ("medusa_over_it", MEDUSA)):
        if name in everyone:
            figures[key] = median_ratio(everyone[name], mine)
    return figures | agreement(mine, everyone.get(REFERENCE))


def agreement(mine: Answers, reference: Answers | None) -> dict[str, float]:
    if reference is None:
        return {}
    shares = [prefix_share(a["tokens"], reference[t]["tokens"]) for t, a in mine.items()]
    return {
        "equal_prefix": statistics.mean(shares),
        "equal_answers": statistics.mean(share == 1 for share in shares),
    }


def same_tokens(everyone: Mapping[str, Answers], suffix: str = "") -> bool:
    """Say whether Medusa's answers are plain decoding's, where both ran."""
    plain, medusa = everyone.get(PLAIN + suffix), everyone.get(MEDUSA + suffix)
    if plain is None or medusa is None:
        return True
    return all(medusa[turn]["tokens"] == plain[turn]["tokens"] for turn in plain)


def summarize_many(mine: Answers, everyone: Mapping[str, Answers]) -> dict[str, float]:
    """Return the tokens a second of all sequences together."""
    figures = {"tokens_per_second": statistics.median(map(aggregate, mine.values()))}
    if peer := everyone.get("vLLM"):
        ratios = [aggregate(mine[turn]) / aggregate(peer[turn]) for turn in mine]
        figures["over_vllm"] = statistics.median(ratios)
    return figures


def aggregate(answer: Mapping[str, Any]) -> float:
    return sum(map(len, answer["tokens"])) / answer["seconds"]
