"""Requests in flight on one engine, driven by whichever thread waits for one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from medusa_native.metrics import AcceptanceWatch, summarize, total
from medusa_native.outputs import TotalMetrics

if TYPE_CHECKING:
    from medusa_native import _core
    from medusa_native.request import Request


class RequestPool:
    """Shares one engine between threads.

    Every engine call holds one lock. A step advances all requests in flight, whoever submitted
    them, so threads that wait at the same time are decoded in one batch. The lock is reentrant
    because the collector may close an abandoned stream in the middle of a call.
    """

    def __init__(self, engine: _core.Engine, watch: AcceptanceWatch) -> None:
        self._engine = engine
        self._watch = watch
        self._lock = threading.RLock()
        self._running: dict[int, Request] = {}

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests; on an error none stays queued."""
        try:
            with self._lock:
                for request in requests:
                    request.request_id = self._engine.submit(
                        request.prompt_token_ids, request.sampling
                    )
                    self._running[request.request_id] = request
        except BaseException:
            self.cancel(requests)
            raise

    def advance(self, is_done: Callable[[], bool]) -> None:
        """Run one step, unless another thread's step has meanwhile brought what was waited for."""
        with self._lock:
            if is_done():
                return
            for output in self._engine.step():
                request = self._running.get(output.request_id)
                if request is not None:
                    self._deliver(request, output)

    def _deliver(self, request: Request, output: _core.StepOutput) -> None:
        kept = request.take(output)
        if request.answer.finish_reason is not None:
            self._close(request, finished=output.finish_reason != "none")
        request.add_chunk(kept)

    def cancel(self, requests: Sequence[Request]) -> None:
        """Stop those that still run; their answers end with "abort"."""
        with self._lock:
            for request in requests:
                if request.request_id in self._running:
                    request.answer.finish_reason = "abort"
                    self._close(request, finished=False)

    def _close(self, request: Request, *, finished: bool) -> None:
        """Take the counters and let the engine forget the request."""
        request_id = request.request_id
        if not finished:
            self._engine.cancel(request_id)
        counters = self._engine.metrics(request_id)
        request.metrics = summarize(counters, len(request.answer.token_ids))
        self._engine.forget(request_id)
        del self._running[request_id]
        self._watch.look(self._engine.totals())

    def metrics(self) -> TotalMetrics:
        """Return the counters of all requests so far."""
        with self._lock:
            return total(self._engine.totals())
