"""From a contender to a worker that has loaded: environments, files, processes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import common
from peers.contenders import Contender
from peers.environments import InstallError, interpreter
from peers.files import Files
from peers.process import Worker

OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}  # models are files; nobody is asked


class Opener:
    """Interpreters and files that a run has made so far, or could not make."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args, self._folder = args, Path(args.folder).resolve()
        self._pythons: dict[str, Path | InstallError] = {"ours": Path(sys.executable)}
        self._pythons |= {name: Path(path) for name, path in args.python}
        model = Path(common.resolve_model(args.model)).resolve()
        self.files = Files(model, self._folder / "models", self.start, args.threads)

    def start(self, peer: str, module: str, name: str | None = None) -> Worker:
        """Start a worker, making its environment where there is none."""
        variables = {"OMP_NUM_THREADS": str(self._args.threads)}
        if peer != "ours":
            variables |= OFFLINE
        log = self._folder / "logs" / f"{name or module}.log"
        return Worker(self._interpreter(peer), module, log, os.environ | variables)

    def open(self, contender: Contender) -> tuple[Worker, dict[str, Any]]:
        """Start a worker and let it load."""
        model = self._model(contender.load["model"])
        worker = self.start(contender.peer, contender.module, contender.name)
        try:
            return worker, worker.ask("load", **contender.load | {"model": str(model)})
        except BaseException:  # an interrupt too: a stopped process would stay for ever
            worker.close()
            raise

    def _model(self, name: str) -> Path:
        return self.files.bfloat16_folder() if name == "folder" else self.files.gguf(name)

    def _interpreter(self, peer: str) -> Path:
        """Return a peer's interpreter; what could not be made once is not tried again."""
        if peer not in self._pythons:
            try:
                seconds = 60 * self._args.install_minutes
                self._pythons[peer] = interpreter(peer, self._folder, seconds)
            except InstallError as error:
                self._pythons[peer] = error
        found = self._pythons[peer]
        if isinstance(found, InstallError):
            raise found
        return found
