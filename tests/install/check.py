"""Asks an installed package which back ends it has, and decodes on the CPU: check.py cuda|cpu MODEL.

Run by run.py with the interpreter of an environment that holds nothing else. MODEL "demo" is the demo
model, fetched on first use.
"""

from __future__ import annotations

import sys
from pathlib import Path

import medusa_native
from medusa_native import Decoder, DeviceError, SamplingParams
from medusa_native.cli.options import resolve_model


def refusal_of_cuda(model: str) -> str:
    """Return what device="cuda" is answered with; empty where a GPU works."""
    try:
        Decoder(model, device="cuda")
    except DeviceError as error:
        return str(error)
    return ""


def check_back_ends(kind: str, model: str) -> None:
    """With CUDA: a GPU, or the driver or GPU that is missing. Without: that the build has none."""
    refusal = refusal_of_cuda(model)
    print(f'device="cuda": {refusal or "works"}')
    if ("no CUDA back end" in refusal) != (kind == "cpu"):
        sys.exit(f"expected a build of kind {kind}")


def check_decoding(model: str) -> None:
    """Medusa's tokens are plain decoding's."""
    prompts = [
        [{"role": "user", "content": text}] for text in ("Why is the sky blue?", "Count to 9.")
    ]
    params = SamplingParams(max_tokens=32)
    plain, medusa = (
        Decoder(model, heads, device="cpu").chat(prompts, params) for heads in (None, "auto")
    )
    expected, found = ([o.outputs[0].token_ids for o in side] for side in (plain, medusa))
    lengths = [round(output.metrics.mean_acceptance_length, 2) for output in medusa]
    print(f"{sum(map(len, expected))} tokens, {lengths} a step, the same: {found == expected}")
    if found != expected or max(lengths) <= 1:
        sys.exit("expected Medusa's tokens to be plain decoding's, and some to be accepted")


def main() -> None:
    kind, model = sys.argv[1:]
    if not Path(medusa_native.__file__).is_relative_to(sys.prefix):
        sys.exit(f"{medusa_native.__file__} is not of the environment {sys.prefix}")
    path = resolve_model(model)
    check_back_ends(kind, path)
    check_decoding(path)


if __name__ == "__main__":
    main()
