from __future__ import annotations

import pytest

from medusa_native import _core


def pytest_sessionstart() -> None:
    """Nothing here means anything without a GPU: that is a failure, not a skip."""
    if reason := _core.why_no_cuda():
        pytest.exit(f"nothing was tested on a GPU: {reason}", returncode=1)
