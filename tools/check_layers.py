#!/usr/bin/env python3
"""Who may include whom: checks every #include under src/ against the table below.

Also: includes are written from src/; third-party headers appear only in .cc and .cu files (CUDA's own in .cuh too); headers
start with #pragma once, but for x_body.h (code that variants compile several times); a project header that is named exists. Changing the table needs a note in
docs/decisions/.

usage: check_layers.py [--self-test] [SRC]
"""
import pathlib
import re
import sys
import tempfile

ALLOWED = {
    "base": set(),
    "tensor": {"base"},
    "kernels": {"base", "tensor"},
    "tier": {"base", "tensor"},
    "text": {"base", "tensor"},
    "kv": {"base", "tensor", "kernels", "tier"},
    "model": {"base", "tensor", "kernels", "kv"},
    "engine": {"base", "tensor", "kernels", "kv", "model"},
    "serve": {"base", "text", "engine"},
    "profile": {"base", "tensor", "text", "kv", "model", "engine"},
    "rag": {"base", "tensor", "text", "kv", "model", "engine"},
    "main": None,  # anything
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
GENERATED = {"main/build_info.h"}
# The C and C++ standard libraries have no extension; these C, POSIX and compiler headers do.
SYSTEM = re.compile(
    r"^(sys/|linux/|netinet/|arpa/)|"
    r"^(dirent|dlfcn|errno|fcntl|immintrin|limits|poll|pthread|pwd|sched|signal|spawn|stdint|string|"
    r"time|unistd|cpuid|x86intrin)\.h$"
)
# The CUDA language's own headers: device code (.cuh) cannot do without them.
CUDA = re.compile(r"^cuda(_\w+)?\.h$")
STANDARD = re.compile(r"^[a-z0-9_]+$")


def third_party(name):
    return not (STANDARD.match(name) or SYSTEM.match(name))


def may_include(folder, other):
    if folder == other:
        return True
    allowed = ALLOWED[folder]
    return allowed is None or other in allowed


def problems_of(src, path):
    relative = path.relative_to(src)
    folder = relative.parts[0]
    if len(relative.parts) < 2 or folder not in ALLOWED:
        yield f"src/{relative}:1: '{folder}' is no folder of the table"
        return
    is_test = path.stem.endswith("_test") or path.stem.endswith("_testing")
    header = path.suffix in (".h", ".cuh")
    text = path.read_text(encoding="utf-8", errors="replace")
    if header and not path.stem.endswith("_body") and "#pragma once" not in text:
        yield f"src/{relative}:1: a header without #pragma once"
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        bracket, name = match.groups()
        where = f"src/{relative}:{number}"
        if bracket == "<":
            if name.split("/")[0] in ALLOWED and (src / name).exists():
                yield f"{where}: <{name}> is ours and takes quotes"
            elif path.suffix == ".cuh" and CUDA.match(name):
                pass
            elif header and not is_test and third_party(name):
                yield f"{where}: third-party header <{name}> in a header; only .cc and .cu may"
            continue
        other = name.split("/")[0]
        if other not in ALLOWED or "/" not in name:
            yield f'{where}: "{name}" is not written from src/'
        elif name not in GENERATED and not (src / name).is_file():
            yield f'{where}: "{name}" does not exist'
        elif not may_include(folder, other):
            yield f"{where}: {folder} may not include {other} ({name})"


def check(src):
    problems = []
    for path in sorted(src.rglob("*")):
        if path.suffix in (".h", ".cc", ".cu", ".cuh") and path.is_file():
            problems.extend(problems_of(src, path))
    return problems


def self_test():
    cases = [
        ("kv/a.h", "#pragma once\n#include <vector>\n#include <sys/mman.h>\n", None),
        ("base/b.h", '#pragma once\n#include "kv/a.h"\n', "base may not include kv"),
        ("model/c.cc", '#include "kv/a.h"\n#include <boost/json.hpp>\n', None),
        ("tier/d.cc", '#include "text/e.h"\n', "tier may not include text"),
        ("text/e.h", "#pragma once\n#include <boost/json.hpp>\n", "third-party"),
        ("kernels/g.cuh", "#pragma once\n#include <cuda_bf16.h>\n", None),
        ("kernels/h.h", "#pragma once\n#include <cuda_bf16.h>\n", "third-party"),
        ("text/f.h", "#include <string>\n", "pragma once"),
        ("engine/g.cc", '#include "h.h"\n', "not written from src/"),
        ("engine/i.cc", '#include "kv/none.h"\n', "does not exist"),
        ("engine/j.cc", "#include <kv/a.h>\n", "takes quotes"),
        ("stray/k.cc", "\n", "no folder of the table"),
        ("main/l.cc", '#include "kv/a.h"\n#include "text/e.h"\n', None),
    ]
    with tempfile.TemporaryDirectory() as folder:
        src = pathlib.Path(folder)
        for name, text, _ in cases:
            (src / name).parent.mkdir(parents=True, exist_ok=True)
            (src / name).write_text(text)
        found = check(src)
        for name, _, want in cases:
            hits = [p for p in found if p.startswith(f"src/{name}:")]
            good = not hits if want is None else len(hits) == 1 and want in hits[0]
            if not good:
                print(f"self-test: {name}: wanted {want!r}, got {hits}")
                return 1
    print("layers: the checker finds what it should")
    return 0


def main(arguments):
    if "--self-test" in arguments:
        return self_test()
    src = pathlib.Path(arguments[0]) if arguments else pathlib.Path(__file__).resolve().parent.parent / "src"
    problems = check(src)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"layers: {len(problems)} problems", file=sys.stderr)
        return 1
    print("layers: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
