#!/usr/bin/env python3
"""llama-bench beside `redknot bench`: same file, same cores, round by round; medians and ratios as JSON.

The peer's figure is the better of its flash-attention settings, each by its own median."""
import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess


def output_of(command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def peer(arguments, kind, size, flash):
    command = [arguments.bench, "-m", arguments.model, "-t", str(arguments.threads), "-r", "1", "-o", "json",
               "-fa", str(flash)]
    if kind == "prefill":
        command += ["-p", str(size), "-n", "0"]
    else:
        command += ["-p", "0", "-n", "64", "-d", str(size)]
    rows = json.loads(output_of(command))
    return command, rows[-1]["avg_ts"], rows[-1].get("build_commit", "")


def ours(arguments, kind, size):
    command = [arguments.redknot, "bench", kind, "-m", arguments.model, "--threads", str(arguments.threads),
               "--tokens" if kind == "prefill" else "--depth", str(size), "--json"]
    return command, json.loads(output_of(command))["tokens_per_s"]


def shown(command, arguments):
    """The command without this machine's paths."""
    return " ".join(command[1:]).replace(arguments.model, os.path.basename(arguments.model))


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--redknot", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prefill", type=int, nargs="*", default=[512, 2048, 7936])
    parser.add_argument("--depth", type=int, nargs="*", default=[0, 7936])
    arguments = parser.parse_args()

    cases = [("prefill", n) for n in arguments.prefill] + [("decode", n) for n in arguments.depth]
    samples = {case: {"ours": [], 0: [], 1: []} for case in cases}
    commands, build = {}, ""
    for round_number in range(arguments.rounds):
        for case in cases:
            for flash in (0, 1):
                commands[case, flash], speed, build = peer(arguments, *case, flash)
                samples[case][flash].append(speed)
            commands[case, "ours"], speed = ours(arguments, *case)
            samples[case]["ours"].append(speed)
            print(f"round {round_number + 1}, {case[0]} {case[1]}: ours {samples[case]['ours'][-1]:.1f}, peer "
                  f"{samples[case][0][-1]:.1f} / {samples[case][1][-1]:.1f} (flash attention off / on) tok/s",
                  flush=True)

    results = []
    for case in cases:
        best = max((0, 1), key=lambda flash: statistics.median(samples[case][flash]))
        our, their = statistics.median(samples[case]["ours"]), statistics.median(samples[case][best])
        results.append({
            "what": case[0], "tokens" if case[0] == "prefill" else "depth": case[1],
            "ours_tokens_per_s": our, "peer_tokens_per_s": their, "ratio": our / their,
            "peer_flash_attention": bool(best), "ours_samples": samples[case]["ours"],
            "peer_samples_flash_off": samples[case][0], "peer_samples_flash_on": samples[case][1],
            "ours_command": shown(commands[case, "ours"], arguments),
            "peer_command": shown(commands[case, best], arguments),
        })
    document = {
        "bench": "peers/llama_cpp", "model": os.path.basename(arguments.model), "threads": arguments.threads,
        "rounds": arguments.rounds, "cpu": cpu_name(), "system": platform.platform(),
        "commit": output_of(["git", "rev-parse", "HEAD"]).strip(), "peer": f"llama.cpp {build}",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "results": results,
    }
    with open(arguments.out, "w", encoding="utf-8") as f:
        json.dump(document, f, indent=1)
        f.write("\n")
    for r in results:
        size = r.get("tokens", r.get("depth"))
        print(f"{r['what']:8} {size:6}  ours {r['ours_tokens_per_s']:8.1f}  peer {r['peer_tokens_per_s']:8.1f}  "
              f"ratio {r['ratio']:.2f}")


if __name__ == "__main__":
    main()
