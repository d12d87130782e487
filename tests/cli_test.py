"""The command line's contract: exit codes, suggestions, streams, order of flag sources. No model needed."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

REDKNOT = os.environ["REDKNOT"]


def redknot(*arguments, stdin="", **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("REDKNOT_")} | environment
    return subprocess.run([REDKNOT, *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=60)


class CliTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = pathlib.Path(folder.name)

    def test_wrong_usage_is_two_and_suggests(self):
        cases = [
            (["pull", "--hbu", "x"], "did you mean --hub?"),
            (["pull", "--hbu=x"], "unknown flag --hbu;"),
            (["eval", "tokens", "--decoed"], "did you mean --decode?"),
            (["eval", "tokns"], "did you mean tokens?"),
            (["docter"], "did you mean doctor?"),
            (["--verison"], "--version"),
            (["pull", "a", "b"], "unexpected argument 'b'"),
            (["pull", "--retries", "many"], "many"),
            (["pull", "--retries", "-1"], "--retries"),
            (["pull", "--retries"], "--retries"),
            (["pull", "--sha256", "abc"], "3 characters, 64 wanted"),
            (["doctor", "--log-level", "wran"], "did you mean warn?"),
            (["doctor", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
            (["capacity", "--context", "0"], "--context: 0 is outside 1.."),
            (["capacity", "--context", "1e3"], "1e3"),
            (["capacity", "--kv-memory", "-5"], "-5"),
            (["eval"], "tokens"),
            ([], "pull"),
        ]
        for arguments, want in cases:
            with self.subTest(arguments):
                done = redknot(*arguments)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(want, done.stderr)
                self.assertEqual(done.stdout, "")

    def test_failure_is_one_with_one_message_on_stderr(self):
        done = redknot("eval", "tokens", "-m", "no-such-model", REDKNOT_HOME=str(self.home))
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, "")
        self.assertTrue(done.stderr.startswith("redknot eval tokens: model 'no-such-model'"), done.stderr)
        self.assertIn("redknot pull", done.stderr)

    def test_bench_kernels(self):
        done = redknot("bench", "kernels", "--part", "attention decode 1024", "--threads", "1", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual([r["name"] for r in report["results"]], ["decode 1024, 9/3 heads of 64"])
        row = report["results"][0]
        self.assertGreater(report["memory_bytes_per_s"], 0)
        self.assertLessEqual(row["least_ms"], row["ms"])
        self.assertAlmostEqual(row["of_bound"], row["bytes_per_s"] / report["memory_bytes_per_s"], places=6)
        table = redknot("bench", "kernels", "--part", "135m qkv q4_1 M=512", "--threads", "1")
        self.assertEqual(table.returncode, 0, table.stderr)
        self.assertIn("gemm 135m qkv q4_1 M=512", table.stdout)
        done = redknot("bench", "kernels", "--part", "no such kernel")
        self.assertEqual(done.returncode, 1)
        self.assertIn('contains "no such kernel"', done.stderr)
        done = redknot("bench", "kernels", "--device", "cuda:99")
        self.assertEqual(done.returncode, 1)  # no build for cards, no driver, no such card: it says which
        self.assertRegex(done.stderr, r"cuda|CUDA")
        self.assertRegex(done.stderr, r"use --device cpu|built without CUDA|card 99 wanted, \d+ present")

    def test_files_that_are_no_model_are_named(self):
        garbage, empty = self.home / "garbage.gguf", self.home / "empty.gguf"
        garbage.write_bytes(b"GGUF" + b"\xff" * 200)
        empty.touch()
        for path in (garbage, empty, self.home):
            for arguments in (["inspect", str(path)], ["capacity", "-m", str(path)], ["eval", "tokens", "-m", str(path)]):
                with self.subTest(arguments):
                    done = redknot(*arguments)
                    self.assertEqual(done.returncode, 1, done.stderr)
                    self.assertEqual(done.stdout, "")
                    self.assertIn(str(path), done.stderr)

    def test_a_known_model_that_is_not_here_names_the_command(self):
        done = redknot("eval", "tokens", REDKNOT_HOME=str(self.home))
        self.assertEqual(done.returncode, 1)
        self.assertIn("redknot pull smollm2", done.stderr)

    def test_help_and_version_go_to_stdout(self):
        for arguments in (["--help"], ["pull", "--help"], ["eval", "tokens", "--help"], ["--version"]):
            with self.subTest(arguments):
                done = redknot(*arguments)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertGreater(len(done.stdout), 60)
        self.assertIn("Examples:", redknot("pull", "--help").stdout)
        for word in ("redknot 0.", "commit", "compiler", "cuda", "features"):
            self.assertIn(word, redknot("--version").stdout)

    def test_every_subcommand_has_help_with_examples(self):
        top = redknot("--help").stdout.split("Subcommands:")[1]
        names = [line.split()[0] for line in top.splitlines() if line.startswith("  ") and line[2] != " "]
        self.assertIn("pull", names)
        for name in names:
            with self.subTest(name):
                done = redknot(name, "--help")
                self.assertEqual(done.returncode, 0)
                self.assertTrue("Examples:" in done.stdout or "Subcommands:" in done.stdout, name)

    def test_doctor_prints_json(self):
        done = redknot("doctor", "--json", REDKNOT_HOME=str(self.home))
        self.assertEqual(done.returncode, 0, done.stderr)
        names = {f["name"] for f in json.loads(done.stdout)}
        self.assertLessEqual({"cpu", "memory", "gpu", "model"}, names)

    def model_that_doctor_sees(self, *arguments, **environment):
        done = redknot("doctor", "--json", *arguments, REDKNOT_HOME=str(self.home), **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return next(f["value"] for f in json.loads(done.stdout) if f["name"] == "model")

    def test_flag_beats_environment_beats_file_beats_default(self):
        for name in ("from_file", "from_section", "from_env", "from_flag"):
            (self.home / name).touch()
        path = lambda name: str(self.home / name)
        config = self.home / "c.toml"
        config.write_text(f'model = "{path("from_file")}"\nretries = 2\n')
        at = ["--config", str(config)]
        self.assertEqual(self.model_that_doctor_sees(), "not here")
        self.assertEqual(self.model_that_doctor_sees(*at), path("from_file"))
        self.assertEqual(self.model_that_doctor_sees(REDKNOT_CONFIG=str(config)), path("from_file"))
        env = {"REDKNOT_MODEL": path("from_env")}
        self.assertEqual(self.model_that_doctor_sees(*at, **env), path("from_env"))
        self.assertEqual(self.model_that_doctor_sees(*at, "-m", path("from_flag"), **env), path("from_flag"))
        config.write_text(f'model = "{path("from_file")}"\n[doctor]\nmodel = "{path("from_section")}"\n')
        self.assertEqual(self.model_that_doctor_sees(*at), path("from_section"))
        config.write_text(f'[eval.tokens]\nmodel = "{path("from_section")}"\n')
        self.assertEqual(self.model_that_doctor_sees(*at), "not here")

    def test_a_bad_config_file_is_wrong_usage(self):
        cases = [
            ("modle = 'x'\n", "unknown key 'modle'; did you mean --model?"),
            ("[doctr]\nmodel = 'x'\n", "[doctr] is no subcommand"),
            ("[pull]\nmodel = 'x'\n", "unknown key 'model'"),
            ("json = 'perhaps'\n", "json"),
        ]
        for text, want in cases:
            with self.subTest(text):
                config = self.home / "c.toml"
                config.write_text(text)
                done = redknot("doctor", "--config", str(config))
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertIn(want, done.stderr)

    def test_a_full_disk_under_stdout_is_a_failure(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "w") as full:
            done = subprocess.run([REDKNOT, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("could not be written", done.stderr)


if __name__ == "__main__":
    unittest.main()
