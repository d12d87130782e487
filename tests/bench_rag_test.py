"""`redknot bench rag` on tiny random models: every sample in every mode, resumed after an interruption, the same
numbers for the same seed, and errors for what is wrong."""
import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest

import tiny_model

REDKNOT = os.environ["REDKNOT"]
MODES = ["dense", "prefix", "reuse", "boundary:8"]
TASKS = ["mk", "mv", "hop2", "vt2", "cwe"]
LENGTH, SAMPLES, MAX_TOKENS = 1024, 2, 4
# What a clock measures; everything else must repeat.
TIMES = {"ttft_ms", "ttft_speedup", "ttft_speedup_interval", "tokens_per_s", "ingest_ms", "finished"}


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [without_times(v) for v in value]
    return value


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class BenchRagTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.models = {n: str(tiny_model.write(cls.folder / f"tiny{n}", layers=n)) for n in (1, 2)}
        cls.out = cls.folder / "out"
        cls.first = cls.bench(cls.out, "--json")
        cls.summary = json.loads(cls.first.stdout) if cls.first.returncode == 0 else {"groups": []}

    @classmethod
    def bench(cls, out, *arguments, layers=2, samples=SAMPLES, modes=",".join(MODES)):
        env = {k: v for k, v in os.environ.items() if not k.startswith("REDKNOT_")}
        command = [*cls.command(out, layers, samples, modes), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)

    @classmethod
    def command(cls, out, layers=2, samples=SAMPLES, modes=",".join(MODES)):
        return [REDKNOT, "bench", "rag", "-m", cls.models[layers], "--modes", modes, "-n", str(samples),
                "--lengths", str(LENGTH), "--documents", "4", "--max-tokens", str(MAX_TOKENS), "--seed", "3",
                "--out", str(out), "--threads", "1"]

    def group(self, mode, task, summary=None):
        return next(g for g in (summary or self.summary)["groups"] if g["mode"] == mode and g["task"] == task)

    def test_every_task_in_every_mode(self):
        self.assertEqual(self.first.returncode, 0, self.first.stderr)
        self.assertEqual(self.summary["format"], "redknot.bench.rag/1")
        self.assertEqual(self.summary["samples"], len(TASKS) * SAMPLES)
        self.assertTrue(self.summary["exploratory"])
        self.assertEqual(self.summary, json.loads((self.out / "summary.json").read_text()))
        card = json.loads((self.out / "card.json").read_text())
        self.assertEqual(card["format"], "redknot card")
        self.assertTrue(card["entries"])
        for entry in card["entries"]:  # so few samples earn nothing
            self.assertNotIn(entry["mode"], ("dense", "prefix"))
            self.assertEqual(entry["reaches"], "none")
        seen = {(g["mode"], g["task"], g["length_tokens"]) for g in self.summary["groups"]}
        self.assertEqual(seen, {(m, t, LENGTH) for m in MODES for t in [*TASKS, "all"]})
        for g in self.summary["groups"]:
            rows = g["rows"]
            parts = rows["prefix_cached"] + rows["document_cached"] + rows["recomputed"] + rows["fresh"]
            self.assertAlmostEqual(parts, rows["prompt"])
            self.assertLessEqual(rows["prompt"], LENGTH - MAX_TOKENS)
            self.assertGreater(rows["prompt"], LENGTH * 0.75)
            self.assertGreater(g["ttft_ms"], 0)
            self.assertEqual(g["late_ingests"], 0)

    def test_modes_do_what_they_are(self):
        dense, prefix, reuse, boundary = (self.group(m, "all") for m in MODES)
        self.assertEqual(dense["rows"]["fresh"], dense["rows"]["prompt"])
        self.assertEqual(dense["kl_mean"], 0)
        self.assertEqual(dense["same_answer"], 1)
        self.assertLess(prefix["kl_mean"], 1e-6)
        self.assertEqual(prefix["same_answer"], 1)
        for group in (dense, prefix, reuse, boundary):
            self.assertLess(abs(group["predicted_flops"] / group["flops"] - 1), 0.02)
            self.assertGreater(group["bytes"], 0)
        self.assertEqual(dense["flops_ratio"], 1)
        self.assertGreater(reuse["flops_ratio"], boundary["flops_ratio"])
        self.assertGreater(boundary["flops_ratio"], 1)
        self.assertEqual(reuse["rows"]["recomputed"], 0)
        self.assertGreater(reuse["rows"]["document_cached"], 0)
        # With two layers a spliced row is not what dense has; with more rows recomputed it is nearer.
        self.assertGreater(reuse["kl_mean"], 1e-4)
        self.assertGreater(boundary["rows"]["recomputed"], 0)
        self.assertEqual(boundary["rows"]["recomputed"] % 8, 0)
        low, high = reuse["kl_interval"]
        self.assertLessEqual(low, reuse["kl_mean"])
        self.assertGreaterEqual(high, reuse["kl_mean"])

    def test_one_line_a_sample_with_all_modes_in_rotating_order(self):
        samples = lines_of(self.out / "samples.jsonl")
        self.assertEqual(len(samples), len(TASKS) * SAMPLES)
        self.assertEqual(len({s["id"] for s in samples}), len(samples))
        self.assertGreater(len({s["order"][0] for s in samples}), 1)
        for s in samples:
            self.assertEqual([m["mode"] for m in s["modes"]], MODES)
            self.assertEqual(sorted(s["order"]), list(range(len(MODES))))
            self.assertEqual(s["config"], self.summary["configuration"]["hash"])
            self.assertGreater(s["ingest_ms"], 0)

    def test_same_seed_same_numbers(self):
        again = self.bench(self.folder / "again", "--json")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(without_times(json.loads(again.stdout)), without_times(self.summary))
        strip = lambda path: [[{k: v for k, v in m.items() if not k.endswith("_ms") and k != "tokens_per_s"}
                               for m in s["modes"]] for s in lines_of(path)]
        self.assertEqual(strip(self.folder / "again/samples.jsonl"), strip(self.out / "samples.jsonl"))

    def test_goes_on_after_an_interruption(self):
        out = self.folder / "resumed"
        self.assertEqual(self.bench(out, samples=1).returncode, 0)
        kept = (out / "samples.jsonl").read_text()
        self.assertEqual(len(kept.splitlines()), len(TASKS))
        # A kill in the middle of a line.
        whole = kept.splitlines(keepends=True)
        (out / "samples.jsonl").write_text("".join(whole[:3]) + whole[3][:50])
        run = self.bench(out, "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertTrue((out / "samples.jsonl").read_text().startswith("".join(whole[:3])))
        self.assertEqual(len(lines_of(out / "samples.jsonl")), len(TASKS) * SAMPLES)
        mine, fresh = json.loads(run.stdout), self.summary
        self.assertEqual(without_times(mine["groups"]), without_times(fresh["groups"]))
        other = self.bench(out, modes="dense,reuse")
        self.assertEqual(other.returncode, 1)
        self.assertIn("another configuration", other.stderr)

    def test_a_killed_run_can_be_reported(self):
        out = self.folder / "killed"
        run = subprocess.Popen(self.command(out, samples=100000), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and run.poll() is None:
                if (out / "samples.jsonl").exists() and (out / "samples.jsonl").read_text().count("\n") > 2:
                    break
                time.sleep(0.01)
            self.assertIsNone(run.poll())
        finally:
            run.kill()
            run.wait()
        report = subprocess.run([REDKNOT, "bench", "report", str(out), "--json", "--out", str(self.folder / "after")],
                                capture_output=True, text=True)
        self.assertEqual(report.returncode, 0, report.stderr)
        summary = json.loads(report.stdout)
        self.assertGreater(summary["samples"], 2)
        self.assertNotIn("finished", summary["provenance"])

    def test_one_layer_is_exact_in_every_mode(self):
        run = self.bench(self.folder / "one", "--json", "--tasks", "mk,cwe", layers=1, samples=1)
        self.assertEqual(run.returncode, 0, run.stderr)
        for g in json.loads(run.stdout)["groups"]:
            self.assertLess(g["kl_mean"], 1e-3)

    def test_the_report_is_one_page(self):
        page = (self.out / "report.html").read_text(encoding="utf-8")
        self.assertNotRegex(page, r"<script|https?://|src=|<link|@import|\bnan\b|\binf\b")
        self.assertGreater(page.count("<svg"), 1)
        stack, void = [], {"meta"}

        class Check(html.parser.HTMLParser):
            def handle_starttag(self, tag, attrs):
                if tag not in void:
                    stack.append(tag)

            def handle_endtag(self, tag):
                assert stack.pop() == tag, tag

        Check().feed(page)
        self.assertEqual(stack, [])

    def test_a_set_of_the_users(self):
        path = self.folder / "set.jsonl"
        sample = {"id": "a", "question": "Who?", "answers": ["Ada"],
                  "documents": [{"title": "one", "text": "Ada did it. " * 20}, "Nobody did it. " * 20]}
        long = {**sample, "id": "long", "documents": ["word " * 60] * 10000}
        path.write_text(json.dumps(sample) + "\n\n" + json.dumps(long) + "\n" + json.dumps({**sample, "id": "b"}))
        run = self.bench(self.folder / "set", "--data", str(path), "--json", samples=0)
        self.assertEqual(run.returncode, 0, run.stderr)
        summary = json.loads(run.stdout)
        self.assertEqual(summary["samples"], 2)
        self.assertEqual([s["id"] for s in summary["skipped"]], ["data/long"])
        self.assertRegex(summary["skipped"][0]["why"], r"prompt of \d{6,} tokens .* the context holds 16384")
        self.assertEqual({g["task"] for g in summary["groups"]}, {"data"})
        self.assertIsNone(self.group("reuse", "data", summary)["needle_loss_bound"])
        table = self.bench(self.folder / "set", "--data", str(path), samples=0)
        self.assertEqual(table.returncode, 0)
        self.assertRegex(table.stdout, re.compile(r"^512 +data +boundary:8 +2 ", re.M))

    def test_bad_sets_write_nothing(self):
        path = self.folder / "bad.jsonl"
        good = '{"id":"a","question":"q","answers":["x"],"documents":["d"]}\n'
        for text, message in [
            ("", "no samples"),
            (good + good, ":2: field 'id' is 'a', used in line 1 already"),
            (good + '{"id":"b","answers":["x"],"documents":["d"]}', ":2: field 'question' is missing"),
            ('{"id":"b","question":"q","answers":["x"],"documents":["d",""]}', ":1: field 'documents[1]' is empty"),
            ("nonsense", ":1: no JSON"),
        ]:
            path.write_text(text)
            run = self.bench(self.folder / "never", "--data", str(path))
            self.assertEqual(run.returncode, 1, message)
            self.assertIn(message, run.stderr)
        self.assertEqual(self.bench(self.folder / "never", "--data", str(path) + "x").returncode, 1)
        self.assertEqual(self.bench(self.folder / "never", "--lengths", "32768").returncode, 1)
        self.assertFalse((self.folder / "never").exists())

    def test_wrong_usage(self):
        for arguments in [("--tasks", "mk,mkk"), ("--modes", "warp"), ("--modes", "boundary:x"), ("--lengths", "12"),
                          ("--lengths", "1024,1024"), ("--documents", "1"), ("--max-tokens", "0"), ("-n", "-1"),
                          ("--out", "")]:
            run = self.bench(self.folder / "never", *arguments)
            self.assertEqual(run.returncode, 2, (arguments, run.stderr))
        self.assertIn("did you mean mk?", self.bench(self.folder / "never", "--tasks", "mkk").stderr)

    def test_ways_to_take_rows_in_one_run(self):
        names = ["selective:0.15", "selective:0.15:both"]
        out = self.folder / "select"
        done = self.bench(out, "--tasks", "mk", "--json", modes=",".join(names))
        self.assertEqual(done.returncode, 0, done.stderr)
        blocks, both = (self.group(m, "mk", json.loads(done.stdout)) for m in names)
        self.assertNotEqual(blocks["kl_mean"], both["kl_mean"])
        # Blocks of 16 spend more than the ratio, single rows what is left of it to the row.
        self.assertLess(both["rows"]["recomputed"], blocks["rows"]["recomputed"])
        entries = json.loads((out / "card.json").read_text())["entries"]
        self.assertEqual([e.get("select") for e in entries], [None, "both"])
        done = self.bench(out, "--tasks", "mk", modes="selective:0.15:halves")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'halves' is none of blocks, both, rows", done.stderr)

    def test_documents_at_rest_in_fewer_bits_are_another_card(self):
        out = self.folder / "int8"
        done = self.bench(out, "--kv-store", "int8", "--tasks", "mk", samples=1)
        self.assertEqual(done.returncode, 0, done.stderr)
        card = json.loads((out / "card.json").read_text())
        self.assertEqual(card["kv_dtype"], "f16+int8")
        self.assertTrue(all(entry["low_precision"] for entry in card["entries"]))
        plain = json.loads((self.out / "card.json").read_text())
        self.assertEqual(plain["kv_dtype"], "f16")
        self.assertFalse(any(entry["low_precision"] for entry in plain["entries"]))
        done = self.bench(self.out, "--kv-store", "int8")
        self.assertEqual(done.returncode, 1)  # no file mixes formats
        done = self.bench(self.folder / "k8v4", "--kv-store", "k8v4")  # heads of 16
        self.assertEqual(done.returncode, 1)
        self.assertIn("multiple of 32", done.stderr)

    def test_a_report_without_a_card_leaves_no_old_one(self):
        part, joined = self.folder / "part", self.folder / "joined"
        shutil.copytree(self.out, part)
        report = [REDKNOT, "bench", "report", str(part), "--out", str(joined)]
        done = subprocess.run(report, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads((joined / "card.json").read_text())["kv_dtype"], "f16")
        summary = json.loads((part / "summary.json").read_text())
        summary["configuration"]["predecessors"] = "0.5"
        (part / "summary.json").write_text(json.dumps(summary))
        done = subprocess.run(report, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("no card.json: predecessors: 0.5", done.stderr)
        self.assertFalse((joined / "card.json").exists())

    def test_capacity_says_what_each_format_takes(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("REDKNOT_")}
        done = subprocess.run([REDKNOT, "capacity", "-m", self.models[2], "--json"], env=env, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        # Two layers of two heads of 16: K and V of f16, or of a byte and a scale a row.
        self.assertEqual(json.loads(done.stdout)["store_bytes_per_token"], {"f16": 256, "int8": 144, "fp8": 144})


if __name__ == "__main__":
    unittest.main()
