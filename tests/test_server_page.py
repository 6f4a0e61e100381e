"""The server's page in a real browser: `pytest -m slow tests/test_server_page.py`, where Chromium and the extra are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from browser import Browser
from serving import Client, running

from gpt2_np import GPT2

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
PROMPT = "Once upon a time there was a king who"
KEY = "a key"
# What has less contrast to what is behind it than WCAG's 4.5, with its contrast.
TOO_FAINT = """
const linear = one => (one /= 255) <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
const luminance = colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const back = element => {
  const colour = getComputedStyle(element).backgroundColor;
  return /, 0\\)$|transparent/.test(colour) ? back(element.parentElement) : colour;
};
const contrast = element => {
  const both = [getComputedStyle(element).color, back(element)].map(luminance).sort((x, y) => y - x);
  return (both[0] + 0.05) / (both[1] + 0.05);
};
const read = document.querySelectorAll('h1, h2, p, label, button:not(:disabled), code, output, .given');
return [...read].filter(one => one.offsetParent && one.textContent.trim())
  .map(one => [contrast(one), one.textContent.slice(0, 20)]).filter(([ratio]) => ratio < 4.5)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running(GPT2.from_pretrained()) as found:
        yield found


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser.start() as found:
        yield found


@pytest.fixture
def page(window: Browser, client: Client) -> Iterator[Browser]:
    window.resize(1200, 900)
    window.dark(False)
    window.complaints()
    window.open(f"http://127.0.0.1:{client.port}/")
    until(window, "document.querySelectorAll('#next button').length > 5")
    yield window
    assert window.complaints() == []


