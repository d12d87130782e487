"""The real `openai` package, unmodified, against a running server.

REDKNOT_BASE_URL (http://127.0.0.1:8080/v1) names the server; without it, `$REDKNOT serve` is started on
the model in REDKNOT_TEST_MODEL, or on a tiny random one. Exit 77 = skipped: no package (`make
check-openai` installs it into the build tree).
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

try:
    import openai
except ImportError:
    print(f"skipped: {sys.executable} has no openai package; make check-openai installs one")
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import tiny_model


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_server(home):
    binary = os.environ["REDKNOT"]
    model = os.environ.get("REDKNOT_TEST_MODEL") or str(tiny_model.write(pathlib.Path(home) / "tiny"))
    port = free_port()
    process = subprocess.Popen([binary, "serve", "-m", model, "--port", str(port)])
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1)
            return process, f"http://127.0.0.1:{port}/v1"
        except OSError:
            if process.poll() is not None:
                sys.exit(f"redknot serve ended with {process.returncode}")
            time.sleep(0.1)
    process.kill()
    sys.exit("redknot serve was not ready after 30 s")


class Client(unittest.TestCase):
    base_url = None

    def setUp(self):
        self.client = openai.OpenAI(
            base_url=self.base_url, api_key=os.environ.get("REDKNOT_API_KEY", "none"), max_retries=0
        )
        self.model = self.client.models.list().data[0].id

    def chat(self, **more):
        more.setdefault("messages", [{"role": "user", "content": "Say hello."}])
        return self.client.chat.completions.create(
            model=self.model, max_tokens=8, temperature=0, **more
        )

    def test_models(self):
        self.assertEqual(self.client.models.retrieve(self.model).id, self.model)

    def test_chat_and_its_stream_agree(self):
        whole = self.chat()
        self.assertIn(whole.choices[0].finish_reason, ("stop", "length"))
        self.assertEqual(whole.choices[0].message.role, "assistant")
        self.assertGreater(whole.usage.prompt_tokens, 0)
        self.assertGreaterEqual(whole.usage.prompt_tokens_details.cached_tokens, 0)
        self.assertEqual(whole.model_extra["redknot"]["gate"], "pass")
        text, usage, finish = "", None, None
        for chunk in self.chat(stream=True, stream_options={"include_usage": True}):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                finish = chunk.choices[0].finish_reason or finish
            usage = chunk.usage or usage
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(finish, whole.choices[0].finish_reason)
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)

    def test_chat_logprobs(self):
        content = self.chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
        self.assertEqual(len(content[0].top_logprobs), 3)
        self.assertLessEqual(content[0].logprob, 0)

    def test_documents(self):
        extra = {"documents": [{"title": "Colours", "text": "The door is painted green."}],
                 "redknot": {"mode": "reuse"}}
        self.chat(extra_body=extra)
        again = self.chat(extra_body=extra)
        block = again.model_extra["redknot"]
        self.assertEqual(block["gate"], "bypassed")
        self.assertEqual(block["documents"][0]["state"], "hit")
        self.assertGreater(again.usage.prompt_tokens_details.cached_tokens, 0)

    def test_completions(self):
        make = self.client.completions.create
        whole = make(model=self.model, prompt="One, two,", max_tokens=6, temperature=0, logprobs=2)
        self.assertEqual(len(whole.choices[0].logprobs.tokens), whole.usage.completion_tokens)
        stream = make(model=self.model, prompt="One, two,", max_tokens=6, temperature=0, stream=True)
        text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
        self.assertEqual(text, whole.choices[0].text)
        ids = make(model=self.model, prompt=[1, 2, 3], max_tokens=1)
        self.assertEqual(ids.usage.prompt_tokens, 3)

    def test_same_seed_same_text(self):
        texts = {
            self.client.completions.create(
                model=self.model, prompt="Once", max_tokens=8, temperature=1, seed=7
            ).choices[0].text
            for _ in range(2)
        }
        self.assertEqual(len(texts), 1)

    def test_error_classes(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.completions.create(model="no-such-model", prompt="x")
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.completions.create(model=self.model, prompt="x", max_tokens=-1)
        self.assertEqual(caught.exception.param, "max_tokens")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(n=17)
        self.assertEqual(caught.exception.param, "n")

    def test_several_choices_and_their_stream(self):
        whole = self.chat(n=3, seed=1)
        self.assertEqual([c.index for c in whole.choices], [0, 1, 2])
        texts = ["", "", ""]
        for chunk in self.chat(n=3, seed=1, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        self.assertEqual(texts, [c.message.content for c in whole.choices])


if __name__ == "__main__":
    server, home = None, tempfile.TemporaryDirectory()
    Client.base_url = os.environ.get("REDKNOT_BASE_URL")
    if not Client.base_url:
        server, Client.base_url = start_server(home.name)
    try:
        unittest.main()
    finally:
        if server:
            server.terminate()
            server.wait(30)
        home.cleanup()
