#!/bin/sh
# Measures the GPU and keeps the figures: benchmarks/results/gpu.json. As tests/gpu/run.sh, PYTHON,
# BUILD and CMAKE_ARGS may be set. The lines are shown, and in BUILD/gpu.jsonl, in any case.
set -eu

export PYTHON="${PYTHON:-python3}"
build=${BUILD:-build/gpu}
"$PYTHON" tests/gpu/require_gpu.py
mkdir -p "$build"
tests/gpu/build.sh "$build" gpu_benchmark _core
failed=0
"$build/benchmarks/gpu_benchmark" --json "$build/gpu.jsonl" || failed=1
PYTHONPATH="$build/python" "$PYTHON" benchmarks/gpu.py "$build/gpu.jsonl"
exit $failed
