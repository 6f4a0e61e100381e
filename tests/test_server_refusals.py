"""What the server refuses over HTTP, and whom: in OpenAI's shape, in one line, and without a word of the machine."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Client, running

from gpt2_np import GPT2
from gpt2_np.server.limits import Limits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the server's packages warn each other


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.fixture(scope="module")
def client(model: GPT2) -> Iterator[Client]:
    with running(model, Limits(body=100_000, texts=20, new_tokens=100)) as found:
        yield found


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"prompt": 5}, 400, "prompt must be"),
        ({"prompt": [1, "a"]}, 400, "prompt"),
        ({"prompt": [4096]}, 400, "4095"),
        ({"prompt": [[]] * 21}, 400, "at most 20 prompts"),
        ({"prompt": "a " * 600}, 400, "at most 512 tokens"),
        ({"prompt": "\ud800"}, 400, "lone surrogate"),
        ({"suffix": "b"}, 400, "suffix"),
        ({"model": "gpt-4"}, 404, "there is no model 'gpt-4'"),
        ({"max_tokens": 0}, 400, "max_tokens must be at least 1"),
        ({"max_tokens": -1}, 400, "at least 1, got -1"),
        ({"max_tokens": 101}, 400, "max_tokens must be at most 100, got 101"),
        ({"max_tokens": "5"}, 400, "max_tokens must be a whole number"),
        ({"max_tokens": 5, "max_new_tokens": 5}, 400, "say the same"),
        ({"temperature": -1}, 400, "temperature must be"),
        ({"temperature": "hot"}, 400, "temperature must be"),
        ({"top_p": 2}, 400, "top_p must be"),
        ({"n": 0}, 400, "at least 1, got 0"),
        ({"n": 21}, 400, "at most 20 texts"),
        ({"n": 5, "best_of": 21}, 400, "at most 20 texts"),
        ({"num_beams": 21}, 400, "at most 20 texts"),
        ({"n": 2, "temperature": 0}, 400, "greedy decoding gives one sequence"),
        ({"best_of": 3, "stream": True}, 400, "streamed"),
        ({"logprobs": 101}, 400, "logprobs must be at most 100"),
        ({"logprobs": True}, 400, "logprobs must be a whole number"),
        ({"logit_bias": {"99999": 1}}, 400, "logit_bias must hold ids"),
        ({"logit_bias": [1]}, 400, "logit_bias"),
        ({"stop": [""]}, 400, "at least one character"),
        ({"stop": ["a"] * 17}, 400, "at most 16"),
        ({"stream": "yes"}, 400, "stream must be true or false"),
        ({"stream_options": 1}, 400, "stream_options must be an object"),
        ({"temprature": 1}, 400, "did you mean 'temperature'"),
        ({"messages": []}, 400, "base models"),
        ({"assistant_model": "/etc"}, 400, "assistant_model"),
        ({"regex": "a" * 70_000}, 400, "at most 65536 characters"),
        ({"regex": "("}, 400, "regular expression"),
        ({"suppress_tokens": list(range(4096)), "stream": True}, 400, "no token is left"),
        ({"seed": "x"}, 400, "seed must be"),
        ({"penalty_alpha": 0.5, "top_k": 4, "num_beams": 2}, 400, "can't be combined"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(client: Client, body: dict[str, Any], status: int, says: str) -> None:
    if "regex" in body:
        pytest.importorskip("llguidance", reason="needs llguidance: pip install 'gpt2-np[constraints]'")
    found, error = client.refused(**({"prompt": "a"} | body))
    assert (found, "\n" in error["message"]) == (status, False)
    assert says in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("raw", "headers", "status", "says"),
    [
        (b"{", {}, 400, "must be JSON"),
        (b"[]", {}, 400, "JSON object"),
        (b"\xff", {}, 400, "must be JSON"),
        (b'{"temperature": NaN}', {}, 400, "NaN is no number"),
        (b'{"prompt": ' + b"[" * 90_000, {}, 400, "JSON"),
        (b"a" * 100_001, {}, 413, "at most 100000 bytes"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "application/json"),
    ],
)
def test_bodies_that_are_none(client: Client, raw: bytes, headers: dict[str, str], status: int, says: str) -> None:
    found, _, answer = client.request("POST", "/v1/completions", raw, headers)
    assert found == status
    assert says in json.loads(answer)["error"]["message"]


def test_a_body_that_does_not_say_how_long_it_is(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n" + (b"4e20\r\n" + b"a" * 20_000 + b"\r\n") * 6)
        assert b" 413 " in connection.recv(100)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/inspect/other", 404),
    ],
)
def test_paths_that_are_none(client: Client, method: str, path: str, status: int) -> None:
    found, _, raw = client.request(method, path, b"{}" if method == "POST" else None)
    assert found == status
    assert json.loads(raw)["error"]["message"]


def test_a_fault_of_ours_says_nothing_of_the_machine(model: GPT2, capfd: pytest.CaptureFixture[str]) -> None:
    with running(model) as client:
        assert client.server is not None

        def broken(*_: Any) -> Any:
            raise OSError(2, "No such file", "/home/secret")

        client.server.scheduler.slots.read = broken  # type: ignore[method-assign]
        status, error = client.refused(prompt="a")
        client.server.read = broken  # type: ignore[method-assign]
        again, other = client.refused(prompt="a")
    assert status == again == 500
    assert error["message"] == other["message"] == "the server failed; its log says why"


def test_keys_hosts_and_origins(model: GPT2) -> None:
    origin = "http://a.example"
    with running(model, api_key="secret", hosts=["127.0.0.1"], cors=[origin]) as client:
        body = {"prompt": "a", "max_tokens": 1}
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            status, headers, raw = client.request("POST", "/v1/completions", body, given)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
            assert json.loads(raw)["error"]["code"] == "invalid_api_key"
        key = {"Authorization": "Bearer secret"}
        assert client.request("POST", "/v1/completions", body, key)[0] == 200
        assert client.request("GET", "/health")[0] == client.request("GET", "/")[0] == 200
        for path in ("/metrics", "/v1/models", "/tokenizer_info"):
            assert client.request("GET", path)[0] == 401
        assert client.request("GET", "/health", headers={"Host": "evil.example"})[0] == 421
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert client.request("OPTIONS", "/v1/completions", None, asks)[1]["Access-Control-Allow-Origin"] == origin
        asks["Origin"] = "http://b.example"
        assert client.request("OPTIONS", "/v1/completions", None, asks)[1]["Access-Control-Allow-Origin"] is None


def test_no_other_page_may_ask_unless_named(client: Client) -> None:
    _, headers, _ = client.request("POST", "/v1/completions", {"prompt": "a"}, {"Origin": "http://a.example"})
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_a_queue_that_is_full(model: GPT2) -> None:
    with running(model, Limits(queue=2)) as client:
        status, error = client.refused(prompt=["a"] * 3)
        assert (status, error["type"]) == (429, "rate_limit_error")
        assert client.complete(["a"] * 2, max_tokens=1)["choices"]
