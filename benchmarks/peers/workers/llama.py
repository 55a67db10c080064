"""llama.cpp, driven at its C interface: one llama_decode a token, and an argmax."""

from __future__ import annotations

import ctypes
import time

from peers.workers.protocol import Reply, decoded, serve


class Llama:
    def load(self, model: str, threads: int, length: int) -> Reply:
        import llama_cpp

        start = time.perf_counter()
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(model.encode(), options)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {model}")
        limits = llama_cpp.llama_context_default_params()
        limits.n_ctx, limits.n_batch, limits.n_ubatch = length, length, 512
        limits.n_threads = limits.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, limits)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "version": f"llama-cpp-python {llama_cpp.__version__}"}

    def decode(self, prompt: list[int], count: int) -> Reply:
        import llama_cpp

        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        start = time.perf_counter()
        tokens = [self._next(prompt)]
        first = time.perf_counter() - start
        while len(tokens) < count:
            tokens.append(self._next(tokens[-1:]))
        return decoded(tokens, first, time.perf_counter() - start)

    def _next(self, tokens: list[int]) -> int:
        """Append tokens; return the likeliest one after them."""
        import llama_cpp
        import numpy as np

        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        status = llama_cpp.llama_decode(
            self._context, llama_cpp.llama_batch_get_one(array, len(tokens))
        )
        if status:
            raise RuntimeError(f"llama_decode must return 0, found {status}")
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())

    def quantize(self, source: str, target: str, format: str, threads: int) -> Reply:  # noqa: A002
        """Write a file's weights in another format, which may have fewer bits."""
        import llama_cpp

        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{format}")
        options.allow_requantize, options.nthread = True, threads
        status = llama_cpp.llama_model_quantize(
            source.encode(), target.encode(), ctypes.byref(options)
        )
        if status:
            raise RuntimeError(f"llama_model_quantize must return 0, found {status}")
        return {}


if __name__ == "__main__":
    serve(Llama())
