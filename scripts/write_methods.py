"""Write decoders/fields.py from the methods' statements: the fields of the options, their names, their table.

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

PACKAGE = Path(__file__).parent.parent / "decoders"
PAGE = PACKAGE / "fields.py"
HEAD = '''"""Every option of decoding: as a field, as a keyword argument, and in a table that tells its method's file.

``python scripts/write_methods.py`` writes this file from the methods' statements, in the order of `methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .base.listed import Listed

if TYPE_CHECKING:
    from .processors.watermark import Watermarking

'''


def the_list() -> types.ModuleType:
    """`decoders.methods`, loaded without the file that is about to be written and without the package's face."""
    if "decoders" not in sys.modules:
        sys.modules["decoders"] = types.ModuleType("decoders")
        sys.modules["decoders"].__path__ = [str(PACKAGE)]
        sys.modules["decoders.fields"] = types.ModuleType("decoders.fields")
        sys.modules["decoders.fields"].__dict__["OPTIONS"] = {}
    return importlib.import_module("decoders.methods")


def statements() -> list[tuple[str, Method]]:
    """(the file, the method) of every method, those of the general options first."""
    methods = the_list()
    homes = ["searches.token_by_token", "processors.order"]
    homes += [f"processors.{home}" for home in (methods.PROCESSORS | methods.STOPS).values()]
    homes += [f"searches.{home}" for home in methods.SEARCHES.values()]
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
    options = [(home, option) for home, method in statements() for option in method.options]
    # Without a generated repr, which `Options` replaces, the import takes 4 ms less.
    lines = [HEAD, "@dataclass(frozen=True, repr=False)\nclass Fields:\n"]
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
