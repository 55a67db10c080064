#!/bin/sh
# Builds the project for a GPU: tests/gpu/build.sh FOLDER TARGET...
#
# Uses cmake, and ninja if it is there, of PATH, and PYTHON, the interpreter the module is for. What
# CMAKE_ARGS holds goes to cmake: -DFETCHCONTENT_SOURCE_DIR_GOOGLETEST=DIR where GoogleTest is not
# installed and cannot be fetched. FOLDER/python is then a package that imports.
set -eu

build=$1
shift
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
generator=${CMAKE_GENERATOR:-$(command -v ninja >/dev/null && echo Ninja || echo 'Unix Makefiles')}
# shellcheck disable=SC2086
cmake -S . -B "$build" -G "$generator" -DCMAKE_BUILD_TYPE=Release -DMEDUSA_CUDA=ON \
  -DMEDUSA_BUILD_TESTS=ON -DPython_EXECUTABLE="$PYTHON" ${CMAKE_ARGS:-} >"$build.log" ||
  { cat "$build.log"; exit 1; }
cmake --build "$build" --target "$@" >>"$build.log" ||
  { tail -40 "$build.log"; exit 1; }
rm -rf "$build/python"
mkdir -p "$build/python"
cp -r python/medusa_native "$build/python"
rm -f "$build"/python/medusa_native/_core*.so
cp "$build"/csrc/bindings/_core*.so "$build/python/medusa_native"
