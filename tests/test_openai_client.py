"""The official client against the server: `pip install openai`, then `pytest tests/test_openai_client.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from serving import Client, running

from gpt2_np import GPT2

openai = pytest.importorskip("openai", reason="needs the official client: pip install openai")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    with running(GPT2.from_pretrained(), api_key="k") as found:
        yield found


@pytest.fixture
def client(server: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="k", max_retries=0) as found:
        yield found


def test_whole_and_streamed(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list().data] == ["tales"]
    asked = {"model": "tales", "prompt": "The king", "max_tokens": 9, "seed": 4, "extra_body": {"min_p": 0.05}}
    whole = client.completions.create(**asked, logprobs=2, echo=True)
    found = whole.choices[0].logprobs
    assert whole.choices[0].text.startswith("The king")
    assert found.token_logprobs[0] is None
    assert len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) == len(found.top_logprobs) == 11
    assert whole.usage.total_tokens == 11
    events = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].text for one in events[:-1]) == whole.choices[0].text.removeprefix("The king")
    assert events[-1].usage == whole.usage
    several = client.completions.create(**asked | {"prompt": ["The king", [5, 6]]}, n=2)
    assert [one.index for one in several.choices] == [0, 1, 2, 3]
    first = client.completions.create(model="tales", prompt="a")
    again = client.completions.create(model="tales", prompt="a", seed=first.seed)
    assert again.choices == first.choices


def test_errors_are_the_client_s_own(client: openai.OpenAI, server: Client) -> None:
    for wrong, error in (
        ({"model": "x"}, openai.NotFoundError),
        ({"temperature": -1}, openai.BadRequestError),
        ({"suffix": "a"}, openai.BadRequestError),
        ({"extra_body": {"suppress_tokens": list(range(4096))}, "stream": True}, openai.BadRequestError),
    ):
        with pytest.raises(error) as caught:
            client.completions.create(**{"model": "tales", "prompt": "a", **wrong})
        assert caught.value.body["type"] == "invalid_request_error"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_many_at_once_and_one_that_leaves(client: openai.OpenAI, server: Client) -> None:
    asked = {"model": "tales", "prompt": "The sea", "max_tokens": 12}
    lone = [client.completions.create(**asked, seed=seed).choices[0].text for seed in range(12)]

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key="k") as many:
            leaves = await many.completions.create(**asked | {"max_tokens": 400}, stream=True)
            async for _ in leaves:
                break
            await leaves.close()
            answers = await asyncio.gather(*[many.completions.create(**asked, seed=seed) for seed in range(12)])
        return [one.choices[0].text for one in answers]

    assert asyncio.run(together()) == lone
