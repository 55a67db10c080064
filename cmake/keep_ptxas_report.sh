#!/bin/sh
# Compiler launcher: runs the compiler and keeps what ptxas reports of each kernel beside the object,
# in OBJECT.ptxas. Everything else it says is passed on.
object= before=
for argument; do
  [ "$before" = "-o" ] && object=$argument
  before=$argument
done
report=${object:-/dev/null}.ptxas
[ -n "$object" ] || exec "$@"
"$@" 2>"$report"
status=$?
grep -v -e '^ptxas info' -e '^    [0-9]* bytes stack frame' "$report" >&2
exit $status
