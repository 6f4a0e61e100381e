"""Test `gpt2-np serve` with many clients at once: is every text the one that is generated alone, and how fast?

    python scripts/load_server.py --clients 64 --seconds 120
    python scripts/load_server.py --clients 16 --seconds 30 --model gpt2 --dtype int8 --rows 16

The script generates the text of each request alone by `GPT2.generate`, starts a server, warms it up with as many of the
longest texts as it has rows, and lets the clients send these requests at random for --seconds: 10 % disconnect in the
middle, and 5 % send invalid requests. The exit status is 1 if a text differed, a request got no clean answer, or memory
grew after the warm-up. The texts generated alone can be kept (``--alone FILE``), so that a later run has the machine to
itself at once. It needs the ``serve`` extra, and /proc for measuring memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_np import GPT2

LEAVING, INVALID = 0.10, 0.05
WRONG: list[dict[str, Any]] = [
    {"temperature": -1},
    {"max_tokens": 0},
    {"prompt": [10**9]},
    {"suffix": "x"},
    {"model": "another"},
    {"regex": "("},
]


@dataclass
class Counts:
    """The clients' counters."""

    texts: int = 0
    tokens: int = 0
    left: int = 0
    refused: int = 0
    busy: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Asked:
    """A request, and what is written alone."""

    body: dict[str, Any]
    texts: list[str]
    ids: list[list[int]]


def requests(model: GPT2, count: int, longest: int) -> list[Asked]:
    """Requests of mixed lengths and kinds, each with its lone texts."""
    chance, found = random.Random(0), []
    for number in range(count):
        ids = [chance.randrange(1, model.config.vocab_size - 1) for _ in range(int(2 ** chance.uniform(0, 7)))]
        most = int(2 ** chance.uniform(2, np.log2(longest)))
        kinds: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {"temperature": 0}),
            ({"do_sample": True, "seed": number}, {"seed": number}),
            (
                {"do_sample": True, "seed": number, "temperature": 0.8, "top_p": 0.9},
                {"seed": number, "temperature": 0.8, "top_p": 0.9},
            ),
            ({"do_sample": True, "seed": number, "num_return_sequences": 2}, {"seed": number, "n": 2}),
            ({"repetition_penalty": 1.2}, {"temperature": 0, "repetition_penalty": 1.2}),
        ]
        ours, theirs = kinds[number % len(kinds)]
        copies = ours.pop("num_return_sequences", 1)
        alone = model.generate([ids], max_new_tokens=most, num_return_sequences=copies, **ours)
        body = {"prompt": ids, "max_tokens": most, "return_token_ids": True, **theirs}
        found.append(Asked(body, [one.text for one in alone], [one.ids for one in alone]))
    return found


def kept(arguments: argparse.Namespace) -> list[Asked]:
    """The requests with their lone texts, from ``--alone`` where that file is there; otherwise written now."""
    file: Path | None = arguments.alone
    if file is not None and file.exists():
        return [Asked(**one) for one in json.loads(file.read_text(encoding="utf-8"))]
    model = GPT2.from_pretrained(arguments.model, dtype=arguments.dtype)
    asked = requests(model, arguments.requests, arguments.longest)
    if file is not None:
        file.write_text(json.dumps([asdict(one) for one in asked]), encoding="utf-8")
    return asked


def warm_up(port: int, rows: int, longest: int) -> None:
    """Let each row hold the longest text there will be, and blocks of prompts have every length.

    The system hands out a row's memory as it is written, and working memory of each size is kept once it was needed.
    """

    def ask(length: int, most: int) -> None:
        body = {"prompt": [1] * length, "max_tokens": most, "temperature": 0, "eos_token_id": []}
        connection, answer = post(port, body)
        answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"error: the warm-up was answered by {answer.status}")

    with ThreadPoolExecutor(rows) as pool:
        list(pool.map(ask, [128] * rows, [longest] * rows))
    for length in range(1, 65):
        ask(length, 1)


def client(port: int, asked: list[Asked], until: float, seed: int, counts: Counts) -> None:
    """One client: one request after the other."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        kind = chance.random()
        try:
            if kind < INVALID:
                refused(port, chance.choice(WRONG), counts)
            else:
                one(port, chance.choice(asked), kind < INVALID + LEAVING, chance, counts)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            with counts.lock:
                counts.failed.append(f"{type(error).__name__}: {error}")


def post(port: int, body: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Ask; the answer is still to be read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection, connection.getresponse()


def refused(port: int, wrong: dict[str, Any], counts: Counts) -> None:
    """Ask for what can't be; the answer must say so."""
    connection, answer = post(port, {"prompt": "a"} | wrong)
    told = json.loads(answer.read())
    connection.close()
    clean = answer.status in (400, 404) and set(told["error"]) == {"message", "type", "param", "code"}
    with counts.lock:
        counts.refused += clean
        if not clean:
            counts.failed.append(f"{wrong}: {answer.status} {told}")


