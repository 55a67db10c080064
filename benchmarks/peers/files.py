"""One model's weights as every peer can read them: GGUF files of several formats, and a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from peers.process import Worker

from medusa_native.loading.gguf_file import GgufFile

Start = Callable[[str, str], Worker]  # of a peer's environment, a module of peers.workers


def own_format(model: Path) -> str:
    """Return the format of most of a file's matrices."""
    matrices = [t for t in GgufFile(model).tensors.values() if len(t.shape) > 1]
    return Counter(tensor.dtype for tensor in matrices).most_common(1)[0][0]


class Files:
    """Made from `model` by llama.cpp's own quantise function, and kept in `folder`.

    Everyone reads the same file, so that rounding from one format to another favours nobody.
    """

    def __init__(self, model: Path, folder: Path, start: Start, threads: int) -> None:
        if model.suffix != ".gguf":
            raise SystemExit(f"--model must be a GGUF file, found {model}")
        self._model, self._own, self._folder = model, own_format(model), folder
        self._start, self._threads = start, threads

    def gguf(self, format: str) -> Path:  # noqa: A002
        if format == self._own:
            return self._model
        return self._make(f"{self._model.stem}.to.{format}.gguf", "llama.cpp", "llama", "quantize",
                          source=str(self._model), format=format, threads=self._threads)  # fmt: skip

    def bfloat16_folder(self) -> Path:
        source = self.gguf("F16")
        return self._make(
            f"{self._model.stem}.bfloat16", "transformers", "hugging_face", "export",
            source=str(source),
        )  # fmt: skip

    def _make(self, name: str, peer: str, module: str, do: str, **arguments: object) -> Path:
        """Return the file of that name; one that appears is whole."""
        target = self._folder / name
        if target.exists():
            return target
        self._folder.mkdir(parents=True, exist_ok=True)
        part, worker = self._folder / f"part.{name}", self._start(peer, module)
        try:
            worker.ask(do, target=str(part), **arguments)
        finally:
            worker.close()
        return part.rename(target)
