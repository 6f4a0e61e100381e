"""The pages about serving, and about the model in a program, do what they say: what they show is run."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from serving import running

from gpt2_np import GPT2

DOCS = Path(__file__).parent.parent / "docs"
SCRIPT = runpy.run_path(str(DOCS.parent / "scripts" / "build_serve_page.py"))
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def rounded(text: str) -> str:
    """Numbers to three places: the last bits are a processor's own."""
    return re.sub(r"-?\d+\.\d{4,}", lambda found: f"{float(found[0]):.3f}", text)


def test_the_page_about_serving() -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    pytest.importorskip("llguidance", reason="needs llguidance: pip install 'gpt2-np[constraints]'")
    text = (DOCS / "serve.md").read_text(encoding="utf-8")
    with running(GPT2.from_pretrained()) as client:
        fresh = SCRIPT["with_limits"](SCRIPT["with_answers"](text, client.port))
    assert rounded(fresh) == rounded(text), "run scripts/build_serve_page.py"


def test_the_page_about_serving_with_the_official_client(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai", reason="needs the official client: pip install openai")
    (block,) = blocks("serve.md")
    model = GPT2.from_pretrained()
    with running(model) as client:
        exec(compile(block.replace("127.0.0.1:8000", f"127.0.0.1:{client.port}"), "serve.md", "exec"), {})
    text = model.generate("The king", max_new_tokens=8).text
    assert capsys.readouterr().out == f"{text}\n{text}"


def test_the_page_about_your_own_program(tmp_path: Path) -> None:
    defined: dict[str, Any] = {"__name__": "page"}  # processes are started by the test below
    for block in blocks("in-your-program.md"):
        if "fastapi" in block and importlib.util.find_spec("fastapi") is None:
            break
        exec(compile(block, "in-your-program.md", "exec"), defined)
    if "app" not in defined:
        return
    asyncio.run(asked(defined))
    defined["batched"].close()


async def asked(defined: dict[str, Any]) -> None:
    """What the page's application answers: over HTTP, without a network."""
    app, sent = defined["app"], []

    async def ask(method: str, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        sent.clear()
        messages = [{"type": "http.request", "body": body}]
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])

    status, body = await ask("GET", "/continue?prompt=The%20king", b"")
    assert status == 200
    assert body
    request = b'{"prompt": "The king", "max_tokens": 2}'
    status, body = await ask("POST", "/gpt2/v1/completions", request, content_type="application/json")
    assert status == 401
    key = {"content_type": "application/json", "authorization": "Bearer secret"}
    status, body = await ask("POST", "/gpt2/v1/completions", request, **key)
    assert status == 200, body
    assert (await ask("GET", "/gpt2/", b""))[0] == 200
    async with app.router.lifespan_context(app):
        pass
    assert not defined["served"].state.server.scheduler.alive


@pytest.mark.slow
def test_the_processes_of_the_page(tmp_path: Path) -> None:
    import subprocess
    import sys

    first, *others = blocks("in-your-program.md")
    code = "\n".join([first, *[block for block in others if "multiprocessing" in block or "__main__" in block]])
    path = tmp_path / "program.py"
    path.write_text(code)
    subprocess.run([sys.executable, str(path)], check=True, timeout=300)
