"""Run the commands in docs/serve.md against a server, and write the server's answers below them.

    python scripts/build_serve_page.py

The table of limits is also written, from `gpt2_np.server.limits`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from gpt2_np.server.limits import Limits

PAGE = Path(__file__).parent.parent / "docs" / "serve.md"
ADDRESS = "127.0.0.1:8000"
# What differs from run to run, and what the page shows in its place.
FRESH = {r'"id": "cmpl-[0-9a-f]+"': '"id": "cmpl-1"', r'"created": \d+': '"created": 1767225600'}


def run(command: str, port: int) -> str:
    """Run a command against the server at this port, and return its output."""
    command = command.replace(ADDRESS, f"127.0.0.1:{port}").replace("gpt2-np ", f"{sys.executable} -m gpt2_np ")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    printed = done.stdout.strip("\n")
    for pattern, shown in FRESH.items():
        printed = re.sub(pattern, shown, printed)
    return printed


def with_answers(text: str, port: int) -> str:
    """The page with the answer of each command that it shows in a console."""

    def answered(found: re.Match[str]) -> str:
        command = re.match(r"\$ (.*?[^\\])\n", found[1], re.DOTALL)
        assert command is not None, found[1]
        return f"```console\n$ {command[1]}\n{run(command[1], port)}\n```"

    return re.sub(r"```console\n(.*?\n)```", answered, text, flags=re.DOTALL)


def with_limits(text: str) -> str:
    """The page with the table of limits."""
    rows = "| option | default | |\n|---|---|---|\n" + "\n".join(
        f"| `--{one.name.replace('_', '-')}` | {one.default:,} | {one.metadata['help']} |" for one in fields(Limits)
    )
    return re.sub(r"(<!-- limits -->\n).*?(<!-- end of limits -->)", rf"\g<1>{rows}\n\g<2>", text, flags=re.DOTALL)


def main() -> None:
    """Write the page."""
    command = [sys.executable, "-m", "gpt2_np", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r":(\d+)/v1", server.stdout.readline())
            assert found is not None, "the server didn't start"
            PAGE.write_text(with_limits(with_answers(PAGE.read_text("utf-8"), int(found[1]))), "utf-8")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
