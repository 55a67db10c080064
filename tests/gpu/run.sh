#!/bin/sh
# The GPU's ring: kernel and engine tests on a device, Python on a device, then compute-sanitizer
# over the short tests. Fails if anything does, and where there is no GPU.
#
#   PYTHON=python3 BUILD=build/gpu CMAKE_ARGS= tests/gpu/run.sh
set -u

export PYTHON="${PYTHON:-python3}"
build=${BUILD:-build/gpu}
failed=
# As tests/cuda_emulation names them: all kernels, without the long contexts.
short='*/BF16_device:-*long_contexts*:*three_thousand*'
engine='*medusa_equals_plain*'

step() {  # step NAME command...
  name=$1
  shift
  echo "== $name"
  "$@" || failed="$failed $name"
}

"$PYTHON" tests/gpu/require_gpu.py || exit 1
mkdir -p "$build"
tests/gpu/build.sh "$build" gpu_test _core || exit 1
test=$build/tests/cuda_emulation/gpu_test

step kernels_and_engine "$test" --gtest_brief=1
step portable_products env MEDUSA_CUDA_KERNELS=portable "$test" --gtest_brief=1 \
  --gtest_filter='*CudaLinearTest*:*CudaBlocksTest*:*CudaRowLawTest*'
step python env PYTHONPATH="$build/python" "$PYTHON" -m pytest -o minversion=7 -W default tests/gpu

if sanitizer=$(command -v compute-sanitizer); then
  for tool in memcheck racecheck initcheck synccheck; do
    step "$tool" timeout 600 "$sanitizer" --tool "$tool" --error-exitcode 1 \
      "$test" --gtest_brief=1 --gtest_filter="$short"
  done
  step memcheck_engine timeout 600 "$sanitizer" --tool memcheck --error-exitcode 1 \
    "$test" --gtest_brief=1 --gtest_filter="$engine"
else
  echo "== compute-sanitizer is not on PATH: memory, races and barriers were not checked"
fi

if [ -n "$failed" ]; then
  echo "test-gpu: FAILED:$failed"
  exit 1
fi
echo "test-gpu: passed"
