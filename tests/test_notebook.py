"""The notebook's functions against the same algorithms in torch, as a notebook writes them: no cache, plain lists."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2LMHeadModel

from gpt2_np import GPT2, notebook
from gpt2_np.weights import hub

LENGTH = 40


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(hub.BUNDLED / "tales", dtype=torch.float32).eval()


def in_torch(theirs: GPT2LMHeadModel, ids: list[int], choose, steps: int = LENGTH) -> list[int]:
    """The notebook's loop: the whole text through the model at each step."""
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        for _ in range(steps):
            token = choose(theirs(tokens).logits[:, -1, :])
            tokens = torch.cat([tokens, token], dim=1)
            if token.item() == 0:
                break
    return tokens[0].tolist()


def text(model: GPT2, ids: list[int]) -> str:
    return model.tokenizer.decode([token for token in ids if token != 0])


def test_logits(model: GPT2, theirs: GPT2LMHeadModel) -> None:
    ids = model.prompt_ids("The capital of France is")
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits[0, -1].numpy()
    ours = notebook.get_next_token_logits("The capital of France is", model=model)
    assert ours.shape == (4096,)
    assert abs(ours - expected).max() < 1e-4


def test_greedy(model: GPT2, theirs: GPT2LMHeadModel) -> None:
    expected = in_torch(theirs, model.prompt_ids("Once upon a time"), lambda logits: logits.argmax(-1, keepdim=True))
    assert notebook.greedy_decode("Once upon a time", LENGTH, model=model) == text(model, expected)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5])
def test_temperature(temperature: float, model: GPT2, theirs: GPT2LMHeadModel) -> None:
    torch.manual_seed(3)
    expected = in_torch(
        theirs,
        model.prompt_ids("The meaning of life is"),
        lambda logits: torch.multinomial(torch.softmax(logits / temperature, -1), 1),
    )
    ours = notebook.temperature_decode("The meaning of life is", LENGTH, temperature, seed=3, model=model)
    assert ours == text(model, expected)


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95, 0.99])
def test_top_p(p: float, model: GPT2, theirs: GPT2LMHeadModel) -> None:
    def choose(logits: torch.Tensor) -> torch.Tensor:
        logits = logits / 0.8
        ordered, indices = torch.sort(logits, descending=True)
        remove = torch.cumsum(torch.softmax(ordered, -1), -1) > p
        remove[..., 1:] = remove[..., :-1].clone()
        remove[..., 0] = False
        logits[remove.scatter(1, indices, remove)] = -float("inf")
        return torch.multinomial(torch.softmax(logits, -1), 1)

    torch.manual_seed(4)
    expected = in_torch(theirs, model.prompt_ids("The secret to happiness is"), choose)
    ours = notebook.top_p_decode("The secret to happiness is", LENGTH, p, 0.8, seed=4, model=model)
    assert ours == text(model, expected)


def test_top_k(model: GPT2, theirs: GPT2LMHeadModel) -> None:
    def choose(logits: torch.Tensor) -> torch.Tensor:
        logits[logits < torch.topk(logits, 5)[0][..., -1:]] = -float("inf")
        return torch.multinomial(torch.softmax(logits, -1), 1)

    torch.manual_seed(5)
    expected = in_torch(theirs, model.prompt_ids("The sea"), choose)
    assert notebook.top_k_decode("The sea", LENGTH, 5, seed=5, model=model) == text(model, expected)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_beams(num_beams: int, model: GPT2, theirs: GPT2LMHeadModel) -> None:
    prompt = model.prompt_ids("The quick brown fox")
    beams, completed_beams = [(prompt, 0.0)], []
    with torch.inference_mode():
        for _ in range(20):
            candidates = []
            for ids, score in beams:
                logprobs = torch.log_softmax(theirs(torch.tensor([ids])).logits[0, -1].double(), -1)
                values, tokens = torch.topk(logprobs, num_beams)
                for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
                    candidates.append(([*ids, token], score + value))
            best = sorted(candidates, key=lambda beam: -beam[1])[:num_beams]
            completed_beams += [beam for beam in best if beam[0][-1] == 0]
            beams = [beam for beam in best if beam[0][-1] != 0]
    winner = max(completed_beams + beams, key=lambda beam: beam[1] / (len(beam[0]) - len(prompt)))
    assert notebook.beam_search_decode("The quick brown fox", 20, num_beams, model=model) == text(model, winner[0])


def test_the_context_is_respected(model: GPT2) -> None:
    assert len(model.tokenizer.encode(notebook.greedy_decode("the " * 250, 600, model=model))) <= 520
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        notebook.greedy_decode("a", 0, model=model)
    with pytest.raises(ValueError, match=r"p must be in \(0, 1\], got 0"):
        notebook.top_p_decode("a", 5, 0, model=model)
