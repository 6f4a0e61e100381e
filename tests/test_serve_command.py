"""``gpt2-np serve`` as a process: it starts, answers, ends well under load, and refuses what can't be in one line."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from serving import Client

from gpt2_np.cli import main


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    command = [sys.executable, "-m", "gpt2_np", "serve", "--port", "0", *arguments]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1/completions", line)
        assert found, line + started.communicate(timeout=20)[1]
        yield started, Client(int(found[1]))
    finally:
        started.kill()
        started.communicate(timeout=20)


def ask(client: Client, answers: list[Any], **body: Any) -> threading.Thread:
    def work() -> None:
        try:
            answers.append(client.request("POST", "/v1/completions", body))
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_at_a_signal_it_finishes_what_it_can_and_says_so_of_the_rest() -> None:
    answers: list[Any] = []
    endless = {"prompt": "a", "max_tokens": 400, "temperature": 0, "eos_token_id": []}
    with process("--grace", "0.5", "--rows", "48", GPT2_NP_API_KEY="k") as (started, client):
        assert client.request("POST", "/v1/completions", {"prompt": "a"})[0] == 401
        key = {"Authorization": "Bearer k"}
        assert client.request("GET", "/v1/models", headers=key)[0] == 200
        ask_ = client.request
        client.request = lambda method, path, body: ask_(method, path, body, key)  # type: ignore[method-assign]
        threads = [ask(client, answers, **endless, n=1) for _ in range(30)]
        threads += [ask(client, answers, **endless, stream=True) for _ in range(10)]
        time.sleep(0.5)
        short = ask(client, quick := [], prompt="a", max_tokens=1)
        time.sleep(0.2)
        started.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        for thread in [*threads, short]:
            thread.join(20)
        assert started.wait(20) is not None
        assert time.monotonic() - begun < 15
        assert started.stderr is not None
        assert "Traceback" not in started.stderr.read()
    assert quick[0][0] == 200
    assert len(answers) == 40
    for answer in answers:
        assert not isinstance(answer, OSError), answer
        status, headers, raw = answer
        if headers["content-type"].startswith("text/event-stream"):
            last = [line for line in raw.decode().splitlines() if line.startswith("data: ")][-1]
            assert last == "data: [DONE]" or json.loads(last[6:])["error"]["code"] == "shutting_down"
        else:
            assert status in (200, 503), raw
            assert status == 200 or json.loads(raw)["error"]["code"] == "shutting_down"


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    listed = Path(f"/proc/{process}/task").glob("*/children")
    return [int(one) for file in listed for one in file.read_text().split()]


def gone(process: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit status yet."""
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True


def test_killed_under_load_clients_get_an_error_and_it_starts_again_at_the_same_port() -> None:
    """By SIGKILL, at which nothing can be said: no client waits on, and no process stays behind."""
    asked = {"prompt": "The king", "max_tokens": 8, "seed": 3}
    endless = {"prompt": "a", "max_tokens": 500, "temperature": 0, "eos_token_id": []}
    found: list[Any] = []

    def work(client: Client, **body: Any) -> None:
        try:
            found.append(client.request("POST", "/v1/completions", endless | body))
        except (OSError, http.client.HTTPException) as error:
            found.append(error)

    with process("--rows", "8") as (started, client):
        text = client.complete(**asked)["choices"][0]["text"]
        if find_spec("llguidance"):
            client.complete("a", regex="[0-9]", max_tokens=1)
        others = children(started.pid)
        assert len(others) == bool(find_spec("llguidance") and Path("/proc").exists())
        threads = [
            threading.Thread(target=work, args=(client,), kwargs=more)
            for more in [{"stream": True}, {}, {"num_beams": 3}, {"stream": True, "seed": 1, "temperature": 1}] * 6
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        started.kill()
        started.wait(10)
        began = time.monotonic()
        for thread in threads:
            thread.join(20)
        assert time.monotonic() - began < 10
        assert len(found) == len(threads)
        assert not [one for one in found if not isinstance(one, Exception)]
        with pytest.raises(ConnectionError):
            client.get("/health")
    while not all(map(gone, others)):
        assert time.monotonic() - began < 20, "what tries constraints out must end with the server"
        time.sleep(0.05)
    with process("--port", str(client.port)) as (_, again):
        assert again.port == client.port
        assert again.complete(**asked)["choices"][0]["text"] == text


def test_what_can_not_be_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, says in [
            (["--port", port], "Address already in use"),
            (["--rows", "0"], "rows must be at least 1, got 0"),
            (["--model", "nothing/here"], "nothing/here"),
        ]:
            with pytest.raises(SystemExit) as left:
                main(["serve", *arguments])
            assert left.value.code == 2
            error = capsys.readouterr().err
            assert error.startswith("error: ")
            assert error.count("\n") == 1
            assert says in error
