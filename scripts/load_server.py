"""Test `gpt2-np serve` with many clients at once: is every text the one that is generated alone, and how fast?

    python scripts/load_server.py --clients 64 --seconds 120
    python scripts/load_server.py --clients 16 --seconds 30 --model gpt2 --dtype int8 --rows 16

The script starts a server, generates the text of each request alone by `GPT2.generate`, and lets the clients send these
requests at random for --seconds: 10 % disconnect in the middle, and 5 % send invalid requests. The exit status is 1 if
a text differed, a request got no clean answer, or memory grew in the last quarter. It needs the ``serve`` extra, and
/proc for measuring memory.
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
from dataclasses import dataclass, field
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


def resident(process: int) -> float:
    """The memory that a process holds, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def started(arguments: argparse.Namespace, longest: int) -> tuple[subprocess.Popen[str], int]:
    """A server, and its port."""
    command = [sys.executable, "-m", "gpt2_np", "serve", "--port", "0", "--model", arguments.model]
    command += ["--dtype", arguments.dtype, "--rows", str(arguments.rows), "--queue", str(4 * arguments.clients)]
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
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--model", default="tales")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--requests", type=int, default=60, help="how many different ones")
    parser.add_argument("--longest", type=int, default=128, help="new tokens of a text")
    arguments = parser.parse_args()
    asked = requests(
        GPT2.from_pretrained(arguments.model, dtype=arguments.dtype), arguments.requests, arguments.longest
    )
    server, port = started(arguments, arguments.longest)
    counts, memory = Counts(), list[float]()
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
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    quarters = [round(memory[(len(memory) - 1) * part // 4]) for part in range(5)]
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
        "memory by quarters, MiB": quarters,
        "server's exit status": server.returncode,
    }
    for name, value in told.items():
        print(f"{name:28} {value}")
    for line in [*counts.wrong[:5], *counts.failed[:5]]:
        print(f"  {line[:300]}")
    grown = quarters[4] > quarters[3] * 1.03 + 10  # until each row has held a long text, it takes more
    return int(bool(counts.wrong or counts.failed or grown or server.returncode))


if __name__ == "__main__":
    sys.exit(main())
