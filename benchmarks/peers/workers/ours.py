"""medusa_native, plainly or with Medusa heads."""

from __future__ import annotations

import time

from peers.workers.protocol import Reply, decoded, serve


class Ours:
    def load(
        self, model: str, threads: int, length: int, dtype: str,
        heads: str | None = None, nodes: int | None = None,
    ) -> Reply:  # fmt: skip
        """Load; with `heads` speculate, on a tree of `nodes` at most, its root included."""
        import medusa_native

        start = time.perf_counter()
        limit = None if nodes is None else nodes - 1
        self._decoder = medusa_native.Decoder(
            model, dtype=dtype, num_threads=threads, max_model_len=length, max_num_seqs=1,
            enable_prefix_caching=False,
            speculative_config={"model": heads, "max_total_draft_tokens": limit} if heads else None,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "version": f"medusa_native {medusa_native.__version__}",
            "device": self._decoder.info()["device"],
            "tree_nodes": self._decoder.info()["tree"]["nodes"],
        }

    def decode(self, prompt: list[int], count: int) -> Reply:
        from medusa_native import SamplingParams

        params = SamplingParams(max_tokens=count, ignore_eos=True)
        start = time.perf_counter()
        (output,) = self._decoder.generate([prompt], params)
        total = time.perf_counter() - start
        return decoded(output.outputs[0].token_ids, output.metrics.time_to_first_token, total)


if __name__ == "__main__":
    serve(Ours())
