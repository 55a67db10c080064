#!/bin/sh
# Runs pytest on the Python module of an ASan build (preset "asan", GCC):
#
#   tests/python/under_asan.sh build/asan tests/python/loading/test_damage.py
#
# PYTHON names the interpreter the build was made for. The interpreter itself is not instrumented,
# so ASan is loaded before it, with the C++ library whose exceptions ASan must see, and CPython's
# own leaks are not counted.
set -eu

build=$1
shift
package=$build/python
rm -rf "$package"
mkdir -p "$package"
cp -r python/medusa_native "$package"
cp "$build"/csrc/bindings/_core*.so "$package/medusa_native"

runtime=$(ldd "$package"/medusa_native/_core*.so | awk '/lib(asan|stdc\+\+)\.so/ { print $3 }')
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
LD_PRELOAD="$(echo $runtime)" PYTHONPATH=$package exec "${PYTHON:-python3}" -m pytest "$@"
