"""What a Decoder takes, gives back and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import EOS, save_heads, save_model

from medusa_native import (
    Decoder,
    DeviceError,
    InvalidArgument,
    MedusaError,
    ModelFormatError,
    OutOfMemory,
    SamplingParams,
    SpeculativeConfig,
    _core,
)
from medusa_native.heads import fingerprint
from medusa_native.loading import load_checkpoint

SHORT = SamplingParams(max_tokens=8, ignore_eos=True)


def test_always_a_list_in_order(medusa: Decoder) -> None:
    texts = ["one", "two", "three"]
    together = medusa.generate(texts, SHORT)
    assert [output.prompt for output in together] == texts
    for text, output in zip(texts, together, strict=True):
        (alone,) = medusa.generate(text, SHORT)
        assert alone.outputs[0].token_ids == output.outputs[0].token_ids
        assert alone.prompt_token_ids == medusa.tokenizer.encode(text)


def test_ids_and_arrays(medusa: Decoder) -> None:
    ids = medusa.tokenizer.encode("one")
    expected = medusa.generate("one", SHORT)[0].outputs[0]
    for prompt in (ids, tuple(ids), np.array(ids), [ids], [np.array(ids)]):
        (output,) = medusa.generate(prompt, SHORT)
        assert output.prompt is None
        assert output.prompt_token_ids == ids
        assert output.outputs[0] == expected


def test_more_prompts_than_sequences_at_once(model: Path, heads: Path) -> None:
    prompts = [f"prompt {i}" for i in range(7)]
    few, many = (Decoder(model, heads, max_num_seqs=n) for n in (2, 8))
    answers = [[o.outputs[0].token_ids for o in d.generate(prompts, SHORT)] for d in (few, many)]
    assert answers[0] == answers[1]


def test_params_for_each_prompt(medusa: Decoder) -> None:
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (1, 5, 3)]
    outputs = medusa.generate(["a", "b", "c"], params)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 5, 3]
    assert {output.outputs[0].finish_reason for output in outputs} == {"length"}
    with pytest.raises(InvalidArgument, match="sampling_params"):
        medusa.generate(["a", "b"], params)


def test_chat_applies_the_template(medusa: Decoder) -> None:
    conversation = [{"role": "user", "content": "Hi"}]
    (output,) = medusa.chat(conversation, SHORT)
    assert output.prompt == "<s>user: Hi</s><s>assistant: "
    assert output.prompt_token_ids == medusa.tokenizer.apply_chat_template(conversation)
    both = medusa.chat([conversation, conversation], SHORT)
    assert [o.outputs[0] for o in both] == [output.outputs[0]] * 2
    (streamed,) = {
        tuple(t for chunk in medusa.stream(conversation, SHORT) for t in chunk.token_ids)
    }
    assert list(streamed) == output.outputs[0].token_ids


def test_seeds(plain: Decoder, model: Path) -> None:
    hot = SamplingParams(max_tokens=16, temperature=1.0, ignore_eos=True)
    first, second = plain.generate(["x", "x"], hot)
    assert first.outputs[0].token_ids != second.outputs[0].token_ids
    assert plain.generate(["x", "x"], hot)[1].outputs == second.outputs
    seeded = SamplingParams(max_tokens=16, temperature=1.0, ignore_eos=True, seed=1)
    assert plain.generate("x", seeded)[0].outputs == second.outputs
    assert Decoder(model, seed=1).generate("x", hot)[0].outputs == second.outputs


def test_stop_tokens_and_min_tokens(medusa: Decoder) -> None:
    free = medusa.generate("stop", SHORT)[0].outputs[0].token_ids
    stop = SamplingParams(max_tokens=8, ignore_eos=True, stop_token_ids=[free[3]])
    (output,) = medusa.generate("stop", stop)
    first = free.index(free[3])
    assert output.outputs[0].token_ids == free[: first + 1]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", free[3])
    later = SamplingParams(max_tokens=8, ignore_eos=True, stop_token_ids=[free[0]], min_tokens=4)
    assert free[0] not in medusa.generate("stop", later)[0].outputs[0].token_ids[:4]


def test_stop_strings(medusa: Decoder) -> None:
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    free = medusa.generate("strings", params)[0].outputs[0]
    stop = free.text[10:12]
    end = free.text.index(stop)
    (output,) = medusa.generate("strings", SamplingParams(max_tokens=40, stop=stop))
    answer = output.outputs[0]
    assert answer.text == free.text[:end]
    assert answer.token_ids == free.token_ids[: len(answer.token_ids)]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)
    assert stop in medusa.tokenizer.decode(answer.token_ids)
    assert stop not in medusa.tokenizer.decode(answer.token_ids[:-1])
    assert output.metrics.num_generated_tokens == len(answer.token_ids)


def test_plain_requests_on_a_decoder_with_heads(medusa: Decoder) -> None:
    params = [
        SamplingParams(max_tokens=16, ignore_eos=True, speculative=speculative)
        for speculative in (True, False)
    ]
    with_heads, without = medusa.generate(["same", "same"], params)
    assert with_heads.outputs == without.outputs
    assert with_heads.metrics.num_draft_tokens > 0
    assert without.metrics.num_draft_tokens == 0
    assert without.metrics.mean_acceptance_length == 1.0


def test_max_model_len(model: Path) -> None:
    decoder = Decoder(model, max_model_len=24)
    assert decoder.max_model_len == 24
    (output,) = decoder.generate([1] * 20, SamplingParams(max_tokens=100, ignore_eos=True))
    assert output.outputs[0].finish_reason == "length"
    assert len(output.outputs[0].token_ids) <= 24 - 20 + 1
    for length in (24, 200):
        with pytest.raises(InvalidArgument, match="max_model_len"):
            decoder.generate([[1], [1] * length], SHORT)
    with pytest.raises(InvalidArgument, match="max_model_len"):
        Decoder(model, max_model_len=513)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "prompts is empty"),
        ([[]], "prompt 0 is empty"),
        ([[1], []], "prompt 1 is empty"),
        ([[1], [2, 320]], "prompt 1: token 320 at position 1"),
        ([-1], "token -1"),
        ([2**40], "token"),
        ([[1.5]], "prompt 0"),
        ([{"role": "user"}], "prompt 0"),
        (5, "prompts"),
    ],
)
def test_prompts_that_are_none(plain: Decoder, prompts: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        plain.generate(prompts, SHORT)
    assert plain.generate("still works", SHORT)[0].finished


def test_messages_that_are_none(plain: Decoder) -> None:
    for messages in ([], "hi", [["hi"]], [{"content": "no role"}]):
        with pytest.raises(InvalidArgument):
            plain.chat(messages, SHORT)


def test_stop_tokens_out_of_range(plain: Decoder) -> None:
    with pytest.raises(InvalidArgument, match="stop_token_ids: expected 0 to 319, found 320"):
        plain.generate("x", SamplingParams(stop_token_ids=[320]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"device": "gpu"}, InvalidArgument, "'cuda:N', found 'gpu'"),
        ({"device": "cuda:x"}, InvalidArgument, "'cuda:N', found 'cuda:x'"),
        ({"dtype": "float16"}, InvalidArgument, "CUDA only"),
        ({"dtype": "int3"}, InvalidArgument, "dtype"),
        ({"kv_cache_dtype": "fp8"}, InvalidArgument, "'auto' or 'int8', found 'fp8'"),
        ({"kv_cache_dtype": "int8", "dtype": "float32"}, InvalidArgument, "needs dtype"),
        ({"max_num_seqs": 0}, InvalidArgument, "max_num_seqs"),
        ({"num_threads": -1}, InvalidArgument, "num_threads"),
        ({"max_model_len": 2.5}, InvalidArgument, "max_model_len"),
        ({"seed": -1}, InvalidArgument, "seed"),
        ({"tokenizer": 3}, InvalidArgument, "tokenizer"),
        ({"kv_cache_memory": 1000}, OutOfMemory, "kv_cache_memory.* 1000"),
        ({"speculative_config": {"method": "medusa"}}, InvalidArgument, "model"),
        ({"speculative_config": {"modle": "x"}}, InvalidArgument, "modle"),
        ({"heads": "nowhere"}, InvalidArgument, "nowhere"),
        ({"heads": "auto"}, InvalidArgument, "no heads ship"),
    ],
)
def test_constructor_errors(
    model: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message or None) as raised:
        Decoder(model, **arguments)
    assert isinstance(raised.value, MedusaError)


@pytest.mark.skipif(not _core.why_no_cuda(), reason="a GPU works here")
def test_a_gpu_that_is_not_there_is_an_error_with_advice(model: Path) -> None:
    with pytest.raises(DeviceError, match=r"device 'cuda': .* use device \"cpu\""):
        Decoder(model, device="cuda")


def test_a_gpu_is_taken_when_asked_for_alone(plain: Decoder) -> None:
    assert plain.info()["device"].startswith("cpu (")


def test_heads_and_config_exclude_each_other(model: Path, heads: Path) -> None:
    with pytest.raises(InvalidArgument, match="heads and speculative_config"):
        Decoder(model, heads, speculative_config={"model": heads})


def test_heads_of_another_model(heads: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", hidden_size=64, head_dim=16)
    with pytest.raises(ModelFormatError, match=r"64|128"):
        Decoder(other, heads)


def test_heads_trained_for_other_weights_are_noticed(model: Path, tmp_path: Path) -> None:
    folder = save_heads(tmp_path / "heads", base_model_fingerprint="0123456789abcdef")
    with pytest.warns(UserWarning, match="other weights"):
        Decoder(model, folder)
    own = fingerprint(load_checkpoint(model))
    Decoder(model, save_heads(tmp_path / "own", base_model_fingerprint=own))


@pytest.mark.parametrize("version", [1, 2])
def test_info(model: Path, tmp_path: Path, version: int) -> None:
    config = SpeculativeConfig(model=save_heads(tmp_path, version=version), medusa_choices="chain")
    info = Decoder(model, speculative_config=config, dtype="float32", num_threads=1).info()
    assert info["dtype"] == "float32"
    assert info["num_threads"] == 1
    assert info["weight_formats"] == {"F32": sum(info["weight_formats"].values())}
    assert info["heads"]["num_heads"] == 3
    assert info["heads"]["version"] == version
    assert info["tree"] == {"nodes": 4, "depth": 3, "adaptive": False}
    assert all(info["memory"][key] > 0 for key in ("weights", "heads", "kv_cache", "workspace"))
    json.dumps(info)


def test_end_tokens_end_answers(model: Path) -> None:
    decoder = Decoder(model)
    hot = SamplingParams(max_tokens=400, temperature=5.0)
    outputs = decoder.generate(["a", "b", "c", "d"], hot)
    ended = [o.outputs[0] for o in outputs if o.outputs[0].finish_reason == "stop"]
    assert ended
    for answer in ended:
        assert answer.token_ids[-1] == EOS
        assert EOS not in answer.token_ids[:-1]
        assert answer.stop_reason is None
        assert "</s>" not in answer.text
