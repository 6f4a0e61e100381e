"""Write the API reference, docs/reference, from the code: every public name, described in one sentence.

    python scripts/build_reference.py

Each package has a page; on it each module has a table, whose names link to their source. On the site, `site_hooks` adds
the whole docstrings below the table. The pages of options and commands are made from the methods' statements and from
the command line itself. For all other pages the code is parsed, not imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
# Packages that have a page of their own, beside each package at the top of gpt2_np; the longest that fits counts.
SPLIT = (
    "decoders",
    "decoders.processors",
    "decoders.searches",
    "gpt2_np.internals.attribution",
    "gpt2_np.internals.dictionaries",
)
# What has no names for other programs: the command line (its page is made of its help), and the kernels, which carry
# the names of `model.ops`, `gradients.derivatives` and AdamW's step.
LEFT_OUT = ("gpt2_np.cli", "gpt2_np.engine.kernels", "gpt2_np.__main__", "gpt2_np.evaluation.__main__")


class Name(NamedTuple):
    """A public name: where it is written, whether it is a class or a function, what it is in one sentence."""

    name: str
    module: str
    path: Path
    kind: str
    sentence: str


class Module(NamedTuple):
    """A module: its docstring, the names it defines, those that its ``__all__`` shows, its constants and types."""

    name: str
    path: Path
    says: str
    names: list[Name]
    shows: list[str]
    others: list[str]
    imports: dict[str, str]


def modules() -> dict[str, Module]:
    """Every module that other programs may use, by its dotted name."""
    found = {}
    for package in ("gpt2_np", "decoders"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not any(name == one or name.startswith(f"{one}.") for one in LEFT_OUT):
                found[name] = read(name, path)
    return found


def read(name: str, path: Path) -> Module:
    """Parse what one file defines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names, shows, others = [], [], []
    imports: dict[str, str] = {}
    for node in [*tree.body, *for_types(tree)]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if not node.name.startswith("_"):
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                names.append(Name(node.name, name, path, kind, sentence(ast.get_docstring(node) or "")))
        elif isinstance(node, ast.ImportFrom):
            home = absolute(name, path, node)
            imports |= {one.asname or one.name: home for one in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(one, ast.Name) and one.id == "__all__" and node.value is not None:
                        shows = ast.literal_eval(node.value)
                    elif isinstance(one, ast.Name) and not one.id.startswith("_"):
                        others.append(one.id)
    return Module(name, path, ast.get_docstring(tree) or "", names, shows, list(dict.fromkeys(others)), imports)


def for_types(tree: ast.Module) -> Iterator[ast.stmt]:
    """Return the imports under ``if TYPE_CHECKING``, in which a package names what it loads later."""
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from node.body


def absolute(name: str, path: Path, node: ast.ImportFrom) -> str:
    """The dotted name of the module that a statement imports from."""
    if not node.level:
        return node.module or ""
    parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def sentence(text: str) -> str:
    """A docstring's first sentence, in one line that fits into a table."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    first = re.match(r"(.*?[^.\d ](?:\)|`|\")?[.!?])(?=\s+[A-Z`(<\[]|$)", paragraph)
    line = first[1] if first else paragraph
    return line.replace("|", "\\|")


def defined(known: dict[str, Module], module: str, name: str) -> Name | None:
    """Return where a name that a module exports is defined, or None for a constant."""
    for _ in range(5):
        one = known.get(module)
        found = next((each for each in one.names if each.name == name), None) if one else None
        if found is not None or one is None or name not in one.imports:
            return found
        module = one.imports[name]
    return None


def page_of(module: str) -> str:
    """The name of the page that a module stands on: its package."""
    fits = [one for one in SPLIT if module == one or module.startswith(f"{one}.")]
    if fits:
        return max(fits, key=len)
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and (ROOT.joinpath(*parts[:2])).is_dir() else parts[0]


class Section(NamedTuple):
    """A module on its page: the names that are told there, under the module that shows them."""

    module: Module
    names: list[Name]
    others: list[str]


def pages() -> dict[str, list[Section]]:
    """Every page: its modules with the names told there. A name stands once: under the face that shows it, if any."""
    known = modules()
    shown: dict[tuple[str, str], str] = {}  # (module, name) as written -> the face that tells of it
    faces: dict[str, list[Name]] = {}
    # The highest face first: GPT2 belongs to gpt2_np, though gpt2_np.text could show it too.
    for module in sorted((one for one in known.values() if one.shows), key=lambda one: one.name.count(".")):
        for name in module.shows:
            found = defined(known, module.name, name)
            if found is not None and shown.setdefault((found.module, name), module.name) == module.name:
                faces.setdefault(module.name, []).append(found)
    out: dict[str, list[Section]] = {}
    for module in known.values():
        own = [name for name in module.names if (module.name, name.name) not in shown]
        section = Section(module, faces.get(module.name, []) + own, [one for one in module.others if one != "__all__"])
        out.setdefault(page_of(module.name), []).append(section)
    return out


def written(page: str, sections: list[Section]) -> str:
    """A page."""
    first, rest = sections[0], sections[1:]
    lines = [f"# {page}\n", f"{intro(first.module.says)}\n", *body(first)]
    for section in rest:
        if section.names or section.others:
            lines += [f"## {section.module.name}\n", f"{intro(section.module.says)}\n", *body(section)]
    return "\n".join(lines).rstrip() + "\n"


def intro(says: str) -> str:
    """A module's docstring as prose: what is indented or shaped as a table keeps its shape."""
    parts = []
    for part in says.split("\n\n"):
        shaped = any(re.match(r"\s|\S+ {2,}", line) for line in part.splitlines()) or "import " in part
        parts.append(f"```text\n{part}\n```" if shaped else " ".join(part.split()))
    return "\n\n".join(parts)


def body(section: Section) -> Iterator[str]:
    """A module's table, and for the site the names whose documentation belongs below it."""
    if section.names:
        yield "| name | what it is |\n|---|---|"
        for name in section.names:
            call = "()" if name.kind == "function" else ""
            yield f"| [`{name.name}{call}`](../../{name.path.relative_to(ROOT).as_posix()}) | {name.sentence} |"
        yield ""
        yield f"<!-- reference: {section.module.name}: {' '.join(name.name for name in section.names)} -->\n"
    if section.others:
        yield f"Also here: {', '.join(f'`{one}`' for one in section.others)}.\n"


def options_page() -> str:
    """Every option of `generate`, as its method's statement tells it."""
    from decoders import methods

    lines = [
        "# Options\n",
        "What `GPT2.generate`, `GPT2.stream`, `decoders.generate` and a line of JSONL may be given, by transformers'",
        'names. None is enabled by default; a value that means "off" counts as not given. What each does is in the',
        "[gallery](../decoding/README.md). `GPT2`'s methods take a few more, which need a tokenizer: `stop_strings`,",
        "`stopping_criteria`, `token_healing`, `generation_config`, `regex`, `json_schema`, `choice`, `grammar`",
        "([`GPT2.generate`](gpt2_np.md)).\n",
    ]
    # Where an option has no help, because the command line doesn't offer it, its method's page says what it does.
    shown = [one for one in methods.every() if one.options and one.documentation]
    said = {one.options[0].name: one.documentation[0].what for one in shown}
    groups: dict[str, list[str]] = {}
    for name in methods.OPTIONS:
        one = methods.option(name)
        values = " or ".join(f"`{choice!r}`" for choice in one.choices) or f"`{one.kind.annotation}`".replace(
            "|", "\\|"
        )
        interval = f", {one.interval}" if one.interval else ""
        default = one.default if one.default is not None else one.otherwise
        told = "" if default is None else f"`{default!r}`"
        what = (one.help or said.get(name, "")).replace("|", "\\|")
        row = f"| `{name}` | {values}{interval} | {told} | {what} |"
        groups.setdefault(one.group or "In Python only", []).append(row)
    for group, rows in groups.items():
        lines += [f"## {group}\n", "| option | values | unless given | what it does |\n|---|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def commands_page() -> str:
    """Return the page of all commands, made from their ``--help``."""
    import click

    from gpt2_np.cli import cli

    lines = [
        "# Commands\n",
        "What `gpt2-np COMMAND --help` says. [The command line in a shell](../command-line.md) tells of many prompts,",
        "pipes and exit statuses.\n",
    ]

    def told(command: click.Command, name: str, parent: click.Context | None) -> None:
        settings: dict[str, Any] = {**command.context_settings, "max_content_width": 88, "terminal_width": 88}
        context = click.Context(command, parent, info_name=name, **settings)
        lines.extend([f"## {context.command_path}\n", f"```text\n{context.get_help().strip()}\n```\n"])
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                inner = command.get_command(context, each)
                assert inner is not None
                told(inner, each, context)

    told(cli, "gpt2-np", None)
    return "\n".join(lines).rstrip() + "\n"


def front(found: dict[str, list[Section]]) -> str:
    """The reference's front page: what is where, and how to read it."""
    lines = [(FOLDER / "README.md").read_text(encoding="utf-8").split("<!-- pages -->")[0] + "<!-- pages -->"]
    lines += ["| page | what it holds | names |\n|---|---|---|"]
    for page, sections in sorted(found.items(), key=lambda item: (item[0] != "gpt2_np", item[0])):
        count = sum(len(section.names) for section in sections)
        lines.append(f"| [{page}]({page}.md) | {sentence(sections[0].module.says)} | {count} |")
    lines.append("| [options](options.md) | Every option of `generate`, with its values and its default. | |")
    lines.append("| [commands](commands.md) | The command line: every command's help. | |")
    return "\n".join(lines) + "\n"


def every_page() -> dict[str, str]:
    """File name → text, of all that this script writes."""
    found = pages()
    out = {f"{page}.md": written(page, sections) for page, sections in found.items()}
    return out | {"options.md": options_page(), "commands.md": commands_page(), "README.md": front(found)}


def main() -> None:
    """Write the pages, and remove those whose package is gone."""
    wanted = every_page()
    for old in FOLDER.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(FOLDER)


if __name__ == "__main__":
    main()
