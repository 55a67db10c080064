"""Contenders in turns: each answers one prompt, then the next contender does, round after round."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from peers.contenders import Contender
from peers.environments import InstallError
from peers.process import Worker, WorkerError

Turn = tuple[int, int]  # round, prompt
Open = Callable[[Contender], tuple[Worker, dict[str, Any]]]  # a worker that has loaded; its reply


@dataclass
class Session:
    """The workers that run, what they said of themselves, and why others do not."""

    workers: dict[str, Worker] = field(default_factory=dict)
    loaded: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def ask(self, name: str, **request: Any) -> dict[str, Any] | None:
        """Return a worker's reply, or None and never ask it again."""
        try:
            return self.workers[name].ask(**request)
        except WorkerError as error:
            self.drop(name, str(error))
            return None

    def drop(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        print(f"{name}: {reason}", file=sys.stderr, flush=True)
        if worker := self.workers.pop(name, None):
            worker.close()


@contextmanager
def session(contenders: Sequence[Contender], start: Open) -> Iterator[Session]:
    """Load everyone, one after the other, and end them all."""
    running = Session()
    try:
        for contender in contenders:
            print(f"loading {contender.name}", end="\033[K\r", file=sys.stderr, flush=True)
            try:
                worker, reply = start(contender)
            except (WorkerError, InstallError) as error:
                running.drop(contender.name, str(error))
                continue
            running.workers[contender.name], running.loaded[contender.name] = worker, reply
        yield running
    finally:
        for worker in running.workers.values():
            worker.close()


def take_turns(
    running: Session, num_prompts: int, rounds: int, answer: Callable[[str, Turn], Any]
) -> Mapping[str, dict[Turn, Any]]:
    """Return each contender's answer of each turn; who begins rotates, so that drift favours none."""
    names = list(running.workers)
    answers: dict[str, dict[Turn, Any]] = {name: {} for name in names}
    for turn in [(r, p) for r in range(rounds) for p in range(num_prompts)]:
        begin = (turn[0] * num_prompts + turn[1]) % max(len(names), 1)
        for name in names[begin:] + names[:begin]:
            if name in running.workers:
                answers[name][turn] = answer(name, turn)
        print(f"round {turn[0] + 1}, prompt {turn[1] + 1}", end="\033[K\r", file=sys.stderr)
    return {name: found for name, found in answers.items() if name in running.workers}


def answer_prompts(
    running: Session, prompts: Sequence[list[int]], rounds: int, count: int, warm: int
) -> Mapping[str, dict[Turn, Any]]:
    """Decode `count` tokens of each prompt; a few untimed ones wake threads and caches before."""

    def answer(name: str, turn: Turn) -> Any:
        other = prompts[turn[1] - 1]
        if warm and running.ask(name, do="decode", prompt=other, count=warm) is None:
            return None
        return running.ask(name, do="decode", prompt=prompts[turn[1]], count=count)

    return take_turns(running, len(prompts), rounds, answer)


def answer_many(
    running: Session, prompts: Sequence[list[int]], rounds: int, count: int
) -> Mapping[str, dict[Turn, Any]]:
    """Decode `count` tokens of all prompts at once, each round."""

    def answer(name: str, _: Turn) -> Any:
        return running.ask(name, do="batch", prompts=list(prompts), count=count)

    for name in list(running.workers):
        running.ask(name, do="batch", prompts=list(prompts), count=4)  # compiles, touches pages
    return take_turns(running, 1, rounds, answer)
