"""The server over HTTP: OpenAI's protocol, what it refuses, and what it does when a client goes away."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serving import Client, running

from gpt2_np import GPT2, Generation
from gpt2_np.server.jobs import Job
from gpt2_np.server.limits import Limits
from gpt2_np.server.writing import Writing

PROMPT = "Once upon a time"
EXPLODES = {"json_schema": {"type": "integer", "multipleOf": 99999989}}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the server's packages warn each other


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.fixture(scope="module")
def client(model: GPT2) -> Iterator[Client]:
    with running(model, Limits(body=100_000, texts=20, new_tokens=100, constraint_seconds=1)) as found:
        yield found


# ---- texts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"temperature": 0}, {}),
        ({"temperature": 0, "seed": 5, "user": "me", "top_p": 1, "presence_penalty": 0, "n": 1, "best_of": 1}, {}),
        ({"seed": 3}, {"do_sample": True, "seed": 3}),
        (
            {"seed": 3, "temperature": 0.7, "top_p": 0.9},
            {"do_sample": True, "seed": 3, "temperature": 0.7, "top_p": 0.9},
        ),
        ({"seed": 3, "n": 3, "best_of": 4}, {"do_sample": True, "seed": 3, "num_return_sequences": 3, "best_of": 4}),
        ({"temperature": 0, "logit_bias": {"5": 100}}, {"logit_bias": {5: 100}}),
        ({"seed": 1, "frequency_penalty": 1.5}, {"do_sample": True, "seed": 1, "frequency_penalty": 1.5}),
        ({"num_beams": 3, "n": 2}, {"num_beams": 3, "num_return_sequences": 2}),
        ({"num_beams": 2, "temperature": 1.0, "seed": 4}, {"num_beams": 2, "do_sample": True, "seed": 4}),
        ({"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.6, "top_k": 4}),
        ({"mirostat": 2, "seed": 9}, {"mirostat": 2, "do_sample": True, "seed": 9}),
        ({"banned_strings": ["the"], "temperature": 0}, {"banned_strings": ["the"]}),
        ({"token_healing": True, "temperature": 0}, {"token_healing": True}),
        ({"prompt_lookup_num_tokens": 5, "temperature": 0}, {"prompt_lookup_num_tokens": 5}),
        ({"prompt_lookup_num_tokens": 5, "seed": 2}, {"prompt_lookup_num_tokens": 5, "do_sample": True, "seed": 2}),
        ({"stop_strings": "e", "temperature": 0}, {"stop_strings": "e"}),
    ],
)
def test_the_same_text_as_generate(client: Client, model: GPT2, body: dict[str, Any], names: dict[str, Any]) -> None:
    told = {} if body.keys() & {"num_beams", "penalty_alpha"} else {"logprobs": 0}
    answer = client.complete(PROMPT, max_tokens=12, return_token_ids=True, **told, **body)
    written = model.generate(PROMPT, max_new_tokens=12, **names)
    several = written if isinstance(written, list) else [written]
    assert [one["text"] for one in answer["choices"]] == [one.text for one in several]
    assert [one["token_ids"] for one in answer["choices"]] == [one.ids for one in several]
    assert [one["finish_reason"] for one in answer["choices"]] == [one.finish_reason for one in several]
    if answer["choices"][0]["logprobs"] is not None:
        assert [one["logprobs"]["token_logprobs"] for one in answer["choices"]] == [one.logprobs for one in several]
    assert [one["index"] for one in answer["choices"]] == list(range(len(several)))
    assert answer.get("seed") == names.get("seed")


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_p": 0.02, "typical_p": 0.9},
        {"dry_multiplier": 0.8, "presence_penalty": 0.5, "frequency_penalty": 0.2},
        {"guidance_scale": 1.5},
        {"regex": "[a-z ]{4,30}[.]"},
        {"json_schema": SCHEMA},
        {"choice": ["yes", "no"]},
        {"grammar": 'start: "the " /[a-z]{2,9}/ " king"'},
        {"num_beams": 2, "regex": "[a-z ]{4,30}"},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"dola_layers": "low"},
    ],
    ids=lambda options: " ".join(options),
)
def test_every_other_option_has_its_own_name(client: Client, model: GPT2, options: dict[str, Any]) -> None:
    """Greedily and drawn, where the options allow it; each is the text of `generate`."""
    if options.keys() & {"regex", "json_schema", "choice", "grammar"}:
        pytest.importorskip("llguidance", reason="needs llguidance: pip install 'gpt2-np[constraints]'")
    ways: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if "min_p" not in options:
        ways.append(({"temperature": 0}, {}))
    if not options.keys() & {"num_beam_groups", "dola_layers"}:
        ways.append(({"seed": 6, "temperature": 1}, {"do_sample": True, "seed": 6}))
    for body, names in ways:
        told = client.complete(PROMPT, max_tokens=12, return_token_ids=True, **body, **options)["choices"][0]
        written = model.generate(PROMPT, max_new_tokens=12, **names, **options)
        assert isinstance(written, Generation)
        assert (told["text"], told["token_ids"], told["finish_reason"]) == (
            written.text,
            written.ids,
            written.finish_reason,
        )


def test_an_answer_leaves_nothing_that_only_a_search_for_cycles_would_free(client: Client) -> None:
    def held() -> int:
        return sum(type(one) in (Writing, Job) for one in gc.get_objects())

    gc.collect()
    before = held()
    gc.disable()
    try:
        for _ in range(3):
            client.complete(["a", "b"], max_tokens=2)
        deadline = time.monotonic() + 5
        while held() > before and time.monotonic() < deadline:  # a handler ends a little after its answer is sent
            time.sleep(0.01)
        assert held() <= before
    finally:
        gc.enable()


def test_a_seed_that_was_drawn_is_told_and_gives_the_text_again(client: Client) -> None:
    first = client.complete(PROMPT)
    assert first["usage"]["completion_tokens"] == 16
    again = client.complete(PROMPT, seed=first["seed"])
    assert again["choices"] == first["choices"]
    assert client.complete(PROMPT)["seed"] != first["seed"]


def test_prompts_of_every_kind_and_several_at_once(client: Client, model: GPT2) -> None:
    ids = model.tokenizer.encode("The king")
    one = client.complete("The king", temperature=0)["choices"][0]["text"]
    assert client.complete(ids, temperature=0)["choices"][0]["text"] == one
    both = client.complete([ids, ids], temperature=0)["choices"]
    assert [(choice["index"], choice["text"]) for choice in both] == [(0, one), (1, one)]
    several = client.complete(["The king", "The sea"], n=2, seed=1)
    lone = [client.complete(prompt, n=2, seed=1)["choices"] for prompt in ("The king", "The sea")]
    assert [choice["text"] for choice in several["choices"]] == [choice["text"] for two in lone for choice in two]
    assert client.complete("", temperature=0)["choices"][0]["text"] == model.generate("", max_new_tokens=16).text


def test_a_prompt_is_echoed_with_its_log_probabilities(client: Client, model: GPT2) -> None:
    text = "The king’s son went out."  # a character of several tokens among them
    ids = model.tokenizer.encode(text)
    for body in ({"max_tokens": 0}, {"max_tokens": 3, "temperature": 0}, {"max_tokens": 3, "num_beams": 2}):
        told = client.complete(text, echo=True, logprobs=None if "num_beams" in body else 2, **body)["choices"][0]
        assert told["text"].startswith(text)
        assert told["finish_reason"] == "length"
    told = client.complete(text, echo=True, logprobs=2, max_tokens=3, temperature=0)["choices"][0]
    found, count = told["logprobs"], len(ids)
    assert {len(found[name]) for name in found} == {count + 3}
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    score = model.score(model.tokenizer.encode(text)[1:], prompt=ids[:1])
    assert sum(found["token_logprobs"][1:count]) == pytest.approx(-score.nll, abs=1e-4)
    for token, logprob, top in zip(
        *(found[name][1:] for name in ("tokens", "token_logprobs", "top_logprobs")), strict=True
    ):
        assert top[token] == logprob
        assert 2 <= len(top) <= 3
        assert logprob <= max(top.values())
    for token, start, end in zip(found["tokens"], found["text_offset"], [*found["text_offset"][1:], None], strict=True):
        if not token.startswith("bytes:"):
            assert told["text"][start:end].startswith(token)
    assert any(token.startswith("bytes:\\x") for token in found["tokens"]) == ("’" not in model.tokenizer.tokens(ids))


@pytest.mark.parametrize("stop", ["king", [" son", "xyz"], "zzz", ["w", "y, "]])
def test_a_text_is_cut_before_a_stop_string(client: Client, model: GPT2, stop: Any) -> None:
    whole = client.complete("The king", temperature=0, max_tokens=30)["choices"][0]
    told = client.complete("The king", temperature=0, max_tokens=30, stop=stop, logprobs=0)["choices"][0]
    places = [whole["text"].find(one) for one in ([stop] if isinstance(stop, str) else stop)]
    cut = min((place for place in places if place >= 0), default=None)
    assert told["text"] == whole["text"][:cut]
    assert told["finish_reason"] == ("length" if cut is None else "stop")
    assert all(offset < len(told["text"]) for offset in told["logprobs"]["text_offset"])
    streamed = client.events(prompt="The king", temperature=0, max_tokens=30, stop=stop)
    assert "".join(one["choices"][0]["text"] for one in streamed[:-1]) == told["text"]


def test_constraints_are_kept_and_what_explodes_is_ended(client: Client) -> None:
    pytest.importorskip("llguidance", reason="needs llguidance: pip install 'gpt2-np[constraints]'")
    assert client.complete(PROMPT, regex="[0-9]{3}", seed=1)["choices"][0]["text"].isdigit()
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert isinstance(
        json.loads(client.complete("{", json_schema=schema, seed=1, max_tokens=30)["choices"][0]["text"])["a"], bool
    )
    begun = time.monotonic()
    status, error = client.refused(prompt="a", **EXPLODES)
    assert time.monotonic() - begun < 15
    assert status == 400
    assert "must compile within 1 seconds" in error["message"]
    assert client.complete(PROMPT, choice=["yes", "no"], seed=1)["choices"][0]["text"] in ("yes", "no")


@pytest.mark.slow
def test_many_that_explode_stop_nobody_who_has_no_constraint(client: Client) -> None:
    pytest.importorskip("llguidance", reason="needs llguidance: pip install 'gpt2-np[constraints]'")
    others = [threading.Thread(target=client.refused, kwargs={"prompt": "a", **EXPLODES}) for _ in range(12)]
    for thread in others:
        thread.start()
    time.sleep(0.2)
    begun = time.monotonic()
    client.complete(PROMPT, max_tokens=2)
    assert time.monotonic() - begun < 3  # each of the others takes a second and more
    for thread in others:
        thread.join()


@pytest.mark.slow
def test_what_takes_long_to_compile_stops_no_other_constraint(model: GPT2) -> None:
    pytest.importorskip("llguidance", reason="needs llguidance: pip install 'gpt2-np[constraints]'")
    answers: list[str] = []

    def ask(number: int) -> None:
        schema = {"type": "integer", "multipleOf": 99999989 + 2 * number}
        answers.append(client.refused(prompt="a", json_schema=schema)[1]["message"])

    with running(model, Limits(constraint_seconds=3)) as client:
        client.complete(PROMPT, choice=["yes", "no"], seed=1)  # both wait for the process to start at first
        others = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in others:
            thread.start()
        time.sleep(0.2)
        told = client.complete(PROMPT, regex="yes|no", seed=1)["choices"][0]["text"]
        before = len(answers)
        for thread in others:
            thread.join()
    assert told in ("yes", "no")
    assert before <= 2  # in the order of their arrival it would be all of them
    assert answers == ["json_schema must compile within 3 seconds and 2048 MiB; make it simpler"] * 4


# ---- streams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": 0, "echo": True, "logprobs": 1},
        {"seed": 2, "n": 2, "logprobs": 0},
        {"num_beams": 2, "echo": True},
        {"prompt": ["The king", "Ein schöner ‘Tag’ 😀"], "seed": 7, "temperature": 2.5, "logprobs": 0, "echo": True},
        {"max_tokens": 0, "echo": True, "logprobs": 1},
        {"prompt_lookup_num_tokens": 4, "temperature": 0},
    ],
)
def test_a_stream_adds_up_to_the_whole(client: Client, body: dict[str, Any]) -> None:
    body = {"prompt": "The king", "max_tokens": 25} | body
    whole = client.post("/v1/completions", **body)
    *chunks, last, end = client.events(**body, stream_options={"include_usage": True})
    assert end == "[DONE]"
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert {one["id"] for one in [*chunks, last]} == {last["id"]}
    for choice in whole["choices"]:
        mine = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert [one["finish_reason"] for one in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
        if choice["logprobs"] is not None:
            for name, values in choice["logprobs"].items():
                assert [value for one in mine for value in one["logprobs"][name]] == values


def test_a_client_that_leaves_makes_room(client: Client) -> None:
    """Both a stream and an answer that is waited for; the text would be 100 tokens long."""
    assert client.server is not None
    scheduler = client.server.scheduler
    for stream in (True, False):
        raw = json.dumps(
            {"prompt": "a", "max_tokens": 100, "stream": stream, "eos_token_id": [], "temperature": 0, "n": 1}
        )
        step = scheduler.slots.step

        def slowly(ids: Any, step: Any = step) -> Any:
            time.sleep(0.2)
            return step(ids)

        scheduler.slots.step = slowly  # type: ignore[method-assign]
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n{raw}".encode())
            wait_until(lambda: scheduler.owners)
        wait_until(lambda: not scheduler.owners)
        scheduler.slots.step = step  # type: ignore[method-assign]
    assert 'jobs_ended_total{reason="cancelled"} 2.0' in client.request("GET", "/metrics")[2].decode()


def wait_until(true: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ---- the rest ---------------------------------------------------------------------------------------------------


def test_models_health_metrics_and_the_tokenizer(client: Client, model: GPT2) -> None:
    (one,) = client.get("/v1/models")["data"]
    assert one["id"] == "tales"
    assert client.get("/v1/models/tales") == one
    assert client.get("/health") == {"status": "ok"}
    ids = client.post("/tokenize", prompt="The king", add_special_tokens=False)["tokens"]
    assert ids == model.tokenizer.encode("The king")
    assert client.post("/detokenize", tokens=ids) == {"prompt": "The king"}
    assert client.get("/tokenizer_info")["eos_token"] == "<|endoftext|>"
    for body in ({"prompt": 5}, {}, {"prompt": "a", "add_special_tokens": 1}):
        assert client.refused("/tokenize", **body)[0] == 400
    for ids in (["a"], 5, None, [-1], [True]):
        assert client.refused("/detokenize", tokens=ids)[0] == 400
    text = client.request("GET", "/metrics")[2].decode()
    assert "gpt2_np_completion_tokens_total" in text
    assert "gpt2_np_time_to_first_token_seconds_bucket" in text


def test_what_may_come_next_before_and_after_the_processors(client: Client, model: GPT2) -> None:
    told = client.post("/distribution", prompt="The king", temperature=0.5, top_k=3, logprobs=8)
    logits = model("The king")[-1].astype("float64")
    p = np.sort(np.exp(logits - logits.max()))[::-1].tolist()
    assert [one["probability"] for one in told["tokens"]] == pytest.approx([one / sum(p) for one in p[:8]], rel=1e-4)
    sharpened = [one**2 for one in p[:3]]
    assert [one["after"] for one in told["tokens"][:3]] == pytest.approx(
        [one / sum(sharpened) for one in sharpened], rel=1e-4
    )
    assert told["left"] == 3
    assert [one["option"] for one in told["changes"]] == ["temperature", "top_k"]
    assert client.refused("/distribution", prompt="a", num_beams=2)[0] == 400


def test_looking_inside(client: Client) -> None:
    page = client.request("GET", client.post("/inspect", prompt="The king and")["url"])[2].decode()
    assert page.startswith("<!doctype html>".upper()) or "<html" in page
    assert client.refused("/inspect", prompt="a " * 200)[0] == 400
    assert client.refused("/inspect", prompt=[1])[0] == 400
