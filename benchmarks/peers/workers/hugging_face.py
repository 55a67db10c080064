"""Transformers: the file's weights dequantised to bfloat16, eager generation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from peers.workers.protocol import Reply, decoded, serve


class Clock:
    """A streamer that notes when tokens come, and how many."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.counts: list[int] = []

    def put(self, tokens: Any) -> None:
        self.times.append(time.perf_counter())
        self.counts.append(tokens.numel())

    def end(self) -> None:
        pass


def read(file: str) -> Any:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    path = Path(file)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.bfloat16
    )
    return model.eval()


class HuggingFace:
    def load(self, model: str, threads: int, lookup: int = 0) -> Reply:
        """Load; `lookup` guesses from the prompt are offered each step."""
        import torch
        import transformers

        torch.set_num_threads(threads)
        start = time.perf_counter()
        self._model = read(model)
        self._model.generation_config.eos_token_id = None  # nothing ends an answer
        self._options = {"prompt_lookup_num_tokens": lookup} if lookup else {}
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "version": f"transformers {transformers.__version__}"}

    def decode(self, prompt: list[int], count: int) -> Reply:
        import torch

        ids, clock = torch.tensor([prompt]), Clock()
        start = time.perf_counter()
        with torch.inference_mode():
            answer = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), streamer=clock, do_sample=False,
                max_new_tokens=count, pad_token_id=0, **self._options,
            )  # fmt: skip
        total = time.perf_counter() - start
        tokens = answer[0, len(prompt) :].tolist()
        first = clock.times[1] - start  # the first call brings the prompt
        return decoded(tokens, first, total, clock.counts[1])

    def export(self, source: str, target: str) -> Reply:
        """Write a GGUF file's weights as a folder in bfloat16."""
        model = read(source)
        model.hf_quantizer = (
            None  # nothing is quantised any more; Transformers would refuse to write
        )
        model.config.__dict__.pop("quantization_config", None)
        model.save_pretrained(target)
        return {}


if __name__ == "__main__":
    serve(HuggingFace())
