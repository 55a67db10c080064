"""OpenVINO GenAI, which reads GGUF files itself."""

from __future__ import annotations

import time
from typing import Any

from peers.workers.protocol import Reply, decoded, serve


def scheduler() -> Any:
    """Return the default scheduler's latency settings, without its prefix cache."""
    import openvino_genai

    settings = openvino_genai.SchedulerConfig()
    settings.enable_prefix_caching = False
    settings.max_num_batched_tokens = 1 << 20  # a prompt in one pass
    return settings


class OpenVino:
    def load(self, model: str, threads: int, lookup: int = 0) -> Reply:
        """Load; `lookup` guesses from the prompt are offered each step."""
        import openvino_genai

        start = time.perf_counter()
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
        options["scheduler_config"] = scheduler()
        if lookup:
            options["prompt_lookup"] = True
        self._pipeline = openvino_genai.LLMPipeline(model, "CPU", **options)
        self._lookup = lookup
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "version": f"openvino-genai {openvino_genai.__version__}"}

    def decode(self, prompt: list[int], count: int) -> Reply:
        import numpy as np
        import openvino
        import openvino_genai

        ids = np.array([prompt], np.int64)
        tensors = (openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        inputs, config = openvino_genai.TokenizedInputs(*tensors), self._config(count)
        start = time.perf_counter()
        result = self._pipeline.generate(inputs, config)
        total = time.perf_counter() - start
        first = result.perf_metrics.get_ttft().mean / 1e3
        return decoded(list(result.tokens[0]), first, total)

    def _config(self, count: int) -> Any:
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = count, True, False
        if self._lookup:
            config.num_assistant_tokens, config.max_ngram_size = self._lookup, 3
        return config


if __name__ == "__main__":
    serve(OpenVino())
