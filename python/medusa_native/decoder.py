"""The face of the package: a model, perhaps with heads, that answers prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from medusa_native.arguments import (
    Message,
    Prompt,
    cache_type,
    check_device,
    core_types,
    is_conversation,
    limit,
    list_conversations,
    list_params,
    list_prompts,
    speculative,
)
from medusa_native.checks import check_flag, check_integer
from medusa_native.devices import stream_handle
from medusa_native.engine import load_engine
from medusa_native.errors import InvalidArgument
from medusa_native.gpu_check import choose_device
from medusa_native.metrics import AcceptanceWatch
from medusa_native.outputs import RequestOutput, StreamChunk, TotalMetrics
from medusa_native.params import SamplingParams, SpeculativeConfig
from medusa_native.request import Request, output_of
from medusa_native.request_maker import RequestMaker
from medusa_native.request_pool import RequestPool
from medusa_native.tokenizer import Tokenizer


class Decoder:
    """A model that answers prompts, with or without Medusa heads.

    With heads and without them the tokens are the same, greedy or sampled: heads only decide how
    many of them one step yields (unless ``acceptance_method="typical"`` lets them decide more).

    Parameters
    ----------
    model
        A GGUF file, a Hugging Face folder or a hub id (``org/name``, ``org/name@revision``).
    heads
        Medusa heads: a folder, a file, a hub id or the name of a set in the package;
        ``"auto"``: the one shipped for this model; None: plain decoding.
    adapter
        A LoRA adapter in PEFT's format, folder, hub id or the name of a set in the package that has
        one, merged into the weights as they are loaded: the answers are those of the merged model. Quantised weights that it touches are
        widened to the compute type (of gate and up both), the others stay in their blocks.
    speculative_config
        A `SpeculativeConfig`, or a mapping of its parameters, instead of `heads`.
    tokenizer
        A folder or `Tokenizer`; default: the model's own.
    device
        ``"cpu"``; ``"cuda"``, ``"cuda:1"``: a GPU. ``"auto"``: the first GPU where a small model,
        decoded on it once in a process, gives what it should; else the CPU, with a warning where
        there is a GPU. `info` says which it is.
    stream
        An existing CUDA stream of that GPU to work on (`devices.stream_handle` says which kinds);
        it must outlive the decoder. Default: one of its own.
    dtype
        ``"auto"``: compute in bfloat16, but keep the quantised weights of a GGUF file in their
        blocks and round what they are multiplied with to 8 bits, in groups of 32, and keep FP8
        weights as codes, which are widened as they are multiplied;
        ``"bfloat16"``, ``"float32"``, on a GPU also ``"float16"``: widen all weights to that type
        and compute in it.
    max_model_len
        Tokens of prompt and answer together; default: the model's, bounded by memory.
    max_num_seqs
        Sequences decoded at once; further ones wait.
    max_num_batched_tokens
        Rows of one forward pass: what decodes takes its share first, prompts are computed in chunks
        of what is left.
    kv_cache_memory
        Bytes for keys and values. Requests take pages as they grow; where none is left, the
        youngest waits and is computed again later, to the same tokens.
    kv_cache_dtype
        ``"auto"``: keys and values in the compute type. ``"int8"`` (CPU, bfloat16): 8-bit codes with
        one scale for each position and key/value head, about half the bytes. Answers change a
        little; Medusa and plain decoding still give the same.
    enable_prefix_caching
        Requests that begin with the same tokens share pages, also with those of requests that are
        done, as long as nobody needs their room.
    num_threads
        Default: as many as there are processors.
    seed
        Of requests that bring none: `seed` plus the index of the prompt in the call.

    Raises
    ------
    InvalidArgument
        For a parameter out of range, or heads or a tree that do not fit.
    ModelFormatError
        For a file that is not what it should be.
    DeviceError
        For a device that this build or machine does not have.
    OutOfMemory
        When `kv_cache_memory` is too small for one sequence.

    Notes
    -----
    Threads may share a decoder: their requests are decoded together, and each call returns when
    its own are done. Interrupting a call, or dropping a stream, cancels its requests.

    Model and heads files are mapped while the constructor runs, and not needed afterwards. Replace
    a file that may be loading by renaming another over it: one that is shortened in place while it
    is mapped ends the process (SIGBUS), as with every program that maps files.
    """

    def __init__(
        self,
        model: str | Path,
        heads: str | Path | None = None,
        *,
        adapter: str | Path | None = None,
        speculative_config: SpeculativeConfig | Mapping[str, Any] | None = None,
        tokenizer: str | Path | Tokenizer | None = None,
        device: str = "auto",
        stream: Any = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        max_num_seqs: int = 8,
        max_num_batched_tokens: int | None = None,
        kv_cache_memory: int | None = None,
        kv_cache_dtype: str = "auto",
        enable_prefix_caching: bool = True,
        num_threads: int | None = None,
        seed: int = 0,
    ) -> None:
        check_device(device)
        check_integer("Decoder", "seed", seed, 0, 2**64 - 1)
        speculation = speculative(heads, speculative_config)
        cache = cache_type(kv_cache_dtype, dtype)
        self._loaded = load_engine(
            model,
            speculation,
            tokenizer,
            dtype=dtype,
            device=choose_device(device, core_types(dtype)["compute_type"], cache),
            stream=0 if stream is None else stream_handle(stream),
            adapter=adapter,
            num_threads=limit("num_threads", num_threads),
            max_model_len=limit("max_model_len", max_model_len),
            max_num_seqs=limit("max_num_seqs", max_num_seqs),
            max_num_batched_tokens=limit("max_num_batched_tokens", max_num_batched_tokens),
            kv_cache_memory=limit("kv_cache_memory", kv_cache_memory),
            kv_cache_dtype=cache,
            enable_prefix_caching=check_flag(
                "Decoder", "enable_prefix_caching", enable_prefix_caching
            ),
        )
        watch = AcceptanceWatch(None if speculation is None else speculation.model)
        self._pool = RequestPool(self._loaded.engine, watch)
        self._requests = RequestMaker(self._loaded, seed)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in use."""
        return self._loaded.tokenizer

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._loaded.engine.options.max_model_len

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Complete prompts.

        Parameters
        ----------
        prompts
            A text, a list of texts, token ids, or a list of token ids. Texts are tokenised as they
            stand, with BOS where the tokenizer adds it; `chat` applies the chat template.
        sampling_params
            For all prompts, or one for each.

        Returns
        -------
        list of RequestOutput
            In the order of the prompts.
        """
        listed = list_prompts(prompts)
        params = list_params(sampling_params, len(listed))
        return self._run(
            [
                self._requests.of_prompt(i, p, s)
                for i, (p, s) in enumerate(zip(listed, params, strict=True))
            ]
        )

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation, or a list of them, in the model's chat format.

        A message is a mapping with ``role`` and ``content``. Always a list back.
        """
        listed = list_conversations(messages)
        params = list_params(sampling_params, len(listed))
        return self._run(
            [
                self._requests.of_conversation(i, conversation, chosen)
                for i, (conversation, chosen) in enumerate(zip(listed, params, strict=True))
            ]
        )

    def stream(
        self, prompt: Prompt | Sequence[Message], sampling_params: SamplingParams | None = None
    ) -> Generator[StreamChunk, None, None]:
        """Yield what each step adds to one answer.

        Parameters
        ----------
        prompt
            A text, token ids, or the messages of a conversation.

        Notes
        -----
        Bad arguments raise here, not at the first step. Closing or dropping the generator cancels
        the request.
        """
        chosen = sampling_params or SamplingParams()
        if chosen.n > 1:
            raise InvalidArgument(f"SamplingParams: n must be 1 to stream, found {chosen.n}")
        if is_conversation(prompt):
            (request,) = self._requests.of_conversation(
                0, cast("Sequence[Message]", prompt), chosen
            )
        else:
            (request,) = self._requests.of_prompt(0, cast("Prompt", prompt), chosen)
        return self._stream(request)

    def info(self) -> dict[str, Any]:
        """Return what is running: device, types, limits, heads, tree, and memory in bytes."""
        return self._loaded.describe()

    def metrics(self) -> TotalMetrics:
        """Return the counters of all requests so far: acceptance, and where the time went."""
        return self._pool.metrics()

    def _run(self, prompts: list[list[Request]]) -> list[RequestOutput]:
        requests = [request for answers in prompts for request in answers]

        def done() -> bool:
            return all(request.finished for request in requests)

        self._pool.submit(requests)
        try:
            while not done():
                self._pool.advance(done)
        finally:
            self._pool.cancel(requests)
        return [output_of(answers) for answers in prompts]

    def _stream(self, request: Request) -> Generator[StreamChunk, None, None]:
        chunks = request.chunks = deque[StreamChunk]()
        self._pool.submit([request])
        try:
            while chunks or not request.finished:
                if chunks:
                    yield chunks.popleft()
                else:
                    self._pool.advance(request.has_news)
        finally:
            self._pool.cancel([request])
