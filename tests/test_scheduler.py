"""Continuous batching: whoever else is served, a text is the one that is written alone, to the last bit."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduling import Asked, mixed, scheduler, slow, slow_beside

from gpt2_np import GPT2
from gpt2_np.server.batched import Batched
from gpt2_np.server.errors import Refused
from gpt2_np.server.jobs import Read, Wrote
from gpt2_np.server.limits import Limits
from gpt2_np.server.scheduler import Scheduler

DTYPES = ["float32", "bfloat16", "int8", "int4", "float64"]


@pytest.fixture(scope="module")
def model(small: Path) -> GPT2:
    return GPT2.from_pretrained(small)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_text_does_not_depend_on_who_else_is_served(small: Path, dtype: str) -> None:
    """63 others beside each, joining at any moment; against `generate`, which writes it alone."""
    model = GPT2.from_pretrained(small, dtype=dtype)
    asked, random_ = mixed(model, 64), random.Random(1)
    with scheduler(model, rows=24) as busy:
        for one in asked:
            busy.submit([one.job])
            if random_.random() < 0.4:
                time.sleep(random_.random() * 0.01)
        together = [one.texts() for one in asked]
    for one, texts in zip(asked, together, strict=True):
        alone = model.generate(one.ids, **one.names)
        several = alone if isinstance(alone, list) else [alone]
        assert texts == [(text.ids, text.logprobs, text.finish_reason) for text in several], one.names


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_long_prompt_is_read_with_the_bits_of_generate(dtype: str) -> None:
    """The server reads it in blocks, for searches too; `generate` as a whole."""
    model = GPT2.from_pretrained(dtype=dtype)
    random_ = random.Random(0)
    asked = [
        Asked(model, [random_.randrange(1, 4000) for _ in range(n)], max_new_tokens=3, **more)
        for n, more in ((97, {}), (150, {"num_beams": 3}), (400, {}), (300, {"prompt_lookup_num_tokens": 4}))
    ]
    with scheduler(model) as one:
        one.submit([each.job for each in asked])
        texts = [each.texts() for each in asked]
    for each, ((ids, logprobs, _),) in zip(asked, texts, strict=True):
        alone = model.generate(each.ids, **each.names)
        assert (ids, logprobs) == (alone.ids, alone.logprobs)


def test_what_is_streamed_is_what_comes_out(model: GPT2) -> None:
    asked = Asked(model, [5, 6, 7], streams=True, do_sample=True, seed=2, num_return_sequences=2, max_new_tokens=9)
    with scheduler(model) as one:
        one.submit([asked.job])
        texts = asked.texts()
    streamed: list[list[int]] = [[], []]
    for event in asked.events[:-1]:
        assert isinstance(event, Wrote)
        for token in event.tokens:
            streamed[token.row].append(token.id)
    assert streamed == [ids for ids, _, _ in texts]


def test_prompts_have_the_log_probabilities_that_the_model_gives_them(model: GPT2) -> None:
    ids = [int(one) for one in np.random.default_rng(0).integers(0, 97, 60)]
    for names in ({}, {"num_beams": 2}):  # in the batch, and beside it
        asked = Asked(model, ids, prompt_logprobs=4, max_new_tokens=1, **names)
        only = Asked(model, ids, prompt_logprobs=0, writes=False)
        with scheduler(model) as one:
            one.submit([asked.job, only.job])
            assert len(asked.texts()) == 1
            assert only.texts() == []
        read, shorter = asked.events[0], only.events[0]
        assert isinstance(read, Read)
        assert isinstance(shorter, Read)
        logits = model(ids).astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        np.testing.assert_allclose(read.logprobs, expected[np.arange(59), ids[1:]], atol=1e-5)
        assert shorter.logprobs == read.logprobs
        for row, top in zip(expected, read.top, strict=False):
            assert [token for token, _ in top] == np.argsort(-row)[:4].tolist()


def test_a_long_prompt_does_not_stall_a_stream(tmp_path: Path) -> None:
    """Between two tokens of a stream no more than a few blocks of a prompt are read, however long it is."""
    model = GPT2.from_pretrained()
    stream = Asked(model, [5, 6, 7], streams=True, max_new_tokens=60, eos_token_id=[])
    prompts = [Asked(model, [8] * 480, max_new_tokens=1) for _ in range(2)]
    with scheduler(model) as one:
        read: list[int] = []
        one.observer.read = lambda positions: read.append(positions)  # type: ignore[method-assign]
        one.submit([stream.job])
        while len(stream.events) < 3:
            time.sleep(0.001)
        before = len(stream.events)
        one.submit([asked.job for asked in prompts])
        prompts[1].done()
        during = len(stream.events) - before
        stream.done()
    assert max(read) <= 64
    assert during >= 960 // 128


def test_room_is_free_within_a_step_of_a_cancellation(model: GPT2) -> None:
    endless = [Asked(model, [1], max_new_tokens=60, eos_token_id=[], do_sample=True, seed=n) for n in range(2)]
    with scheduler(model, rows=2) as one:
        slow(one)
        one.submit([asked.job for asked in endless])
        waits = Asked(model, [2], max_new_tokens=1)
        one.submit([waits.job])
        time.sleep(0.05)
        assert not waits.ended.is_set()
        one.cancel([endless[0].job])
        waits.texts()
        assert not endless[1].ended.is_set()
        assert endless[0].done().error is not None


@pytest.mark.parametrize("beside", [False, True])
def test_a_request_that_is_late_says_so(model: GPT2, beside: bool) -> None:
    names: dict[str, Any] = {"num_beams": 2} if beside else {}
    asked = Asked(model, [1], seconds=0.05, max_new_tokens=60, eos_token_id=[], **names)
    with scheduler(model) as one:
        slow(one)
        if beside:
            slow_beside(one)
        one.submit([asked.job])
        error = asked.done().error
    assert isinstance(error, Refused)
    assert (error.status, error.code) == (504, "timeout")


def test_a_full_queue_refuses_all_of_a_request_or_nothing(model: GPT2) -> None:
    running = Asked(model, [1], max_new_tokens=60, eos_token_id=[])
    with scheduler(model, rows=1, queue=3) as one:
        slow(one)
        one.submit([running.job])
        time.sleep(0.03)
        waiting = [Asked(model, [2], max_new_tokens=1) for _ in range(2)]
        one.submit([asked.job for asked in waiting])
        too_many = [Asked(model, [3], max_new_tokens=1, num_beams=2) for _ in range(2)]
        with pytest.raises(Refused, match="2 requests are waiting") as caught:
            one.submit([asked.job for asked in too_many])
        assert caught.value.status == 429
        one.cancel([running.job])
        for asked in waiting:
            asked.texts()
        assert not any(asked.events for asked in too_many)


def test_closing_gives_time_and_then_says_so(model: GPT2) -> None:
    short = Asked(model, [1], max_new_tokens=4, eos_token_id=[])
    long = Asked(model, [1], max_new_tokens=60, eos_token_id=[])
    search = Asked(model, [1], max_new_tokens=5, eos_token_id=[], num_beams=2)
    one = Scheduler(model, Limits())
    slow(one)
    one.submit([short.job, long.job, search.job])
    one.close(2)
    with pytest.raises(Refused, match="shutting down"):
        one.submit([Asked(model, [1]).job])
    assert len(short.texts()) == 1
    assert len(search.texts()) == 1
    error = long.done().error
    assert isinstance(error, Refused)
    assert error.status == 503
    one.join(10)
    assert not one.thread.is_alive()


def test_what_fails_fails_alone(model: GPT2) -> None:
    """Options under which nothing is left, a model that overflows for one text, and a fault of the server's own."""
    fine = [Asked(model, [4, 5], max_new_tokens=20, do_sample=True, seed=n) for n in range(3)]
    empty = Asked(model, [4], max_new_tokens=20, suppress_tokens=list(range(97)))
    with scheduler(model) as one:
        one.submit([fine[0].job, empty.job, fine[1].job])
        error = empty.done().error
        assert isinstance(error, Refused)
        assert error.status == 400
        assert "no token is left" in str(error)
        texts = [fine[0].texts(), fine[1].texts()]
        one.submit([fine[2].job])
        texts.append(fine[2].texts())
    for asked, (text,) in zip(fine, texts, strict=True):
        assert text[0] == model.generate(asked.ids, **asked.names).ids


