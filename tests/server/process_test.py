"""The server as a process: its flags, keys, signals, and the real engine behind it, on a tiny random
model."""
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import tiny_model

REDKNOT = os.environ["REDKNOT"]


class Server:
    """`redknot serve` on a free port."""

    def __init__(self, model, *flags):
        env = {k: v for k, v in os.environ.items() if not k.startswith("REDKNOT_")}
        self.process = subprocess.Popen(
            [REDKNOT, "serve", "-m", str(model), "--port", "0", *flags], env=env, text=True,
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.log, self.port, self.connections = [], None, []
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()
        if self.port is None:
            raise AssertionError(f"no server: {''.join(self.log)}")

    def open(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.connections.append(connection)
        connection.request(method, path, json.dumps(body) if body is not None else None, headers or {})
        return connection.getresponse()

    def ask(self, path, body=None, headers=None, status=200):
        reply = self.open("POST" if body is not None else "GET", path, body, headers)
        text = reply.read().decode()
        assert reply.status == status, (reply.status, text)
        return json.loads(text) if text.startswith("{") else text

    def wait(self):
        """The exit code of a process that was told to end."""
        code = self.process.wait(120)
        self.reader.join()
        self.process.stderr.close()
        for connection in self.connections:
            connection.close()
        return code

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()


class ProcessTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.home = pathlib.Path(folder.name)
        cls.model = tiny_model.write(cls.home / "tiny")

    def serve(self, *flags):
        server = Server(self.model, *flags)
        self.addCleanup(server.stop)
        return server

    def test_sigterm_finishes_the_answer_in_progress_and_ends_with_zero(self):
        server = self.serve()
        wanted = 3000
        stream = server.open("POST", "/v1/completions", {
            "prompt": "Once", "max_tokens": wanted, "ignore_eos": True, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}})
        self.assertEqual(stream.status, 200)
        self.assertTrue(stream.readline().startswith(b"data: {"))
        server.process.send_signal(signal.SIGTERM)
        events = [line for line in stream.read().decode().split("\n\n") if line.startswith("data: ")]
        self.assertEqual(events[-1], "data: [DONE]")
        self.assertEqual(json.loads(events[-2][6:])["usage"]["completion_tokens"], wanted)
        self.assertEqual(server.wait(), 0)
        self.assertIn("SIGTERM", "".join(server.log))

    def test_a_drain_that_takes_too_long_is_cut_and_said(self):
        server = self.serve("--drain-seconds", "0")
        stream = server.open("POST", "/v1/completions", {
            "prompt": "Once", "max_tokens": 15000, "ignore_eos": True, "stream": True})
        stream.readline()
        server.process.send_signal(signal.SIGINT)
        self.assertNotIn(b"[DONE]", stream.read())
        self.assertEqual(server.wait(), 1)
        self.assertIn("cancelled", "".join(server.log))

    def test_keys_come_from_a_file(self):
        keys = self.home / "keys.txt"
        keys.write_text("one\r\n\ntwo\n")
        server = self.serve("--api-key-file", str(keys), "--api-key", "three")
        for key in ("one", "two", "three"):
            server.ask("/v1/models", headers={"Authorization": f"Bearer {key}"})
        for bad in ({}, {"Authorization": "Bearer onetwo"}, {"Authorization": "one"}):
            server.ask("/v1/models", headers=bad, status=401)
        server.ask("/health")

    def test_names_and_pages(self):
        server = self.serve("--allowed-host", "box.example", "--cors-origin", "https://app.example")
        server.ask("/health", headers={"Host": "box.example:1"})
        server.ask("/health", headers={"Host": "evil.example"}, status=403)
        reply = server.open("OPTIONS", "/v1/completions", headers={
            "Origin": "https://app.example", "Access-Control-Request-Method": "POST"})
        self.assertEqual(reply.status, 204)
        self.assertEqual(reply.headers["Access-Control-Allow-Origin"], "https://app.example")
        server.ask("/tokenize", {"prompt": "x"}, {"Origin": "https://evil.example"}, 403)
        for flags in (["--cors-origin", "app"], ["--allowed-host", "http://x"]):
            done = subprocess.run([REDKNOT, "serve", "-m", str(self.model), *flags], timeout=60,
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 2, done.stderr)

    def test_choices_are_the_answers_of_their_seeds(self):
        server = self.serve()
        body = {"prompt": "Once upon", "max_tokens": 12, "temperature": 1, "seed": 5, "ignore_eos": True}
        several = server.ask("/v1/completions", body | {"n": 3})
        texts = [c["text"] for c in several["choices"]]
        self.assertEqual(
            texts, [server.ask("/v1/completions", body | {"seed": 5 + i})["choices"][0]["text"]
                    for i in range(3)])
        self.assertGreater(len(set(texts)), 1)
        self.assertEqual(several["usage"]["completion_tokens"], 36)

    def test_documents_are_reused_across_requests(self):
        server = self.serve()
        body = {"messages": [{"role": "user", "content": "Which?"}], "max_tokens": 2, "temperature": 0,
                "documents": ["The door is green. " * 20, "The bell is blue. " * 20],
                "redknot": {"mode": "reuse", "company": "none"}}
        first = server.ask("/v1/chat/completions", body)
        self.assertEqual([d["state"] for d in first["redknot"]["documents"]], ["miss", "miss"])
        self.assertEqual([d["fit"] for d in first["redknot"]["documents"]], ["exact", "lead"])
        body["documents"].reverse()
        second = server.ask("/v1/chat/completions", body)
        self.assertEqual([d["state"] for d in second["redknot"]["documents"]], ["hit", "hit"])
        details = second["usage"]["prompt_tokens_details"]
        self.assertGreater(details["document_cached_tokens"], 150)
        self.assertGreater(second["redknot"]["relocated_tokens"], 0)
        self.assertEqual(details["cached_tokens"],
                         details["document_cached_tokens"] + details["prefix_cached_tokens"])


if __name__ == "__main__":
    unittest.main()
