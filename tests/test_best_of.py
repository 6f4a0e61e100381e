"""Best of n: the likeliest per token of the very samples that sampling draws."""

from __future__ import annotations

import pytest
from golden_searches import model

from decoders import Completion, Options, generate


def test_the_best_of_the_samples_that_the_same_seed_draws() -> None:
    common = {"do_sample": True, "seed": 5, "max_new_tokens": 6, "eos_token_id": 3, "temperature": 1.3}
    prompts = [[4, 5], [6, 7, 8]]
    samples = generate(model(0).start(), prompts, Options(num_return_sequences=8, **common))
    trace: list[Completion] = []
    found = generate(model(0).start(), prompts, Options(best_of=8, num_return_sequences=2, **common), trace=trace)
    for number in range(2):
        mine = sorted(samples[8 * number : 8 * number + 8], key=lambda one: -sum(one.logprobs) / len(one.logprobs))
        assert [one.ids for one in found[2 * number : 2 * number + 2]] == [one.ids for one in mine[:2]]
        assert found[2 * number].score == pytest.approx(sum(mine[0].logprobs) / len(mine[0].logprobs))
    assert sorted(one.ids for one in trace) == sorted(one.ids for one in samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best_of": 4}, "best_of needs do_sample"),
        ({"best_of": 2, "do_sample": True, "num_return_sequences": 3}, "best_of must be at least num_return_seq"),
        ({"best_of": 2, "do_sample": True, "num_beams": 3}, "best_of can't be combined with num_beams"),
        ({"best_of": 0, "do_sample": True}, "best_of must be a whole number of at least 1"),
    ],
)
def test_contradictions_are_refused_by_name(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