def test_an_overflow_in_one_row_reaches_no_other(small: Path) -> None:
    model = GPT2.from_pretrained(small, backend="numpy")  # which multiplies what attention leaves out by zero
    good = Asked(model, [4, 5], max_new_tokens=40, eos_token_id=[])
    bad = Asked(model, [4, 6], max_new_tokens=40, eos_token_id=[])
    after = Asked(model, [4, 7], max_new_tokens=40, eos_token_id=[])
    with scheduler(model, rows=2) as one:
        one.invariant = True  # in one batch, though the bits of this path depend on it
        step, count = one.slots.step, [0]

        def overflowing(ids: Any) -> Any:
            count[0] += 1
            logits = step(ids)
            if count[0] == 5:
                row = next(place for place, (owner, _) in enumerate(one.owners) if owner.job is bad.job)
                one.slots.cache.k[:, row, :, :6] = one.slots.cache.v[:, row, :, :6] = np.nan
                logits[row, 3] = np.nan
            return logits

        one.slots.step = overflowing  # type: ignore[method-assign]
        one.submit([good.job, bad.job, after.job])
        error = bad.done().error
        assert isinstance(error, Refused)
        assert "overflow" in str(error)
        for asked in (good, after):
            assert asked.texts()[0][0] == model.generate(asked.ids, max_new_tokens=40, eos_token_id=[]).ids


