"""Streaming, cancelling, and threads that share a decoder."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from medusa_native import Decoder, InvalidArgument, SamplingParams

PARAMS = SamplingParams(max_tokens=48, ignore_eos=True)


@pytest.mark.parametrize(
    "params",
    [
        PARAMS,
        SamplingParams(max_tokens=48, ignore_eos=True, temperature=0.8, seed=3),
        SamplingParams(max_tokens=48, ignore_eos=True, stop=["a", "\n", "xyz"]),
        SamplingParams(max_tokens=1),
    ],
)
def test_chunks_add_up(medusa: Decoder, params: SamplingParams) -> None:
    (whole,) = medusa.generate("héllo", params)
    chunks = list(medusa.stream("héllo", params))
    answer = whole.outputs[0]
    assert [t for chunk in chunks for t in chunk.token_ids] == answer.token_ids
    assert "".join(chunk.text for chunk in chunks) == answer.text
    for chunk in chunks:
        assert "".join(piece.text for piece in chunk.pieces) == chunk.text
        assert (chunk.metrics is None) == (chunk is not chunks[-1])
    last = chunks[-1]
    assert (last.finish_reason, last.stop_reason) == (answer.finish_reason, answer.stop_reason)


def test_a_chunk_is_a_step(medusa: Decoder) -> None:
    chunks = list(medusa.stream("steps", PARAMS))
    metrics = chunks[-1].metrics
    assert metrics is not None
    assert len(chunks) == metrics.num_steps + 1  # prefill yields the first token


def test_no_half_characters(medusa: Decoder) -> None:
    """Tokens are bytes here: a character that completes later is held back, not broken."""
    text = "".join(chunk.text for chunk in medusa.stream("ü", PARAMS))
    ids = [t for chunk in medusa.stream("ü", PARAMS) for t in chunk.token_ids]
    assert text == medusa.tokenizer.decode(ids)


def test_bad_arguments_raise_at_the_call(medusa: Decoder) -> None:
    with pytest.raises(InvalidArgument):
        medusa.stream([])
    with pytest.raises(InvalidArgument):
        medusa.stream([10**6])


def in_flight(decoder: Decoder) -> bool:
    return decoder._loaded.engine.has_unfinished()


def test_a_closed_stream_cancels(medusa: Decoder) -> None:
    stream = medusa.stream("cancel", SamplingParams(max_tokens=400, ignore_eos=True))
    next(stream)
    assert in_flight(medusa)
    stream.close()
    assert not in_flight(medusa)


def test_a_dropped_stream_cancels(medusa: Decoder) -> None:
    stream = medusa.stream("cancel", SamplingParams(max_tokens=400, ignore_eos=True))
    next(stream)
    del stream
    gc.collect()
    assert not in_flight(medusa)


def test_a_stream_that_never_started_costs_nothing(medusa: Decoder) -> None:
    stream = medusa.stream("idle", PARAMS)
    assert not in_flight(medusa)
    del stream


def test_an_interrupt_cancels(medusa: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = medusa._pool
    advance, calls = pool.advance, []

    def interrupted(is_done: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        advance(is_done)

    monkeypatch.setattr(pool, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        medusa.generate(["a", "b"], SamplingParams(max_tokens=400, ignore_eos=True))
    assert not in_flight(medusa)
    monkeypatch.undo()
    assert medusa.generate("after", PARAMS)[0].finished


def test_threads_share_a_decoder(medusa: Decoder) -> None:
    prompts = [f"thread {i}" for i in range(12)]
    expected = [output.outputs for output in medusa.generate(prompts, PARAMS)]

    def ask(prompt: str) -> Any:
        return medusa.generate(prompt, PARAMS)[0].outputs

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, prompts)) == expected


def test_a_slow_reader_loses_nothing(medusa: Decoder) -> None:
    """Another thread's steps advance a stream that nobody reads for a while."""
    expected = medusa.generate("slow", PARAMS)[0].outputs[0].token_ids
    stream = medusa.stream("slow", PARAMS)
    ids = list(next(stream).token_ids)
    worker = threading.Thread(
        target=medusa.generate, args=("busy", SamplingParams(max_tokens=100, ignore_eos=True))
    )
    worker.start()
    worker.join()
    ids += [t for chunk in stream for t in chunk.token_ids]
    assert ids == expected
