"""Write the second half of decoders/methods.py from the methods' statements: fields, names, and the table of options.

python scripts/write_methods.py
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decoders.base.method import Method, Option

PAGE = Path(__file__).parent.parent / "decoders" / "methods.py"
MARKER = "# ---- from here on written by scripts/write_methods.py ----\n"


def head() -> tuple[str, dict[str, object]]:
    """The half that people write, and what it defines."""
    # The package's face needs what is about to be written: the methods' files are loaded without it.
    if "decoders" not in sys.modules:
        sys.modules["decoders"] = types.ModuleType("decoders")
        sys.modules["decoders"].__path__ = [str(PAGE.parent)]
    text = PAGE.read_text(encoding="utf-8").split(MARKER)[0]
    defined: dict[str, object] = {"__name__": "decoders.methods", "__package__": "decoders"}
    exec(compile(text, str(PAGE), "exec"), defined)
    return text, defined


def statements(defined: dict[str, object]) -> list[tuple[str, Method]]:
    """(the file, the method) of every method, those of the general options first."""
    processors, stops, searches = defined["PROCESSORS"], defined["STOPS"], defined["SEARCHES"]
    assert isinstance(processors, dict)
    assert isinstance(stops, dict)
    assert isinstance(searches, dict)
    homes = ["searches.token_by_token", "processors.order"]
    homes += [f"processors.{home}" for home in (processors | stops).values()]
    homes += [f"searches.{home}" for home in searches.values()]
    return [
        (home, method)
        for home in dict.fromkeys(homes)
        for method in importlib.import_module(f"decoders.{home}").METHODS
    ]


def listed(home: str, option: Option) -> str:
    """An option's line in the table."""
    flag = (option.flag or "--" + option.name.replace("_", "-")) if option.group else ""
    arguments = [repr(home), repr(option.kind.name), repr(flag)]
    arguments += [f"choices={option.choices!r}"] if option.choices else []
    arguments += ["repeatable=True"] if option.repeatable else []
    return f"    {option.name!r}: Listed({', '.join(arguments)}),\n"


def composed() -> str:
    """The whole file as it should be, but for its layout."""
    text, defined = head()
    options = [(home, option) for home, method in statements(defined) for option in method.options]
    lines = [text, MARKER, "@dataclass(frozen=True)\nclass Fields:\n"]
    lines += ['    """Every option with its type and default."""\n\n']
    lines += [f"    {one.name}: {one.annotation} = {one.default!r}\n" for _, one in options]
    lines += ["\n    def __post_init__(self) -> None:\n", '        """`Options` checks them here."""\n']
    lines += ["\n\nclass Names(TypedDict, total=False):\n"]
    lines += ['    """The same as keyword arguments of what has a tokenizer, but for ``num_return_sequences``."""\n\n']
    lines += [f"    {one.name}: {one.keyword}\n" for _, one in options if one.name != "num_return_sequences"]
    lines += ["\n\nOPTIONS: dict[str, Listed] = {\n", *(listed(home, one) for home, one in options), "}\n"]
    return "".join(lines)


def written() -> str:
    """The whole file as it should be, formatted by ruff (the `dev` extra)."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PAGE), "-"]
    return subprocess.run(command, input=composed(), text=True, capture_output=True, check=True).stdout


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
    print(PAGE)
