"""Prepare a release: check that all files name one version, and make links absolute for the package index.

python scripts/prepare_release.py --check 0.2.0
python scripts/prepare_release.py --address https://github.com/OWNER/REPOSITORY --ref COMMIT

The index shows README.md outside its repository, where relative links lead nowhere. The second command makes them
absolute, and adds the repository's address to pyproject.toml and CITATION.cff. The release workflow, which knows the
address, runs it in a temporary checkout; its changes are not meant to be committed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(\]\()(?!https?://|mailto:|#)([^)\s]+)(\))")


def versions(root: Path) -> dict[str, str]:
    """{where: the version that is said there}; the changelog's is its first that has a date, "" where none has."""
    said = {
        "gpt2_np/version.py": r'^__version__ = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "CHANGELOG.md": r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$",
    }
    found = {
        name: re.search(rule, (root / name).read_text(encoding="utf-8"), re.MULTILINE) for name, rule in said.items()
    }
    return {name: match[1] if match else "" for name, match in found.items()}


def absolute(text: str, address: str, ref: str) -> str:
    """A page's text with every relative link of it made whole: to the file as it is at `ref`."""
    return LINK.sub(lambda link: f"{link[1]}{address}/blob/{ref}/{link[2]}{link[3]}", text)


def urls(address: str, ref: str) -> str:
    """The table of the project's addresses, for pyproject.toml."""
    lines = {
        "Source": address,
        "Documentation": f"{address}/tree/{ref}/docs",
        "Changelog": f"{address}/blob/{ref}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
    return "[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in lines.items())


def write_addresses(root: Path, address: str, ref: str) -> None:
    """Write the address into README.md, pyproject.toml and CITATION.cff; written once, they stay as they are."""
    address = address.rstrip("/")
    texts = {
        name: (root / name).read_text(encoding="utf-8") for name in ("README.md", "pyproject.toml", "CITATION.cff")
    }
    texts["README.md"] = absolute(texts["README.md"], address, ref)
    if "[project.urls]" not in texts["pyproject.toml"]:
        table = f"{urls(address, ref)}\n[project.scripts]"
        texts["pyproject.toml"] = texts["pyproject.toml"].replace("[project.scripts]", table, 1)
    if "repository-code:" not in texts["CITATION.cff"]:
        texts["CITATION.cff"] += f"repository-code: {address}\n"
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="VERSION", help="fail unless every place says this version")
    parser.add_argument("--address", help="the repository's address, https://…")
    parser.add_argument("--ref", help="the commit or tag that links lead to")
    asked = parser.parse_args()
    if asked.check:
        for name, version in versions(ROOT).items():
            if version != asked.check:
                sys.exit(f"error: {name} must say {asked.check}, it says {version or 'none'}")
    if asked.address:
        if not asked.address.startswith("https://") or not asked.ref:
            parser.error("--address must begin with https:// and needs --ref")
        write_addresses(ROOT, asked.address, asked.ref)


if __name__ == "__main__":
    main()
