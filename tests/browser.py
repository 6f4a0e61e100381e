"""A real headless Chromium, driven over the WebDriver protocol with the standard library alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
]
KEYS = {
    "Tab": "\ue004",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
    "End": "\ue010",
    "Escape": "\ue00c",
    "Home": "\ue011",
    "Enter": "\ue007",
}


class Browser:
    """One page in one window."""

    def __init__(self, port: int, profile: str) -> None:
        self.root = f"http://127.0.0.1:{port}"
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"], "binary": chromium()}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.root += f"/session/{session['sessionId']}"

    def call(self, method: str, path: str, body: dict | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def open(self, place: Path | str) -> None:
        """Go to a file or an address, and wait until keys reach the page.

        On a busy machine the first came before it had the focus.
        """
        self.devtools("Emulation.setFocusEmulationEnabled", {"enabled": True})
        self.call("POST", "/url", {"url": place if isinstance(place, str) else place.as_uri()})
        deadline = time.monotonic() + 10
        while not self.run("return document.readyState === 'complete' && document.hasFocus()"):
            assert time.monotonic() < deadline, "the page must get the focus within 10 seconds"
            time.sleep(0.05)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; `arguments` are its ``arguments``."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def element(self, selector: str) -> str:
        return next(iter(self.call("POST", "/element", {"using": "css selector", "value": selector}).values()))

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.element(selector)}/click", {})

    def press(self, *keys: str) -> None:
        actions = [{"type": kind, "value": KEYS[key]} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def hover(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center', inline: 'center'})", selector)
        origin = {"element-6066-11e4-a52e-4f735466cecf": self.element(selector)}
        move = [{"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": origin}]
        self.call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": move}]})

    def resize(self, width: int, height: int) -> None:
        """The page's own width and height, as a device of that size would have them."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)

    def dark(self, on: bool) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.devtools("Emulation.setEmulatedMedia", {"features": features})

    def devtools(self, command: str, parameters: dict) -> Any:
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self) -> list[str]:
        """What the page logged since the last time: errors, and refusals of the content security policy."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def start() -> Iterator[Browser]:
    """A browser with a fresh profile; the test is skipped where there is none."""
    driver = shutil.which("chromedriver")
    if driver is None or chromium() is None:
        pytest.skip("needs Chromium and chromedriver, e.g. apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "on port" in line and "started" in line)
            browser = Browser(int(line.rstrip().rstrip(".").split()[-1]), profile)
            yield browser
            with contextlib.suppress(urllib.error.URLError):
                browser.call("DELETE", "")
        finally:
            process.terminate()
            process.communicate(timeout=20)
