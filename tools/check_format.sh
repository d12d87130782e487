#!/bin/sh
# Every tracked C++ file is as clang-format writes it; says so and passes where clang-format is absent.
# usage: tools/check_format.sh [--fix]
set -eu
cd "$(dirname "$0")/.."
format=${CLANG_FORMAT:-clang-format}
if ! command -v "$format" >/dev/null 2>&1; then
  echo "format: no clang-format here, not checked"
  exit 0
fi
if ! git rev-parse --git-dir >/dev/null 2>&1; then
  echo "format: not a git checkout, not checked"
  exit 0
fi
if [ "${1:-}" = --fix ]; then
  git ls-files -z '*.h' '*.cc' '*.cu' '*.cuh' | xargs -0 -r "$format" -i
  exit 0
fi
if ! git ls-files -z '*.h' '*.cc' '*.cu' '*.cuh' | xargs -0 -r "$format" --dry-run -Werror; then
  echo "format: run 'make format'" >&2
  exit 1
fi
echo "format: ok"
