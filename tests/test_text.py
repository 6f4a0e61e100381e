"""Text in, text out, on the bundled model: generate, stream, score, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2_np import GPT2
from gpt2_np.text.dry_breakers import breaker_sequences
from gpt2_np.text.scoring import windows
from gpt2_np.text.stopping import StopString
from gpt2_np.weights import hub

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.fixture(scope="module")
def theirs() -> tuple[GPT2LMHeadModel, AutoTokenizer]:
    folder = hub.BUNDLED / "tales"
    return GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)


def test_transformers_loads_the_bundled_folder_and_writes_the_same(model: GPT2, theirs) -> None:
    reference, tokenizer = theirs
    inputs = tokenizer(PROMPT, return_tensors="pt")
    assert model.tokenizer.encode(PROMPT) == inputs.input_ids[0].tolist()
    greedy = reference.generate(**inputs, max_new_tokens=200, do_sample=False, pad_token_id=0)
    ours = model.generate(PROMPT, max_new_tokens=200)
    assert ours.ids == greedy[0, inputs.input_ids.shape[1] :].tolist()
    beams = reference.generate(**inputs, max_new_tokens=60, num_beams=4, do_sample=False, pad_token_id=0)
    assert model.generate(PROMPT, max_new_tokens=60, num_beams=4).ids == beams[0, inputs.input_ids.shape[1] :].tolist()
    torch.manual_seed(11)
    sampled = reference.generate(
        **inputs,
        max_new_tokens=100,
        do_sample=True,
        top_k=0,
        top_p=0.9,
        temperature=0.8,
        num_return_sequences=3,
        pad_token_id=0,
    )
    ours = model.generate(
        PROMPT, max_new_tokens=100, do_sample=True, top_p=0.9, temperature=0.8, seed=11, num_return_sequences=3
    )
    for mine, row in zip(ours, sampled[:, inputs.input_ids.shape[1] :].tolist(), strict=True):
        assert mine.ids == row[: len(mine.ids)]


def test_it_writes_words(model: GPT2) -> None:
    out = model.generate(PROMPT, max_new_tokens=60, do_sample=True, temperature=0.7, top_p=0.9, seed=0)
    words = out.text.split()
    assert len(words) > 25
    assert sum(word.strip(".,;:!?\"'").isalpha() for word in words) > 0.85 * len(words)
    assert (out.prompt, len(out.ids), len(out.logprobs)) == (PROMPT, 60, 60)
    assert out.finish_reason == "length"
    assert out.text == model.tokenizer.decode(out.ids)


def test_prompts_of_every_kind(model: GPT2) -> None:
    ids = model.tokenizer.encode(PROMPT)
    one = model.generate(PROMPT, max_new_tokens=8)
    assert model.generate(ids, max_new_tokens=8).ids == one.ids
    several = model.generate([PROMPT, ids, "The king"], max_new_tokens=8)
    assert [out.ids for out in several[:2]] == [one.ids, one.ids]
    assert several[2].ids == model.generate("The king", max_new_tokens=8).ids
    assert isinstance(model.generate([PROMPT], max_new_tokens=2), list)


def test_an_empty_prompt_starts_from_end_of_text(model: GPT2) -> None:
    end = model.tokenizer.end_of_text
    assert model.generate("", max_new_tokens=5).ids == model.generate([end], max_new_tokens=5).ids


def test_a_stream_is_the_text_in_pieces(model: GPT2) -> None:
    pieces = list(model.stream(PROMPT, max_new_tokens=40))
    assert len(pieces) > 10
    assert "".join(pieces) == model.generate(PROMPT, max_new_tokens=40).text


def test_end_of_text_is_kept_in_ids_and_left_out_of_text(model: GPT2) -> None:
    first = model.generate(PROMPT, max_new_tokens=5).ids
    out = model.generate(PROMPT, max_new_tokens=5, eos_token_id=first[2])
    assert out.ids == first[: first.index(first[2]) + 1]
    assert out.text == model.tokenizer.decode(out.ids[:-1])
    assert out.finish_reason == "stop"
    assert "".join(model.stream(PROMPT, max_new_tokens=5, eos_token_id=first[2])) == out.text


def test_stop_strings_end_as_in_transformers(model: GPT2, theirs) -> None:
    reference, tokenizer = theirs
    inputs = tokenizer(PROMPT, return_tensors="pt")
    for stop in (["the"], [" of the"], ["zzz", "and"], [", a"]):
        expected = reference.generate(
            **inputs, max_new_tokens=40, do_sample=False, stop_strings=stop, tokenizer=tokenizer, pad_token_id=0
        )
        assert model.generate(PROMPT, max_new_tokens=40, stop_strings=stop).ids == (
            expected[0, inputs.input_ids.shape[1] :].tolist()
        )


@given(
    text=st.text(alphabet="ab <", min_size=1, max_size=12),
    cut=st.integers(0, 12),
    stop=st.text("ab <", min_size=1, max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_a_stop_string_is_found_exactly_when_its_end_arrives(text: str, cut: int, stop: str, model: GPT2) -> None:
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text)
    prompt, new = ids[:cut], ids[cut:]
    if not new:
        return
    found = StopString(tokenizer, stop.encode())(prompt, new)
    whole, before = tokenizer.decode(ids), tokenizer.decode(ids[:-1])
    ends = [at + len(stop) for at in range(len(whole)) if whole.startswith(stop, at)]
    assert found == any(end > len(before) for end in ends)


def test_the_context_ends_a_text(model: GPT2) -> None:
    ids = model.tokenizer.encode("the king and ") * 500
    out = model.generate(ids[:510], max_new_tokens=50)
    assert (len(out.ids), out.finish_reason) == (3, "length")
    with pytest.raises(ValueError, match="at most 512 tokens, the model's context, got 513"):
        model.generate(ids[:513])


def test_score_against_transformers(model: GPT2, theirs) -> None:
    reference, _ = theirs
    text = "The old man looked at the sea, and the sea looked back at him. “Well,” said he, “here I am.”"
    ids = [0, *model.tokenizer.encode(text)]
    with torch.inference_mode():
        loss = reference(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
    score = model.score(text)
    assert score.tokens == len(ids) - 1
    assert score.bytes == len(text.encode())
    assert score.nll == pytest.approx(loss * (len(ids) - 1), rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    assert score.bits_per_byte == pytest.approx(score.nll / math.log(2) / score.bytes)
    assert model.score(ids[1:]).nll == pytest.approx(score.nll)


@given(tokens=st.integers(1, 300), context=st.integers(1, 50), data=st.data())
def test_windows_count_every_token_once(tokens: int, context: int, data) -> None:
    stride = data.draw(st.integers(1, context))
    counted: list[int] = []
    for start, end, known in windows(tokens, context, stride):
        assert 0 < end - start <= context
        assert start <= known < end
        counted += range(known, end)
    assert counted == list(range(tokens))


def test_a_long_text_is_scored_in_windows(model: GPT2) -> None:
    text = (Path(__file__).parent / "conftest.py").read_text() * 3
    fine, coarse = model.score(text, stride=64), model.score(text, stride=512)
    assert fine.tokens == coarse.tokens > 512
    assert fine.nll < coarse.nll


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0, "do_sample": True}, "temperature must be above 0, got 0.0"),
        ({"temperature": -1, "do_sample": True}, "temperature must be above 0, got -1"),
        ({"temperature": math.nan, "do_sample": True}, "temperature must be a number, got nan"),
        ({"top_p": 0.0, "do_sample": True}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.5, "do_sample": True}, r"top_p must be in \(0, 1\], got 1.5"),
        ({"top_k": -1, "do_sample": True}, "top_k must be a whole number of at least 1, got -1"),
        ({"top_k": 2.5, "do_sample": True}, "top_k must be a whole number of at least 1, got 2.5"),
        ({"min_p": 2, "do_sample": True}, r"min_p must be in \[0, 1\], got 2"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1, got 0"),
        ({"min_new_tokens": 60}, r"min_new_tokens must be at most max_new_tokens \(50\), got 60"),
        ({"num_beams": 0}, "num_beams must be a whole number of at least 1, got 0"),
        ({"num_beams": 5000}, r"num_beams must be at most the vocabulary's size \(4096\), got 5000"),
        ({"num_beams": 2, "num_return_sequences": 3}, r"num_return_sequences must be at most num_beams \(2\), got 3"),
        ({"num_return_sequences": 2}, "greedy decoding gives one sequence"),
        ({"temperature": 0.5}, "temperature acts only when sampling; give do_sample too"),
        ({"length_penalty": 2.0}, "length_penalty acts only in beam search"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0, got 0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be a whole number of at least 1, got -1"),
        (
            {"seed": 2**64, "do_sample": True},
            r"seed must be a whole number from -2\*\*63 to 2\*\*64 - 1, got 18446744073709551616",
        ),
        ({"eos_token_id": 5000}, "eos_token_id must hold ids between 0 and 4095, got 5000"),
        ({"stop_strings": [""]}, "stop_strings must be texts of at least one character"),
        ({"stop_strings": 10**20}, "stop_strings must be a text or a list of texts, got 100000000000000000000"),
        ({"early_stopping": "soon", "num_beams": 2}, "early_stopping must be True, False or 'never', got 'soon'"),
        ({"rng": "tpu"}, "rng must be 'cpu' or 'cuda', got 'tpu'"),
        ({"temprature": 1.0}, "there is no option 'temprature'; did you mean 'temperature'?"),
    ],
    ids=str,
)
def test_invalid_options_are_refused_before_work_starts(options: dict, message: str, model: GPT2) -> None:
    with pytest.raises(ValueError, match=message) as error:
        model.generate(PROMPT, **options)
    assert "\n" not in str(error.value)
    if "num_return_sequences" not in options:
        with pytest.raises(ValueError, match=message):
            model.stream(PROMPT, **options)


def test_only_one_plain_sequence_can_be_streamed(model: GPT2) -> None:
    with pytest.raises(ValueError, match="only one sequence can be streamed"):
        model.stream(PROMPT, num_beams=2)


def test_ids_that_cannot_be_fed(model: GPT2) -> None:
    with pytest.raises(ValueError, match="ids must be between 0 and 4095, got 4096"):
        model.generate([1, 4096])
    with pytest.raises(ValueError, match="nothing to score"):
        model.score("")


def test_a_model_without_a_tokenizer_takes_and_gives_ids(small: Path) -> None:
    model = GPT2.from_pretrained(small)
    out = model.generate([1, 2, 3], max_new_tokens=4)
    assert (len(out.ids), out.text) == (4, "") or out.finish_reason == "stop"
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        model.generate("text")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_backend_writes_the_same(backend: str, dtype: str, model: GPT2) -> None:
    other = GPT2.from_pretrained(dtype=dtype, backend=backend)
    assert other.generate(PROMPT, max_new_tokens=40).ids == model.generate(PROMPT, max_new_tokens=40).ids
    assert np.result_type(other(other.prompt_ids(PROMPT))) == np.dtype(dtype)


def test_breakers_are_spelled_in_every_way(model: GPT2) -> None:
    found = breaker_sequences(model.tokenizer, ["\n", "once"])
    alone = {gram[0] for gram in found if len(gram) == 1}
    for token in range(model.tokenizer.size):
        spelled = model.tokenizer.bytes_of(token)
        assert (token in alone) == (b"\n" in spelled or b"once" in spelled)
    for gram in found:
        text = model.tokenizer.decode(gram)
        assert "\n" in text or text.endswith("once")
    assert any(len(gram) > 1 for gram in found)
    with pytest.raises(ValueError, match="dry_sequence_breakers must be texts of at least one character, got ''"):
        breaker_sequences(model.tokenizer, [""])


def test_dry_knows_llama_cpp_s_breakers_and_one_s_own(model: GPT2) -> None:
    _, options = model.options({"dry_multiplier": 1.0})
    assert sorted(options.dry_sequence_breakers) == sorted(breaker_sequences(model.tokenizer, ["\n", ":", '"', "*"]))
    _, options = model.options({"dry_multiplier": 1.0, "dry_sequence_breakers": ["\n", [5, 6]]})
    assert (5, 6) in [tuple(one) for one in options.dry_sequence_breakers]
    looping = model.generate("a b c a b c a b", max_new_tokens=40)
    dry = model.generate("a b c a b c a b", max_new_tokens=40, dry_multiplier=3.0)
    assert looping.ids != dry.ids


def test_guidance_from_a_text(model: GPT2) -> None:
    plain = model.generate(PROMPT, max_new_tokens=12)
    guided = model.generate(PROMPT, max_new_tokens=12, guidance_scale=3.0, negative_prompt_ids="The king")
    same = model.generate(
        PROMPT, max_new_tokens=12, guidance_scale=3.0, negative_prompt_ids=model.tokenizer.encode("The king")
    )
    assert guided.ids == same.ids != plain.ids
    assert model.generate(PROMPT, max_new_tokens=12, guidance_scale=1.0).ids == plain.ids
    several = model.generate([PROMPT, "A"], max_new_tokens=4, guidance_scale=3.0, negative_prompt_ids=["The king", "B"])
    assert several[0].ids == guided.ids[:4]