def test_a_fault_of_ours_costs_what_is_in_progress_and_no_more(model: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Asked(model, [4], max_new_tokens=20), Asked(model, [5], max_new_tokens=5)
    with scheduler(model) as one:

        def broken(ids: Any) -> Any:
            raise RuntimeError("secret/path")

        one.slots.step = broken  # type: ignore[method-assign]
        one.submit([first.job])
        error = first.done().error
        assert isinstance(error, Refused)
        assert error.status == 500
        assert "secret" not in str(error.body())
        one.submit([second.job])
        assert second.texts()[0][0] == model.generate([5], max_new_tokens=5).ids
    assert "secret/path" in capsys.readouterr().err


def test_futures_for_a_program_of_your_own(model: GPT2) -> None:
    with Batched(model) as batched:
        several = [batched.submit([5, 6], do_sample=True, seed=seed, max_new_tokens=9) for seed in range(5)]
        two = batched.submit([5, 6], num_beams=3, num_return_sequences=2, max_new_tokens=5)
        healed = batched.submit([5, 6], max_new_tokens=4, stopping_criteria=lambda prompt, new: len(new) == 2)
        with pytest.raises(ValueError, match="temperature must be"):
            batched.submit([5], temperature=-1.0)
        empty = batched.submit([5], suppress_tokens=list(range(97)))
        with pytest.raises(Refused, match="no token is left"):
            empty.result(200)
        slow(batched.scheduler)
        endless = batched.submit([5], max_new_tokens=60, eos_token_id=[])
        assert endless.cancel()
    for seed, future in enumerate(several):
        alone = model.generate([5, 6], do_sample=True, seed=seed, max_new_tokens=9)
        assert [one.ids for one in future.result()] == [alone.ids]
    expected = model.generate([5, 6], num_beams=3, num_return_sequences=2, max_new_tokens=5)
    assert [(one.ids, one.score) for one in two.result()] == [(one.ids, one.score) for one in expected]
    assert len(healed.result()[0].ids) == 2
    assert endless.cancelled()


@pytest.mark.parametrize(("name", "value"), [("rows", 0), ("seconds", 0), ("seconds", -1), ("queue", -1)])
def test_limits_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        Limits(**{name: value})  # type: ignore[arg-type]