def until(page: Browser, true: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not page.run(f"return {true}"):
        assert time.monotonic() < deadline, true
        time.sleep(0.05)


def put(page: Browser, name: str, value: Any) -> None:
    """Set an input as hands do."""
    page.run(
        "const input = document.getElementById(arguments[0]); input.value = arguments[1];"
        "input.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        str(value),
    )


def written(page: Browser) -> str:
    return "".join(page.run("return [...document.querySelectorAll('#text .token')].map(one => one.textContent)"))


def write(page: Browser) -> str:
    page.click("#write")
    until(page, "document.querySelector('#said').textContent.includes('tokens;')")
    until(page, "document.querySelectorAll('#next button').length > 5")
    return written(page)


def test_it_writes_what_the_server_writes_and_a_click_branches(page: Browser, client: Client) -> None:
    put(page, "temperature", 0.8)
    put(page, "top_p", 0.9)
    put(page, "seed", 7)
    put(page, "tokens", 20)
    text = write(page)
    body = {"temperature": 0.8, "top_p": 0.9, "seed": 7, "max_tokens": 20}
    assert text == client.complete(PROMPT, **body)["choices"][0]["text"]
    page.click("#text .token[data-place='3']")
    until(page, "[9, 10].includes(document.querySelectorAll('#choices button').length)")
    other = page.text("#choices button code").replace("␣", " ").replace("\\n", "\n").replace('\\"', '"')
    before = "".join(
        page.run("return [...document.querySelectorAll('#text .token')].slice(0, 3).map(one => one.textContent)")
    )
    page.run("document.querySelector('#said').textContent = ''")
    page.click("#choices button")
    until(page, "document.querySelector('#said').textContent.includes('tokens;')")
    assert written(page).startswith(before + other)
    assert written(page) != text
    assert page.run("return document.querySelectorAll('#text .branch').length") == 1
    page.click("#back")
    assert written(page) == text
    page.click("#keep")
    until(page, "document.querySelectorAll('#text .token').length === 0")
    assert page.run("return document.querySelector('#prompt').value") == PROMPT + text


def test_knobs_change_the_distribution_at_once(page: Browser) -> None:
    def after() -> list[float]:
        return page.run("return [...document.querySelectorAll('#next .after')].map(one => parseFloat(one.style.width))")

    def left() -> int:
        return int(re.match(r"[\d,]+", page.text("#what"))[0].replace(",", ""))  # type: ignore[index]

    assert left() == 4096
    flat = after()
    put(page, "temperature", 0.3)
    until(page, "document.querySelector('#what').textContent.includes('temperature')")
    assert after()[4] < flat[4]
    put(page, "top_k", 3)
    until(page, "document.querySelector('#what').textContent.startsWith('3 of')")
    assert page.run("return document.querySelectorAll('#next .gone').length") > 5
    put(page, "temperature", 0)
    until(page, "!document.querySelector('#what').textContent.includes('top_k')")
    page.click("#next button")  # the text goes on from this token
    until(page, "document.querySelector('#said').textContent.includes('tokens;')")
    assert len(written(page)) > 20


def test_by_the_keyboard_alone(page: Browser) -> None:
    put(page, "tokens", 8)
    put(page, "seed", 1)
    write(page)
    page.run("document.querySelector('#text .token').focus()")
    page.press("ArrowRight", "ArrowRight")
    assert page.run("return document.activeElement.dataset.place") == "2"
    page.press("Enter")
    assert page.run("return document.activeElement.closest('#choices') !== null")
    page.press("ArrowDown")
    page.press("Escape")
    assert page.run("return document.activeElement.dataset.place") == "2"
    assert page.run("return document.querySelector('#choices').hidden")
    page.press("End")
    assert page.run("return document.activeElement.dataset.place") == "7"


def test_what_is_wrong_is_said(page: Browser) -> None:
    put(page, "prompt", "a " * 600)
    page.click("#write")
    until(page, "document.querySelector('#wrong').textContent.includes('at most 512 tokens')")
    assert any("400" in one for one in page.complaints())  # the browser tells of every answer of this kind


def test_a_text_that_is_stopped(page: Browser, client: Client) -> None:
    put(page, "tokens", 400)
    put(page, "temperature", 2)
    page.click("#write")
    until(page, "document.querySelectorAll('#text .token').length > 3")
    page.press("Escape")
    assert page.run("return document.querySelector('#stop').disabled")
    assert client.server is not None
    deadline = time.monotonic() + 3
    while client.server.scheduler.owners:
        assert time.monotonic() < deadline


def test_looking_inside_opens_the_inspection_page(page: Browser) -> None:
    put(page, "tokens", 3)
    write(page)
    here = page.call("GET", "/window")
    page.click("#look")
    deadline = time.monotonic() + 20
    while True:
        others = [one for one in page.call("GET", "/window/handles") if one != here]
        if others:
            page.call("POST", "/window", {"handle": others[0]})
            if "/inspect/" in page.call("GET", "/url") and "layers" in page.run("return document.body.textContent"):
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert page.complaints() == []
    page.call("DELETE", "/window")
    page.call("POST", "/window", {"handle": here})


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 800, 1200])
def test_it_fits_every_width_and_can_be_read(page: Browser, width: int, dark: bool) -> None:
    page.resize(width, 800)
    page.dark(dark)
    put(page, "tokens", 5)
    write(page)
    page.click("#text .token[data-place='4']")
    until(page, "!document.querySelector('#choices').hidden")
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.run(TOO_FAINT) == []


def test_where_there_is_a_key_it_is_asked_for(window: Browser) -> None:
    with running(GPT2.from_pretrained(), api_key=KEY) as client:
        window.open(f"http://127.0.0.1:{client.port}/")
        until(window, "!document.querySelector('#lock').hidden")
        put(window, "key", KEY)
        window.click("#lock button")
        until(window, "document.querySelectorAll('#next button').length > 5")
        assert write(window)
        assert [one for one in window.complaints() if "401" not in one] == []


def test_it_needs_nothing_from_elsewhere() -> None:
    text = (Path(__file__).parent.parent / "gpt2_np" / "server" / "page.html").read_text(encoding="utf-8")
    assert not re.findall(r"https?://|@import|src=|innerHTML|eval\(", text)
