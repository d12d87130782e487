#!/bin/sh
# Runs every fuzz target of a build for some seconds, from its seeds in corpus/<target>/ and with the
# words of <target>.dict where there is one.
#   tests/fuzz/run.sh BUILD_DIR [SECONDS_EACH] [TARGET...]
# What is found on the way stays in BUILD_DIR/corpus; a crash leaves its input there and fails.
set -eu
build=${1:?usage: run.sh BUILD_DIR [SECONDS_EACH] [TARGET...]}
seconds=${2:-60}
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 2 ]; then
  shift 2
  targets=$*
else
  targets=$(cd "$here" && ls ./*_fuzz.cc | sed 's|^./||; s|_fuzz.cc$||')
fi
failed=""
for target in $targets; do
  program=$build/tests/fuzz/${target}_fuzz
  if [ ! -x "$program" ]; then
    echo "fuzz: $program is not built" >&2
    failed="$failed $target"
    continue
  fi
  found=$build/corpus/$target
  mkdir -p "$found"
  seeds=""
  [ -d "$here/corpus/$target" ] && seeds=$here/corpus/$target
  [ "$target" = chat_template ] && seeds=$here/../golden/template/sources
  words=""
  [ -f "$here/$target.dict" ] && words=-dict=$here/$target.dict
  echo "fuzz: $target, $seconds s"
  # shellcheck disable=SC2086
  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 "$program" "$found" $seeds $words \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 -seed=1 \
    -max_len=65536 -artifact_prefix="$found-" -print_final_stats=1 >"$build/$target.log" 2>&1 ||
    failed="$failed $target"
  grep -E "ERROR|SUMMARY|stat::number_of_executed_units" "$build/$target.log" || true
done
if [ -n "$failed" ]; then
  echo "fuzz: failed:$failed" >&2
  exit 1
fi
