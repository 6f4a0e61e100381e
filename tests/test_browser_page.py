"""The page on which `tales` writes in a browser: its Python here, its folder, and all of it in headless Chromium.

`GPT2_NP_PYODIDE=FOLDER pytest -m slow -n 0 tests/test_browser_page.py` takes a Pyodide distribution with NumPy's wheel
in it, and makes of this package a wheel of its own.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import browser
import numpy as np
import pytest
from browser import Browser

from gpt2_np import GPT2
from gpt2_np.system import threads

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "scripts" / "browser_page"
PYODIDE = os.environ.get("GPT2_NP_PYODIDE")
PROMPT = "Once upon a time there was a king who"


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


build = module(ROOT / "scripts" / "build_browser_page.py")

# ---- its Python, without a browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studio() -> Any:
    return module(PAGE / "in_browser.py").Studio()


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 7}])
def test_it_writes_what_the_model_writes(studio: Any, options: dict[str, Any]) -> None:
    given = json.loads(studio.begin(PROMPT, json.dumps({"max_new_tokens": 12} | options)))
    steps = list(iter(lambda: json.loads(studio.step()), None))
    expected = GPT2.from_pretrained(backend="numpy").generate(PROMPT, max_new_tokens=12, **options)
    assert "".join(given["tokens"]) == PROMPT
    assert studio.ids[len(given["tokens"]) :] == expected.ids
    assert "".join(one["text"] for one in steps) == expected.text.replace("\n", "↵")
    np.testing.assert_allclose([math.log(one["p"]) for one in steps], expected.logprobs, atol=1e-4)
    assert [one["end"] for one in steps] == [None] * 11 + [expected.finish_reason]


def test_it_shows_where_heads_look(studio: Any) -> None:
    studio.begin("The king and the queen", "{}")
    T = len(studio.ids)
    found = np.frombuffer(studio.attention(), np.uint8).reshape(8, 10, -1)
    _, cache = GPT2.from_pretrained(backend="numpy").run_with_cache(studio.ids, "*.attn.pattern")
    assert found.shape[-1] == T * (T + 1) // 2
    for query in range(T):
        row = found[3, 4, query * (query + 1) // 2 :][: query + 1] / 255
        np.testing.assert_allclose(row, cache["blocks.3.attn.pattern"][0, 4, query, : query + 1], atol=1 / 255)
    page = studio.inspect()
    assert f'"owed":{{"{T - 1}":' in page
    assert page.startswith("<!DOCTYPE html>")


def test_a_mistake_is_told(studio: Any) -> None:
    assert "temperature" in json.loads(studio.begin("a", '{"do_sample": true, "temperature": -1}'))["error"]
    assert "512 tokens" in json.loads(studio.begin("king " * 600, "{}"))["error"]


def test_where_no_thread_can_be_started_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise RuntimeError("can't start new thread")  # as Pyodide's Python says

    monkeypatch.setattr(threads, "_pool", refuse)
    monkeypatch.setattr(threads, "ALONE", True)
    done: list[int] = []
    threads.on_threads(done.append, range(5), 4)
    assert done == [0, 1, 2, 3, 4]


# ---- its folder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pyodide(tmp_path: Path) -> Path:
    """A folder with the names of a distribution's files."""
    folder = tmp_path / "pyodide"
    folder.mkdir()
    for name in ("pyodide.mjs", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "numpy-2.whl", "blas.zip"):
        (folder / name).write_bytes(name.encode())
    packages = {
        name: {"file_name": file, "sha256": hashlib.sha256(file.encode()).hexdigest(), "depends": depends}
        for name, file, depends in (("numpy", "numpy-2.whl", ["blas"]), ("blas", "blas.zip", []), ("x", "x.whl", []))
    }
    (folder / "pyodide-lock.json").write_text(json.dumps({"packages": packages}))
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package as it lies here, as a wheel."""
    path = tmp_path_factory.mktemp("wheel") / "gpt2_np-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for package in ("gpt2_np", "decoders"):
            for file in sorted((ROOT / package).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    archive.write(file, file.relative_to(ROOT).as_posix())
        archive.writestr("gpt2_np-0.dist-info/METADATA", "Metadata-Version: 2.1\nName: gpt2_np\nVersion: 0\n")
        archive.writestr("gpt2_np-0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("gpt2_np-0.dist-info/RECORD", "")
    return path


def test_the_folder_holds_what_the_page_fetches(pyodide: Path, wheel: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # the second time in place of the first
        about = build.build(pyodide, wheel, out)
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {
        *("index.html", "page.css", "page.js", "worker.js", "in_browser.py", "files.json", wheel.name),
        *(f"pyodide/{path.name}" for path in pyodide.iterdir()),
    }
    assert json.loads((out / "files.json").read_text()) == about
    assert about["count"] == len(names) - 1
    for file in filter(Path.is_file, PAGE.iterdir()):  # nothing is fetched from elsewhere; Python may leave bytecode
        assert not re.search(r"https?://|//cdn", file.read_text(encoding="utf-8")), file


def test_what_is_no_distribution_is_one_line(pyodide: Path, wheel: Path, tmp_path: Path) -> None:
    def said(*arguments: Path) -> str:
        command = [sys.executable, str(ROOT / "scripts/build_browser_page.py"), *map(str, arguments)]
        done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        return done.stderr

    assert "must be a wheel of this package" in said(pyodide, pyodide / "numpy-2.whl")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    for change, message in [
        (lambda: (pyodide / "blas.zip").write_bytes(b"another"), "blas.zip is not the file that"),
        (lambda: (pyodide / "blas.zip").unlink(), "must hold blas.zip, which pyodide-lock.json names"),
        (lambda: (pyodide / "pyodide-lock.json").write_text("{}"), "has no pyodide-lock.json that tells of numpy"),
        (lambda: (pyodide / "pyodide.asm.js").unlink(), "has no pyodide.asm.mjs or pyodide.asm.js"),
    ]:
        change()
        with pytest.raises(ValueError, match=re.escape(message)):
            build.build(pyodide, wheel, tmp_path / "out")
    with pytest.raises(ValueError, match="holds no gpt2_np/bundled"):
        build.build(pyodide, tmp_path / "other.whl", tmp_path / "out")


def test_a_folder_of_somebody_elses_is_left_alone(pyodide: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        build.build(pyodide, wheel, tmp_path / "out")
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"


# ---- all of it ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The page's address, and a list of what was asked for there."""
    if PYODIDE is None:
        pytest.skip("needs a Pyodide distribution with NumPy: GPT2_NP_PYODIDE=FOLDER")
    out = tmp_path_factory.mktemp("served")
    build.build(Path(PYODIDE), wheel, out)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(served: tuple[str, list[str]]) -> Iterator[Browser]:
    with browser.start() as found:
        found.resize(1280, 900)
        found.open(served[0])
        until(found, "document.body.dataset.ready")
        yield found
        assert found.complaints() == []


