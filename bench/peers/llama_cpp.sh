#!/bin/sh
# llama.cpp beside RedKnot: same file, same cores, interleaved, best of llama.cpp's flash-attention
# settings. Builds llama-bench from the source distribution of llama-cpp-python on first use.
#
# usage: bench/peers/llama_cpp.sh build
#        bench/peers/llama_cpp.sh run MODEL.gguf OUT.json [ROUNDS]
# environment: PEER_DIR (default build/peer), REDKNOT (default build/redknot), THREADS (default: all),
#   JOBS (compile jobs), PREFILL ("512 2048 7936"), DEPTH ("0 7936")
set -eu
cd "$(dirname "$0")/../.."
version=0.3.36
peer=${PEER_DIR:-build/peer}
bench=$peer/llama-bench

build() {
  if [ -x "$bench" ]; then return; fi
  mkdir -p "$peer"
  if ! ls "$peer"/llama_cpp_python-*.tar.gz >/dev/null 2>&1; then
    python3 -m pip download -q --no-deps --no-binary llama-cpp-python -d "$peer" \
      llama-cpp-python==$version
  fi
  tar -xzf "$peer"/llama_cpp_python-*.tar.gz -C "$peer"
  source=$(echo "$peer"/llama_cpp_python-*/vendor/llama.cpp)
  cmake -S "$source" -B "$peer/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_COMMON=ON \
    -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache
  cmake --build "$peer/build" -j "${JOBS:-$(nproc)}" --target llama-bench
  cp "$peer/build/bin/llama-bench" "$bench"
}

case ${1:-} in
  build) build ;;
  run)
    build
    exec python3 bench/peers/compare.py --bench "$bench" --redknot "${REDKNOT:-build/redknot}" \
      --model "$2" --out "$3" --rounds "${4:-3}" --threads "${THREADS:-$(nproc)}" \
      --prefill ${PREFILL:-512 2048 7936} --depth ${DEPTH:-0 7936}
    ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
