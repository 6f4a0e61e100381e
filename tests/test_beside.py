"""What runs beside the batch: it stalls nobody, several at once, each with the text that it has alone."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from scheduling import Asked, mixed, scheduler, slow_beside

from gpt2_np import GPT2
from gpt2_np.server.errors import Refused
from gpt2_np.server.turns import Turns


@pytest.fixture(scope="module")
def model(small: Path) -> GPT2:
    return GPT2.from_pretrained(small)


@pytest.mark.parametrize("kind", ["the readable path", "edits"])
def test_a_model_whose_bits_depend_on_the_batch_writes_its_texts_apart(small: Path, kind: str) -> None:
    model = GPT2.from_pretrained(small, backend="numpy" if kind == "the readable path" else None)
    if kind == "edits":
        model = model.with_edits({"blocks.0.hook_resid_post": lambda x: x * 1.1})
    assert not model.batch_invariant
    asked = [one for one in mixed(model, 12) if "penalty_alpha" not in one.names]
    streamed = Asked(model, [5, 6], streams=True, do_sample=True, seed=1, num_return_sequences=3, max_new_tokens=9)
    with scheduler(model) as busy:
        busy.submit([one.job for one in [*asked, streamed]])
        together = [one.texts() for one in [*asked, streamed]]
        assert not busy.slots.count
    for one, texts in zip([*asked, streamed], together, strict=True):
        alone = model.generate(one.ids, **one.names)
        several = alone if isinstance(alone, list) else [alone]
        assert texts == [(text.ids, text.logprobs, text.finish_reason) for text in several], one.names
    assert [token.row for event in streamed.events[:3] for token in event.tokens] == [0, 1, 2]  # type: ignore[union-attr]


def test_searches_do_not_stall_a_stream(small: Path) -> None:
    """Between two steps of the batch stands one pass of a search at most, of a block of positions at most."""
    model = GPT2.from_pretrained(small)
    forward, passes = model.implementation.forward, list[tuple[bool, int]]()

    def noted(ids: Any, **settings: Any) -> Any:
        passes.append((threading.current_thread().name == "gpt2_np inference", ids.size))
        time.sleep(0.002)  # so that everybody else is waiting when it ends
        return forward(ids, **settings)

    model.implementation.forward = noted  # type: ignore[method-assign]
    stream = Asked(model, [5, 6, 7], streams=True, max_new_tokens=50, eos_token_id=[])
    searches = [
        Asked(model, [8] * 40, max_new_tokens=12, **names)
        for names in ({"num_beams": 6}, {"num_beams": 3, "num_beam_groups": 3, "diversity_penalty": 0.5}) * 2
    ]
    with scheduler(model, searches=3) as one:
        one.submit([stream.job])
        while len(stream.events) < 3:
            time.sleep(0.001)
        began = len(passes)
        one.submit([asked.job for asked in searches])
        stream.done()
        during = passes[began : len(passes)]
        for asked in searches:
            asked.texts()
    ours = [batch for batch, _ in during]
    assert ours.count(False) > 10
    last = len(ours) - ours[::-1].index(True)
    runs = "".join("b" if batch else "s" for batch in ours[ours.index(True) : last]).split("b")
    assert max(map(len, runs)) <= 1
    assert max(size for _, size in during) <= 64


def test_a_short_search_does_not_wait_for_a_long_one(model: GPT2) -> None:
    long = [Asked(model, [1], max_new_tokens=60, eos_token_id=[], num_beams=2) for _ in range(2)]
    short = [Asked(model, [2], max_new_tokens=1, num_beams=2) for _ in range(2)]
    with scheduler(model, searches=2) as one:
        slow_beside(one)
        one.submit([long[0].job, short[0].job])
        short[0].texts()
        assert not long[0].ended.is_set()
        one.submit([long[1].job, short[1].job])  # no thread is free for the second
        time.sleep(0.1)
        assert not short[1].ended.is_set()
        one.cancel([long[1].job])
        short[1].texts()
        assert not long[0].ended.is_set()
        one.cancel([long[0].job])


def test_searches_find_room_for_their_tokens_in_turn(model: GPT2) -> None:
    asked = [Asked(model, [1], max_new_tokens=30, eos_token_id=[], num_beams=2) for _ in range(3)]
    most = list[int]()
    with scheduler(model, searches=3, tokens=2 * 62) as one:
        check = one.beside.check
        one.beside.check = lambda job: (most.append(len(one.beside.running)), check(job))  # type: ignore
        one.submit([each.job for each in asked])
        for each in asked:
            each.texts()
    assert max(most) == 2


def test_a_search_that_waits_is_told_when_it_is_late(model: GPT2) -> None:
    long = Asked(model, [1], max_new_tokens=60, eos_token_id=[], num_beams=2)
    late = Asked(model, [1], max_new_tokens=1, seconds=0.05, num_beams=2)
    with scheduler(model, searches=1) as one:
        slow_beside(one)
        one.submit([long.job, late.job])
        error = late.done().error
        assert isinstance(error, Refused)
        assert error.status == 504
        assert not long.ended.is_set()
        one.cancel([long.job])


def test_turns_go_to_whoever_has_waited_longest() -> None:
    turns, order = Turns(), []

    def other(name: str) -> None:
        with turns:
            order.append(name)

    threads = [threading.Thread(target=other, args=(name,)) for name in "abcdef"]
    with turns:
        for number, thread in enumerate(threads):
            thread.start()
            deadline = time.monotonic() + 10
            while len(turns._waiting) <= number:
                assert time.monotonic() < deadline
    for thread in threads:
        thread.join()
    assert order == list("abcdef")


def test_whoever_waits_for_a_turn_comes_before_whoever_has_just_had_it() -> None:
    turns, order, inside = Turns(), [], threading.Event()

    def other() -> None:
        inside.set()
        with turns:
            order.append("other")

    with turns:
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait()
        time.sleep(0.05)
    with turns:
        order.append("again")
    thread.join()
    assert order == ["other", "again"]
