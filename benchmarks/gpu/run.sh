#!/bin/sh
# Measures the GPU and keeps the figures: benchmarks/results/gpu.json, and decode_gpu.json of the demo
# model and Transformers. As tests/gpu/run.sh, PYTHON, BUILD and CMAKE_ARGS may be set. The lines are
# shown, and in BUILD/gpu.jsonl, in any case.
set -eu

export PYTHON="${PYTHON:-python3}"
build=${BUILD:-build/gpu}
"$PYTHON" tests/gpu/require_gpu.py
mkdir -p "$build"
tests/gpu/build.sh "$build" gpu_benchmark _core
failed=0
"$build/benchmarks/gpu_benchmark" --json "$build/gpu.jsonl" || failed=1
export PYTHONPATH="$build/python"
"$PYTHON" benchmarks/gpu.py "$build/gpu.jsonl"
if "$PYTHON" -c 'from medusa_native.demo_model import demo_model; demo_model()'; then
  "$PYTHON" benchmarks/decode.py --device cuda --limit 4 --rows 16,64 --name decode_gpu || failed=1
else
  echo "without the demo model: its heads, and Transformers, were not timed"
fi
exit $failed
