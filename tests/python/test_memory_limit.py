"""Too little memory is an error that says so, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import resource, sys
from medusa_native import Decoder, OutOfMemory, SamplingParams

model = sys.argv[1]
params = SamplingParams(max_tokens=8, ignore_eos=True)
expected = Decoder(model, num_threads=1, max_model_len=64).generate([1, 2, 3], params)[0].outputs
for line in open("/proc/self/status"):
    if line.startswith("VmSize:"):
        now = int(line.split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + (256 << 20), resource.RLIM_INFINITY))
big = {"kv_cache_memory": 1 << 34, "max_model_len": 500_000, "max_num_seqs": 64}
for _ in range(20):
    try:
        Decoder(model, num_threads=1, **big)
    except OutOfMemory as error:
        print(error)
    else:
        sys.exit("16 GiB within 256 MiB?")
assert Decoder(model, num_threads=1, max_model_len=64).generate([1, 2, 3], params)[0].outputs == expected
"""


def test_the_machine_has_too_little(tmp_path: Path) -> None:
    """Within an address space that 16 GiB of cache cannot fit, twenty times over."""
    from tiny_model import save_model

    model = save_model(tmp_path, max_position_embeddings=500_000)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 20
    assert set(done.stdout.splitlines()) != {""}
