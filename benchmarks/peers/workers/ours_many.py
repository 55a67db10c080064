"""medusa_native's engine with many sequences at once: without heads, or with a tree that adapts."""

from __future__ import annotations

import time

import serving
from peers.workers.protocol import Reply, serve

from medusa_native import SpeculativeConfig, _core
from medusa_native.engine import load_engine


class OursMany:
    def load(self, model: str, threads: int, seqs: int, dtype: str, kind: str) -> Reply:
        """Load; `kind` is plain or adaptive, which measures what steps cost where nothing is tuned."""
        start = time.perf_counter()
        heads = SpeculativeConfig(model="auto")
        loaded = load_engine(model, heads, None, dtype=dtype, num_threads=threads)
        seconds = time.perf_counter() - start
        plain = {"heads": None, "tree": _core.Tree.root_only()}
        options = plain if kind == "plain" else serving.contenders(loaded)[kind]
        self._engine = _core.Engine(
            loaded.model, max_num_seqs=seqs, enable_prefix_caching=False, **options
        )
        return {"seconds": seconds, "version": "medusa_native"}

    def batch(self, prompts: list[list[int]], count: int) -> Reply:
        requests = [serving.Request(0.0, prompt, count) for prompt in prompts]
        start = time.perf_counter()
        answers = serving.serve(self._engine, requests)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "tokens": [answer.tokens for answer in answers]}


if __name__ == "__main__":
    serve(OursMany())
