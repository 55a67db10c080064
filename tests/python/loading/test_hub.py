"""Hub ids, through the real hub client: against a hub on this machine, and offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from heads_layouts import full_bin, truth, v01_safetensors
from local_hub import LocalHub, commit
from tiny_adapter import save_adapter
from tiny_model import save_heads, save_model

from medusa_native.loading import load_heads

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from medusa_native import Decoder, SamplingParams
from medusa_native.errors import InvalidArgument
from medusa_native.loading import load_heads
from medusa_native.loading.hub import resolve

def attempt(kind, name, heads=None, adapter=None):
    try:
        if kind == "decode":
            output = Decoder(name, heads, adapter=adapter).generate("hi", SamplingParams(max_tokens=4))
            return output[0].outputs[0].token_ids
        return load_heads(name).num_heads if kind == "heads" else str(resolve(name))
    except InvalidArgument as error:
        return str(error)

print(json.dumps([attempt(*case) for case in json.loads(sys.argv[1])]))
"""


def attempt(cache: Path, *cases: tuple[str | None, ...], **environment: str) -> list[Any]:
    """Run cases in a process of their own, for the client reads its settings when imported."""
    settings = {"HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    command = [sys.executable, "-c", SCRIPT, json.dumps(cases)]
    done = subprocess.run(
        command, env=inherited | settings, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("hub")
    model = save_model(root / "model")
    (model / "pytorch_model.bin").write_bytes(b"the same again, not wanted")
    (model / "photo.png").write_bytes(b"not wanted")
    old = save_heads(root / "old", num_heads=2)
    heads = save_heads(root / "heads", num_heads=3)
    full = root / "full"
    full.mkdir()
    full_bin(full, truth())
    server = LocalHub(
        {
            ("org/model", "main"): model,
            ("org/heads", "main"): heads,
            ("org/heads", "v0.1"): old,
            ("org/full", "main"): full,
            ("org/adapter", "main"): save_adapter(root / "adapter", model),
        }
    )
    yield server
    server.close()


def test_a_model_and_its_heads_from_the_hub(hub: LocalHub, tmp_path: Path) -> None:
    """Only what is needed is fetched, once; afterwards everything works offline."""
    cases = [
        ("decode", "org/model"),
        ("decode", "org/model", "org/heads"),
        ("heads", "org/heads"),
        ("heads", "org/heads@v0.1"),
        ("heads", f"org/heads@{commit('org/heads', 'v0.1')}"),
        ("heads", "org/full"),
    ]
    hub.fetched.clear()
    plain, medusa, *counts = attempt(tmp_path, *cases, HF_ENDPOINT=hub.endpoint)
    assert plain == medusa
    assert len(plain) == 4
    assert counts == [3, 2, 2, 3]
    assert sorted(hub.fetched) == sorted(
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        + ["config.json", "medusa_lm_head.safetensors"] * 2
        + ["config.json", "pytorch_model.bin.index.json"]
        + ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    )
    hub.fetched.clear()
    again = attempt(tmp_path, *cases, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="1")
    assert again == [plain, medusa, *counts]
    assert hub.fetched == []


def test_an_adapter_from_the_hub(hub: LocalHub, tmp_path: Path) -> None:
    cases = [("decode", "org/model"), ("decode", "org/model", None, "org/adapter")]
    hub.fetched.clear()
    plain, adapted = attempt(tmp_path, *cases, HF_ENDPOINT=hub.endpoint)
    assert plain != adapted
    assert sorted(hub.fetched)[:2] == ["adapter_config.json", "adapter_model.safetensors"]
    again = attempt(tmp_path, *cases, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="1")
    assert again == [plain, adapted]


def test_what_the_hub_does_not_have(hub: LocalHub, tmp_path: Path) -> None:
    cases = [("decode", "org/nothing"), ("heads", "org/heads@v9"), ("decode", "not a hub id")]
    missing, revision, path = attempt(tmp_path, *cases, HF_ENDPOINT=hub.endpoint)
    assert missing.startswith("org/nothing: no such local path, and the Hugging Face hub")
    assert "no such repository, or a private one without a token" in missing
    assert revision.startswith("org/heads@v9: ")
    assert "no such revision" in revision
    assert path == "not a hub id: no such file or folder"


def test_offline(tmp_path: Path) -> None:
    """The cache's layout: refs name commits, snapshots hold their files."""
    folder = tmp_path / "models--org--heads"
    sha = "a" * 40
    snapshot = folder / "snapshots" / sha
    snapshot.mkdir(parents=True)
    v01_safetensors(snapshot, truth())
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(sha)
    cases = [("heads", "org/heads"), ("heads", f"org/heads@{sha}"), ("heads", "org/heads@other")]
    count, same, other, missing = attempt(
        tmp_path, *cases, ("decode", "org/missing"), HF_HUB_OFFLINE="1"
    )
    assert (count, same) == (3, 3)
    assert other.startswith("org/heads@other: no such local path")
    for message in (other, missing):
        assert "it is not in the cache, and the hub cannot be reached" in message


def test_a_local_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "heads").mkdir(parents=True)
    v01_safetensors(tmp_path / "org" / "heads", truth())
    monkeypatch.chdir(tmp_path)
    assert load_heads("org/heads").num_heads == 3
