"""Put a page together on which the bundled model writes and shows its attention, all of it in the browser.

    python scripts/build_browser_page.py PYODIDE WHEEL [--out build/browser-page]
    python -m http.server --bind 127.0.0.1 --directory build/browser-page

PYODIDE is the folder of a Pyodide distribution (https://github.com/pyodide/pyodide/releases, or npm's package
``pyodide``) with the NumPy wheel beside it that its ``pyodide-lock.json`` names; the full distribution has it.
WHEEL is this package's (``python -m build --wheel``). OUT is what any web server can serve: the page fetches nothing
but files of that folder. Every package is compared with the digest in ``pyodide-lock.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "browser_page"
# What Pyodide loads: the first of each row that is there (releases before 314 have JavaScript in .js).
RUNTIME = (("pyodide.mjs",), ("pyodide.asm.mjs", "pyodide.asm.js"), ("pyodide.asm.wasm",), ("python_stdlib.zip",))
LOCK = "pyodide-lock.json"


def runtime(folder: Path) -> list[Path]:
    """Return Pyodide's own files. ``ValueError`` for a folder without one of them."""
    found = []
    for names in RUNTIME:
        there = [folder / name for name in names if (folder / name).is_file()]
        if not there:
            raise ValueError(f"{folder} must be a Pyodide distribution, but has no {' or '.join(names)}")
        found.append(there[0])
    return found


def packages(folder: Path, wanted: str = "numpy") -> list[Path]:
    """Return the files of a package and of all that it needs. ``ValueError`` for one that is missing or another one."""
    try:
        known: dict[str, Any] = json.loads((folder / LOCK).read_text(encoding="utf-8"))["packages"]
        open_ends, found = [wanted], {}
        while open_ends:
            name = open_ends.pop()
            if name not in found:
                entry = known[name]
                found[name] = entry["file_name"], entry["sha256"]
                open_ends += entry["depends"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} has no {LOCK} that tells of {wanted}: {error}") from None
    for file, digest in found.values():
        if Path(file).name != file or not (folder / file).is_file():
            raise ValueError(f"{folder} must hold {file}, which {LOCK} names")
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{folder / file} is not the file that {LOCK} names: its SHA-256 is another")
    return [folder / file for file, _ in found.values()]


def check_wheel(wheel: Path) -> None:
    """Raise ``ValueError`` for a file that isn't a wheel of this package with its model in it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheel} must be a wheel of this package: {error}") from None
    for needed in ("gpt2_np/bundled/tales/model.safetensors", "decoders/__init__.py"):
        if needed not in names:
            raise ValueError(f"{wheel} must be a wheel of this package, but holds no {needed}")


def build(pyodide: Path, wheel: Path, out: Path) -> dict[str, Any]:
    """Write the folder; return what ``files.json`` in it says. ``ValueError`` for input that won't do."""
    check_wheel(wheel)
    theirs = [*runtime(pyodide), pyodide / LOCK, *packages(pyodide)]
    if out.exists() and any(out.iterdir()) and not (out / "files.json").is_file():
        raise ValueError(f"{out} holds other files; choose a new folder, an empty one or one that this made")
    shutil.rmtree(out, ignore_errors=True)
    (out / "pyodide").mkdir(parents=True)
    for file in theirs:
        shutil.copyfile(file, out / "pyodide" / file.name)
    shutil.copyfile(wheel, out / wheel.name)
    for file in PAGE.iterdir():
        if file.is_file():
            shutil.copyfile(file, out / file.name)
    made = [path for path in out.rglob("*") if path.is_file()]
    about = {"loader": "pyodide.mjs", "wheel": wheel.name, "count": len(made)}
    about["bytes"] = sum(path.stat().st_size for path in made)
    (out / "files.json").write_text(json.dumps(about), encoding="utf-8")
    return about


def main() -> int:
    """Build the page, or say in one line why not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pyodide", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/browser-page"))
    given = parser.parse_args()
    try:
        about = build(given.pyodide, given.wheel, given.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.out}: {about['count']} files, {about['bytes'] / 1e6:.1f} MB")
    print(f"python -m http.server --bind 127.0.0.1 --directory {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
