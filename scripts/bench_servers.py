"""How many tokens a second servers write for many clients at once: ours, `transformers serve`, llama-cpp-python's.

    python scripts/bench_servers.py --model FOLDER                       16 clients, two rounds in turn
    python scripts/bench_servers.py --model FOLDER --engines "gpt2_np int8" "llama.cpp q8_0" --clients 4

All get the same prompts, greedily continued by the same numbers of tokens, over ``POST /v1/completions``; each client
sends its next request when the last one is answered. What is counted is what the answers' ``usage`` says. Engines take
turns, a round after one that isn't counted. The folder needs a checkpoint and a tokenizer; ``transformers serve`` needs
"architectures" in its config.json, and ``pip install fastapi openai``; llama.cpp
``pip install 'llama-cpp-python[server]' gguf``: its file is written from the checkpoint, to --scratch. What is missing
here is named and left out.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import formats, machine
from benchmarks.turns import PAUSE
from harness_tasks import text

ENGINES = (
    "gpt2_np float32",
    "transformers float32",
    "transformers continuous",
    "llama.cpp f32",
    "gpt2_np int8",
    "llama.cpp q8_0",
)
NEEDED = {"gpt2_np": ("starlette", "uvicorn"), "transformers": ("fastapi", "openai"), "llama.cpp": ("llama_cpp",)}
STARTS = 120.0  # seconds that a server may take to load


def questions(count: int, longest: int) -> list[dict[str, Any]]:
    """Requests of mixed lengths: prompts of one to six sentences, from 16 new tokens to so many."""
    draw = random.Random(0)
    return [
        {"prompt": text(draw, draw.randint(1, 6)), "max_tokens": draw.randint(16, longest), "temperature": 0}
        for _ in range(count)
    ]


def command(engine: str, folder: Path, port: int, scratch: Path, rows: int) -> list[str]:
    """What starts a server of this engine and precision."""
    name, precision = engine.split()
    here = ["--host", "127.0.0.1", "--port", str(port)]
    if name == "gpt2_np":
        of_ours = ["--model", str(folder), "--dtype", precision, "--rows", str(rows)]
        return [sys.executable, "-m", "gpt2_np", "serve", *of_ours, *here]
    if name == "transformers":
        of_theirs = [str(folder), "--device", "cpu", "--dtype", "float32"]
        more = ["--continuous-batching"] if precision == "continuous" else []
        return [sys.executable, "-m", "transformers.cli.transformers", "serve", *of_theirs, *more, *here]
    file = formats.gguf(folder, precision, scratch)
    threads = ["--n_threads", str(formats.THREADS), "--n_threads_batch", str(formats.THREADS)]
    return [sys.executable, "-m", "llama_cpp.server", "--model", str(file), "--n_ctx", "1024", *threads, *here]


class Server:
    """One engine's server, in a process of its own."""

    def __init__(self, engine: str, folder: Path, scratch: Path, rows: int) -> None:
        self.name, self.folder = engine, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  it is the process's until that ends
        self.process = subprocess.Popen(
            command(engine, folder, self.port, scratch, rows), stdout=self.log, stderr=subprocess.STDOUT
        )
        self.model = self._ready()

    def _ready(self) -> str:
        """Wait until it answers; the name of its model."""
        until = time.monotonic() + STARTS
        while time.monotonic() < until and self.process.poll() is None:
            try:
                found: list[dict[str, Any]] = self.ask("GET", "/v1/models")["data"]
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.2)
                continue
            local = self.name.startswith("transformers")  # which lists what lies in its cache
            return str(self.folder) if local else str(found[0]["id"])
        raise RuntimeError(f"the server didn't start:\n{self.told()}")

    def told(self) -> str:
        """The end of what it wrote to its terminal."""
        self.log.flush()
        self.log.seek(0)
        return self.log.read()[-2000:]

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One answer's JSON; ``ValueError`` for an error."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
            if answer.status != 200:
                raise ValueError(f"{self.name}: {answer.status} {told[:300]!r}")
            return json.loads(told)
        finally:
            connection.close()

    def complete(self, body: dict[str, Any]) -> tuple[int, str]:
        """How many tokens a request was answered with, and the text."""
        # Where nothing is said, llama-cpp-python's server makes repetitions less likely.
        plain = {"repeat_penalty": 1.0} if self.name.startswith("llama.cpp") else {}
        told = self.ask("POST", "/v1/completions", {**body, **plain, "model": self.model})
        return told["usage"]["completion_tokens"], told["choices"][0]["text"]

    def round(self, asked: list[dict[str, Any]], clients: int) -> tuple[float, int, list[str]]:
        """Seconds until all is answered, the number of tokens, and the texts."""
        time.sleep(PAUSE)
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(self.complete, asked))
        return time.perf_counter() - begun, sum(count for count, _ in answers), [one for _, one in answers]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def main() -> None:
    """Print a line an engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a checkpoint and a tokenizer")
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES, metavar="ENGINE", help=str(ENGINES))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=32, help="of a round")
    parser.add_argument("--longest", type=int, default=64, help="new tokens of a text")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=Path("out/bench"), help="where llama.cpp's files are kept")
    parser.add_argument("--json", type=Path, help="write every figure here")
    options = parser.parse_args()
    asked = questions(options.requests, options.longest)
    servers: list[Server] = []
    try:
        for engine in options.engines:
            missing = [one for one in NEEDED[engine.split()[0]] if find_spec(one) is None]
            if missing:
                print(f"{engine}: left out, {', '.join(missing)} isn't installed")
                continue
            servers.append(Server(engine, options.model, options.scratch, options.clients))
        compare(servers, asked, options)
    finally:
        for server in servers:
            server.close()


def compare(servers: list[Server], asked: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Let the servers take turns, and print what each did."""
    speeds: dict[str, list[float]] = {server.name: [] for server in servers}
    texts: dict[str, list[str]] = {}
    for round_ in range(options.rounds + 1):
        for server in list(servers):
            try:
                some = asked if round_ else asked[:4]  # at first what is loaded or compiled at first use
                seconds, tokens, texts[server.name] = server.round(some, options.clients)
            except (OSError, http.client.HTTPException, ValueError) as error:
                print(f"{server.name}: {error}\n{server.told()}", file=sys.stderr)
                servers.remove(server)
                server.close()
                continue
            if round_:
                speeds[server.name].append(tokens / seconds)
                print(f"  round {round_}, {server.name}: {tokens} tokens in {seconds:.1f} s", flush=True)
    print(f"{machine.name()}; {options.clients} clients, {len(asked)} requests a round")
    for server in servers:
        first = texts[servers[0].name]
        same = sum(mine == other for mine, other in zip(texts[server.name], first, strict=True))
        middle = statistics.median(speeds[server.name])
        print(f"{server.name:26}{middle:8.1f} tokens/s   {same} of {len(first)} texts are {servers[0].name}'s")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine.name(), "tokens/s": speeds}, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
