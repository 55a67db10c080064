"""What is odd about a file of Medusa heads, above all where config.json and the tensors disagree.

The tensors are right. A few settings would change what the heads compute; those are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_native.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medusa_native.loading.heads_files import HeadsFiles
    from medusa_native.loading.heads_tensors import HeadTensors


@dataclass
class Notes:
    """Statements about a file; `warnings` are those worth interrupting a user for."""

    path: Path
    all: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, text: str, *, warn: bool = False) -> None:
        """Keep a statement, once."""
        if text in self.all:
            return
        self.all.append(text)
        if warn:
            self.warnings.append(f"{self.path}: {text}")

    def disagreement(self, key: str, said: Any, found: Any, *, warn: bool = True) -> None:
        """Keep that config.json says something else than the tensors."""
        self.add(
            f"config.json says {key} {said!r:.60}; the tensors hold {found!r}, which is what counts",
            warn=warn,
        )


def compare(files: HeadsFiles, heads: HeadTensors, notes: Notes) -> None:
    """Note where config.json and the tensors disagree.

    Raises
    ------
    ModelFormatError
        A setting would change what the heads compute.
    """
    for key, found in _counts(files, heads):
        if files.config.get(key, found) != found:
            notes.disagreement(key, files.config[key], found)
    _require_supported(files, heads)
    if files.is_vllm:
        _compare_vllm(files.config, heads, notes)
    else:
        _compare_version(files.config, heads, notes)
    _note_tensors(files, heads, notes)


def _counts(files: HeadsFiles, heads: HeadTensors) -> Iterator[tuple[str, int]]:
    """Keys of config.json that count heads or layers. vLLM takes any key that sounds like one."""
    for count, word in ((heads.num_heads, "heads"), (heads.num_layers, "layers")):
        own = {f"medusa_num_{word}", f"num_medusa_{word}"}
        like = {k for k in files.config if "num" in k and word in k} if files.is_vllm else set()
        for key in sorted(own | like):
            yield key, count


def _require_supported(files: HeadsFiles, heads: HeadTensors) -> None:
    path, config = files.path, files.config
    if "hydra_num_heads" in config:
        raise ModelFormatError(
            f"{path}: Medusa heads expected, found Hydra heads (config.json: 'hydra_num_heads')"
        )
    activation = config.get("hidden_act", "silu")
    if heads.family == "tensorrt-llm" and activation not in ("silu", "swish"):
        raise ModelFormatError(f"{path}: 'hidden_act' must be 'silu', found {activation!r}")
    scale = config.get("logit_scale", 1.0) if files.is_vllm else 1.0
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise ModelFormatError(f"{path}: 'logit_scale' must be a positive number, found {scale!r}")


def _compare_version(config: dict[str, Any], heads: HeadTensors, notes: Notes) -> None:
    version = 1 if heads.role("projection") else 2
    said = config.get("version")
    if said is not None and str(said) != str(version):
        notes.disagreement("version", said, version)
    elif config and version == 2 and said is None:
        notes.add("no projections: V2 heads, though config.json does not say version 2")


def _compare_vllm(config: dict[str, Any], heads: HeadTensors, notes: Notes) -> None:
    biases = bool(heads.role("bias"))
    if bool(config.get("medusa_fc_bias", False)) != biases:
        said = config.get("medusa_fc_bias", False)
        notes.disagreement("medusa_fc_bias", said, biases, warn=False)
    if config.get("logit_scale", 1.0) != 1.0:
        notes.add("logit_scale has no effect: it leaves the order of guesses as it is")
    if ("lm_head", 0, 0) in heads.tensors and not config.get("original_lm_head"):
        names = heads.names
        serves = names["projection", 0, 0] == names["lm_head", 0, 0]
        taken = "serves all heads" if serves else "unused"
        notes.add(f"lm_head.weight without original_lm_head in config.json: {taken}", warn=True)


def compare_vocabulary(files: HeadsFiles, rows: int, vocab: int, notes: Notes) -> None:
    """Note sizes of vLLM's config.json that differ from what the heads draft from."""
    if not files.is_vllm:
        return
    size = files.config.get("vocab_size")
    if size is not None and size != vocab:
        notes.disagreement("vocab_size", size, vocab)
    size = files.config.get("truncated_vocab_size") or size
    if size is not None and size != rows:
        notes.disagreement("truncated_vocab_size", size, rows)


def _note_tensors(files: HeadsFiles, heads: HeadTensors, notes: Notes) -> None:
    places, biases = heads.num_heads * heads.num_layers, len(heads.role("bias"))
    if biases < places:
        notes.add(f"{places - biases} of {places} biases are missing and count as zero")
    inputs = len(heads.role("input_scale")) + len(heads.role("projection_input_scale"))
    if inputs:
        notes.add(f"{inputs} input scales are not used: activations are not quantised")
    if any(".lora_" in name for name in files.others):
        notes.add(
            "the adapter changes the backbone too (LoRA): heads guess well only on the model it is "
            "merged into",
            warn=True,
        )
    if files.unread:
        notes.add(f"not read, because {files.path.name} is there: {', '.join(files.unread)}")
    if files.others:
        notes.add(_listed(files.others))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} tensors of the files are not heads: {shown}"
