"""`redknot demo` on a tiny random model of one layer, where every mode must answer what dense answers."""
import json
import math
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import tiny_model

REDKNOT = os.environ["REDKNOT"]
MODES = ["dense", "prefix", "reuse", "boundary", "selective"]
TOKENS = ["prompt", "prefix_cached", "document_cached", "recomputed", "fresh", "relocated", "generated"]
BOUNDARY_ROWS, RATIO, MAX_TOKENS = 32, 0.2, 4


def demo(*arguments):
    env = {k: v for k, v in os.environ.items() if not k.startswith("REDKNOT_")}
    return subprocess.run([REDKNOT, "demo", *arguments], env=env, capture_output=True, text=True, timeout=280)


class DemoTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.model = str(tiny_model.write(pathlib.Path(folder.name) / "tiny", layers=1))
        common = ["-m", cls.model, "--max-tokens", str(MAX_TOKENS), "--boundary-rows", str(BOUNDARY_ROWS),
                  "--ratio", str(RATIO), "--company", "none"]
        cls.json_run = demo(*common, "--json")
        cls.table_run = demo(*common)
        cls.results = json.loads(cls.json_run.stdout) if cls.json_run.returncode == 0 else []

    def of(self, mode):
        return [r for r in self.results if r["mode"] == mode]

    def test_exit_codes(self):
        self.assertEqual(self.json_run.returncode, 0, self.json_run.stderr)
        self.assertEqual(self.table_run.returncode, 0, self.table_run.stderr)
        self.assertEqual(demo("-m", self.model, "--max-tokens", "0").returncode, 2)
        self.assertEqual(demo("-m", self.model, "--ratio", "1.5").returncode, 2)
        self.assertEqual(demo("-m", self.model + "/none").returncode, 1)

    def test_every_question_in_every_mode_in_order(self):
        self.assertEqual([r["mode"] for r in self.results], MODES * (len(self.results) // len(MODES)))
        self.assertGreaterEqual(len(self.results), 3 * len(MODES))
        for i, result in enumerate(self.results):
            self.assertEqual(set(result), {"mode", "question", "ttft_ms", "tokens", "fit", "kl", "answer"})
            self.assertEqual(list(result["tokens"]), TOKENS)
            self.assertEqual(result["question"], self.results[i - i % len(MODES)]["question"])
            self.assertGreater(result["ttft_ms"], 0)

    def test_counts_add_up(self):
        for i, result in enumerate(self.results):
            with self.subTest(mode=result["mode"], question=result["question"]):
                t = result["tokens"]
                self.assertGreaterEqual(min(t.values()), 0)
                self.assertEqual(
                    t["prefix_cached"] + t["document_cached"] + t["recomputed"] + t["fresh"], t["prompt"]
                )
                self.assertLessEqual(t["relocated"], t["document_cached"])
                self.assertLessEqual(t["generated"], MAX_TOKENS)
                self.assertEqual(t["prompt"], self.results[i - i % len(MODES)]["tokens"]["prompt"])

    def test_dense_computes_everything_and_prefix_reuses_what_stands_in_order(self):
        for result in self.of("dense"):
            self.assertEqual(result["tokens"]["fresh"], result["tokens"]["prompt"])
        prefix = [r["tokens"] for r in self.of("prefix")]
        for t in prefix:
            self.assertEqual(t["document_cached"] + t["recomputed"] + t["relocated"], 0)
        self.assertGreater(prefix[0]["prefix_cached"], prefix[0]["prompt"] // 2)

    def test_reuse_takes_every_document_wherever_it_stands(self):
        for result in self.of("reuse"):
            t = result["tokens"]
            self.assertEqual(t["recomputed"], 0)
            self.assertLess(t["fresh"], 100)
            self.assertGreater(t["document_cached"], t["prompt"] // 2)
        self.assertGreater(sum(r["tokens"]["relocated"] for r in self.of("reuse")), 1000)

    def test_boundary_recomputes_the_first_rows(self):
        for reuse, boundary in zip(self.of("reuse"), self.of("boundary")):
            r, b = reuse["tokens"], boundary["tokens"]
            self.assertEqual(b["fresh"], r["fresh"])
            self.assertGreater(b["recomputed"], 0)
            self.assertEqual(b["recomputed"] % BOUNDARY_ROWS, 0)

    def test_selective_recomputes_the_share_that_was_asked_for(self):
        for reuse, selective in zip(self.of("reuse"), self.of("selective")):
            r, s = reuse["tokens"], selective["tokens"]
            self.assertEqual(s["fresh"], r["fresh"])
            self.assertGreater(s["recomputed"], 0)
            self.assertLess(s["recomputed"], RATIO * (r["document_cached"] + 1) + 16)

    # A document's rows in place of another's, or spliced at another place: it moves the distributions of
    # a one-layer model away from dense by far more than rounding.
    def test_every_mode_answers_what_dense_answers(self):
        for result in self.results:
            with self.subTest(mode=result["mode"], question=result["question"]):
                self.assertIsNotNone(result["kl"])
                self.assertLess(result["kl"], 1e-3)
                self.assertTrue(math.isfinite(result["kl"]))
        for result in self.of("prefix"):
            dense = next(d for d in self.of("dense") if d["question"] == result["question"])
            self.assertEqual(result["answer"], dense["answer"])

    def test_the_table_says_what_the_json_says(self):
        lines = self.table_run.stdout.splitlines()
        head = next(i for i, line in enumerate(lines) if re.match(r"\W*mode\b.*mean TTFT", line))
        cells = lambda line: [c for c in re.split(r"\s{2,}|\s*[|│]\s*", line.strip()) if c]
        self.assertEqual(
            cells(lines[head]),
            ["mode", "mean TTFT", "speed-up", "reused", "relocated", "recomputed", "KL to dense",
             "same tokens", "gate"],
        )
        rows = [cells(line) for line in lines[head + 1:]]
        rows = {row[0]: row for row in rows if row and row[0] in MODES}
        self.assertEqual(list(rows), MODES)
        for mode in MODES:
            row, results = rows[mode], [r["tokens"] for r in self.of(mode)]
            prompt = sum(t["prompt"] for t in results)
            share = lambda *names: f"{100 * sum(t[n] for t in results for n in names) / prompt:.1f} %"
            self.assertRegex(row[1], r"^\d+ ms$")
            self.assertRegex(row[2], r"^[\d.]+x$")
            self.assertEqual(row[3], share("prefix_cached", "document_cached"))
            self.assertEqual(row[4], share("relocated"))
            self.assertEqual(row[5], share("recomputed"))
            self.assertEqual(row[8], "exact" if mode in ("dense", "prefix") else "bypassed")
        self.assertEqual(rows["dense"][2], "1.0x")
        self.assertEqual(rows["prefix"][7], "100.0 %")


if __name__ == "__main__":
    unittest.main()
