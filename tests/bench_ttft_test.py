"""`redknot bench ttft` on tiny random models: each mode asked for beside dense, its arithmetic counted, and how far its
time is from its share of it."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import tiny_model

REDKNOT = os.environ["REDKNOT"]


class BenchTtftTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.models = {n: str(tiny_model.write(pathlib.Path(folder.name) / f"tiny{n}", layers=n)) for n in (1, 2)}

    def bench(self, *arguments, layers=2):
        env = {k: v for k, v in os.environ.items() if not k.startswith("REDKNOT_")}
        command = [REDKNOT, "bench", "ttft", "-m", self.models[layers], "--documents", "4", "--document-tokens", "64",
                   "--question-tokens", "16", "--lead-tokens", "16", "--company", "none", "--threads", "1", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)

    def modes(self, *arguments, layers=2):
        done = self.bench("--json", *arguments, layers=layers)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {m["mode"]: m for m in json.loads(done.stdout)["modes"]}

    def test_asked_modes_stand_beside_dense_and_time_beside_arithmetic(self):
        modes = self.modes("--repeats", "1", "--mode", "selective:0.25", "--mode", "reuse", "--mode", "reuse", "--mode", "dense")
        self.assertEqual(list(modes), ["dense", "selective:0.25", "reuse"])
        dense, selective, reuse = modes.values()
        self.assertEqual(dense["active_rows"], 16 + 4 * 64 + 16)
        self.assertEqual(selective["active_rows"], 3 * 64 // 4 + 16)  # behind its lead a document is exact
        self.assertEqual(dense["overhead"], 0)
        self.assertLess(reuse["flops"], selective["flops"])
        self.assertLess(selective["flops"], dense["flops"])
        for mode in (selective, reuse):
            time, arithmetic = mode["ttft_ms"] / dense["ttft_ms"], mode["flops"] / dense["flops"]
            self.assertAlmostEqual(mode["overhead"], time / arithmetic - 1, places=6)

    def test_without_mode_all_are_measured_and_differ_where_rows_do(self):
        everything = ["dense", "prefix", "boundary", "reuse", "selective:0.5"]
        for layers, least in ((1, 0), (2, 1e-7)):
            modes = self.modes("--repeats", "2", "--ratio", "0.5", layers=layers)
            self.assertEqual(list(modes), everything)
            for name in ("boundary", "reuse", "selective:0.5"):
                self.assertGreaterEqual(modes[name]["kl"], least)
                self.assertLess(modes[name]["kl"], 1 if layers == 2 else 1e-6, f"{layers} layers, {name}")

    def test_the_table_has_a_line_a_mode(self):
        done = self.bench("--repeats", "1", "--mode", "reuse")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("overhead", done.stdout)
        self.assertEqual(sum(line.startswith(("dense ", "reuse ")) for line in done.stdout.splitlines()), 2)

    def test_an_unknown_mode_is_wrong_usage(self):
        done = self.bench("--mode", "reus")
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("reus", done.stderr)


if __name__ == "__main__":
    unittest.main()
