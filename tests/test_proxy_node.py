"""OpenAI's SDK for Node through the proxy: what the proxy is for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import events_of
from costmw import Meter
from costmw.proxy import ProxyConfig, Upstream
from costmw.testing import FakeProvider, Reply
from proxies import serve

SCRIPT = """
const OpenAI = require("openai");
const client = new OpenAI({
  baseURL: process.env.BASE_URL,
  apiKey: "sk-node",
  defaultHeaders: {"X-LLM-Tags": JSON.stringify({tenant: "acme", feature: "f\\u00fcr"})
    .replace(/[\\u007f-\\uffff]/g, c => "\\\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"))},
});
const messages = [{role: "user", content: "How are you?"}];
async function main() {
  const plain = await client.chat.completions.create({model: "gpt-5-mini", messages});
  let text = "", chunks = 0, empty = 0;
  const stream = await client.chat.completions.create(
    {model: "gpt-5-mini", messages, stream: true});
  for await (const chunk of stream) {
    chunks += 1;
    empty += chunk.choices.length === 0;
    text += chunk.choices[0]?.delta?.content || "";
  }
  let status = null;
  try {
    await client.chat.completions.create({model: "gpt-5-mini", messages}, {maxRetries: 0});
  } catch (error) { status = error.status; }
  console.log(JSON.stringify({
    usage: plain.usage, same: text === plain.choices[0].message.content, chunks, empty, status,
  }));
}
main();
"""


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK for Node; without node the test is skipped, but not in CI."""
    folder = tmp_path_factory.mktemp("node")
    problem = None
    if not (shutil.which("node") and (npm := shutil.which("npm"))):
        problem = "node and npm are not installed"
    else:
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), "openai"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            problem = f"npm cannot install openai: {done.stderr[-300:]}"
    if problem and os.environ.get("CI"):
        pytest.fail(problem)
    if problem:
        pytest.skip(problem)
    return folder


def test_node_plain_and_streamed(node_modules: Path, meter: Meter, provider: FakeProvider) -> None:
    provider.reply(Reply(), Reply(pace=0.001), Reply(status=429))
    config = ProxyConfig(
        upstreams={"openai": Upstream(provider.url)}, built_in=False, accept_tags_header=True
    )
    script = node_modules / "call.js"
    script.write_text(SCRIPT)
    with serve(meter, config) as proxy:
        done = subprocess.run(
            ["node", str(script)],
            env={**os.environ, "BASE_URL": f"{proxy.url}/openai/v1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["same"], said["empty"], said["status"]) == (True, 0, 429)
    assert said["chunks"] > 5
    usage = (said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"])
    events = events_of(meter)
    assert [(e.status, e.usage.input_tokens, e.usage.output_tokens) for e in events] == [
        ("ok", *usage)
    ] * 2
    assert [dict(e.tags) for e in events] == [{"tenant": "acme", "feature": "für"}] * 2
    assert all("x-llm-tags" not in sent.headers for sent in provider.requests)
