#!/bin/sh
# Runs tests/gpu, or other Python files, with the emulated device for a GPU, over a build that has
# tests and the Python module: tests/gpu/emulated.sh build/dev [pytest or python arguments]
set -eu

build=$1
shift
cmake --build "$build" --target emulated_core >/dev/null
package=$build/emulated_python
rm -rf "$package"
mkdir -p "$package"
cp -r python/medusa_native "$package"
rm -f "$package"/medusa_native/_core*.so
cp "$build"/tests/cuda_emulation/_core*.so "$package/medusa_native"
[ $# -gt 0 ] || set -- -m pytest tests/gpu
PYTHONPATH=$package exec "${PYTHON:-python3}" "$@"