def until(page: Browser, true: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not page.run(f"return !!({true})"):
        assert page.text("#wrong") == ""
        assert time.monotonic() < deadline, true
        time.sleep(0.05)


def put(page: Browser, name: str, value: str) -> None:
    page.run(
        "const input = document.getElementById(arguments[0]); input.value = arguments[1];"
        "input.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        value,
    )


def written(page: Browser) -> str:
    return "".join(page.run("return [...document.querySelectorAll('#text .token')].map(one => one.textContent)"))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", ["0", "0.8"])
def test_the_browser_writes_what_python_writes(page: Browser, temperature: str) -> None:
    """The same text as here: WebAssembly's float32 is the same, and what differs in the last place decides nothing."""
    put(page, "prompt", PROMPT)
    put(page, "temperature", temperature)
    put(page, "seed", "7")
    put(page, "tokens", "20")
    page.click("#write")
    until(page, "document.querySelector('#said').textContent.includes('tokens, ')")
    until(page, "!document.querySelector('#attention').hidden && !document.querySelector('#write').disabled")
    chosen = {"do_sample": True, "temperature": 0.8, "seed": 7} if temperature != "0" else {}
    out = GPT2.from_pretrained(backend="numpy").generate(PROMPT, max_new_tokens=20, **chosen)
    assert written(page) == PROMPT + out.text.replace("\n", "↵")
    assert re.search(r"20 tokens, as many as were asked for; [\d.]+ tokens a second", page.text("#said"))
    assert re.match(r"Loaded in [\d.]+ s \(.*\): [\d.]+ MB in \d+ files\.", page.text("#load"))


@pytest.mark.slow
def test_attention_is_shown(page: Browser) -> None:
    until(page, "!document.querySelector('#attention').hidden")
    assert page.run("return document.querySelectorAll('#heads button').length") == 80
    page.click('#heads button[data-layer="2"][data-head="3"]')
    page.click("#text .token:nth-child(5)")
    assert page.text("#look").startswith("Layer 2, head 3: “")
    ids = page.run("return state.tokens.length")
    _, cache = GPT2.from_pretrained(backend="numpy").run_with_cache(PROMPT, "blocks.2.attn.pattern")
    looked = page.run("return [0, 1, 2, 3, 4].map(key => weight(2, 3, 4, key))")
    np.testing.assert_allclose(looked, cache["blocks.2.attn.pattern"][0, 3, 4, :5], atol=1 / 255)
    assert page.run("return document.querySelectorAll('#text .looks').length") == 1
    assert ids > 20


@pytest.mark.slow
def test_a_stop_stops(page: Browser) -> None:
    put(page, "tokens", "300")
    page.click("#write")
    until(page, "state.tokens.length > state.given + 3")
    page.click("#stop")
    until(page, "document.querySelector('#said').textContent.includes('stopped')")
    assert page.run("return state.tokens.length") < 200


@pytest.mark.slow
def test_a_phone_scrolls_one_way_only(page: Browser) -> None:
    page.resize(390, 844)
    assert page.run("return document.documentElement.scrollWidth") <= 390
    page.resize(1280, 900)


@pytest.mark.slow
def test_all_comes_from_its_own_folder(page: Browser, served: tuple[str, list[str]]) -> None:
    loaded = page.run("return performance.getEntriesByType('resource').map(one => one.name)")
    own = served[0].removesuffix("index.html")
    assert all(name.startswith((own, "blob:", "data:")) for name in loaded)
    assert any("numpy" in path for path in served[1])