def one(port: int, asked: Asked, leaving: bool, chance: random.Random, counts: Counts) -> None:
    """Ask for a text, read it as it comes, and compare; or leave in the middle."""
    begun = last = time.monotonic()
    connection, answer = post(port, asked.body | {"stream": True})
    if answer.status == 429:
        answer.read()
        connection.close()
        with counts.lock:
            counts.busy += 1
        time.sleep(0.1 + chance.random())
        return
    texts, ids, gaps = [""] * len(asked.texts), [list[int]() for _ in asked.ids], []
    first, leave_after = 0.0, chance.randrange(6)
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event, now = json.loads(line[6:]), time.monotonic()
        choice = event["choices"][0]
        texts[choice["index"]] += choice["text"]
        ids[choice["index"]] += choice["token_ids"]
        if first:
            gaps.append(now - last)
        first, last = first or now - begun, now
        if leaving and len(gaps) >= leave_after:
            break
    connection.close()
    with counts.lock:
        counts.first.append(first)
        counts.between += gaps
        counts.tokens += sum(map(len, ids))
        if leaving:
            counts.left += 1
            return
        counts.texts += len(texts)
        if texts != asked.texts or ids != asked.ids:
            counts.wrong.append(json.dumps(asked.body))


def left_over(port: int, seconds: float = 5.0) -> dict[str, float]:
    """What the server says that it still has in hand once every client is done; it has a moment to notice."""
    until, found = time.monotonic() + seconds, dict[str, float]()
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        names = ("jobs_waiting", "texts_in_progress", "tokens_in_progress")
        counts = {name: float(re.findall(rf"^gpt2_np_{name} (\S+)$", page, re.MULTILINE)[0]) for name in names}
        found = {name: count for name, count in counts.items() if count}
        if not found:
            break
        time.sleep(0.1)
    return found


def resident(process: int) -> float:
    """The memory that a process holds, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def started(arguments: argparse.Namespace, longest: int) -> tuple[subprocess.Popen[str], int]:
    """A server, and its port."""
    command = [sys.executable, "-m", "gpt2_np", "serve", "--port", "0", "--model", arguments.model]
    command += [
        "--dtype",
        arguments.dtype,
        "--rows",
        str(arguments.rows),
        "--queue",
        str(4 * max(arguments.clients, arguments.rows)),
    ]
    server = subprocess.Popen([*command, "--new-tokens", str(longest)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r":(\d+)/v1", server.stdout.readline())
    if found is None:
        raise SystemExit("the server didn't start")
    return server, int(found[1])


def spread(values: list[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    return {f"p{q}": round(1000 * float(np.percentile(values, q)), 1) if values else 0.0 for q in (50, 99)}


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120, help="0: only write what is alone")
    parser.add_argument("--model", default="tales")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--requests", type=int, default=60, help="how many different ones")
    parser.add_argument("--longest", type=int, default=128, help="new tokens of a text")
    parser.add_argument("--alone", type=Path, help="keeps what is written alone; read where it exists")
    arguments = parser.parse_args()
    asked = kept(arguments)
    if arguments.seconds <= 0:
        return 0
    server, port = started(arguments, arguments.longest)
    warm_up(port, arguments.rows, arguments.longest)
    counts, memory = Counts(), [resident(server.pid)]
    until = time.monotonic() + arguments.seconds
    threads = [
        threading.Thread(target=client, args=(port, asked, until, seed, counts)) for seed in range(arguments.clients)
    ]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append(resident(server.pid))
        time.sleep(0.5)
    took = time.monotonic() - begun
    over = left_over(port)
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    size = max(1, len(memory) // 4)
    quarters = [round(float(np.median(memory[part * size : (part + 1) * size] or memory[-1:]))) for part in range(4)]
    told = {
        "clients": arguments.clients,
        "seconds": round(took, 1),
        "texts compared": counts.texts,
        "wrong texts": len(counts.wrong),
        "left in the middle": counts.left,
        "refused as they should be": counts.refused,
        "told to wait (429)": counts.busy,
        "failed": len(counts.failed),
        "tokens/s": round(counts.tokens / took, 1),
        "first token, ms": spread(counts.first),
        "between tokens, ms": spread(counts.between),
        "memory by quarters, MiB": f"{quarters}, at most {max(memory):.0f}",  # medians: it goes up and down
        "left over in the server": over or "nothing",
        "server's exit status": server.returncode,
    }
    for name, value in told.items():
        print(f"{name:28} {value}")
    for line in [*counts.wrong[:5], *counts.failed[:5]]:
        print(f"  {line[:300]}")
    grown = quarters[3] > quarters[1] * 1.01 + 5  # what requests leave is collected first in the first quarter
    return int(bool(counts.wrong or counts.failed or over or grown or server.returncode))


if __name__ == "__main__":
    sys.exit(main())
