"""Which module of a package imports which, as a graph; and a circle in it, where there is one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

Graph = dict[str, set[str]]


def import_graph(root: Path, package: str) -> Graph:
    """{module: the modules of the package that it imports}, for every file below ``root / package``.

    Imports count wherever they stand: inside functions and under TYPE_CHECKING too. ``from a import b`` is an edge to
    the module a.b where there is one, and otherwise to a. A package's ``__init__`` is a module of the package's name;
    to import what lies below it is no edge to it. Where a file calls ``import_module``, each text in it that is the
    name of a module beside it is an edge to that.
    """
    files = {named(path, root): path for path in sorted((root / package).rglob("*.py"))}
    graph: Graph = {}
    for name, path in files.items():
        edges = {f"{stem}.{one}" if f"{stem}.{one}" in files else stem for stem, one in imported(path, root)}
        text = path.read_text(encoding="utf-8")
        if "import_module(" in text:
            texts = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
            edges |= {".".join([*folder(path, root), one]) for one in texts if isinstance(one, str)}
        graph[name] = {edge for edge in edges if edge in files and edge != name}
    return graph


def imported(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    """(module, the name taken from it or "") for every import in a file, relative ones made absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = folder(path, root)
            base = here[: len(here) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((stem, alias.name) for alias in node.names)


def folder(path: Path, root: Path) -> tuple[str, ...]:
    """The package that a file lies in, or is."""
    return path.relative_to(root).parent.parts


def named(path: Path, root: Path) -> str:
    """The dotted name of the module in a file."""
    return ".".join(folder(path, root) if path.name == "__init__.py" else (*folder(path, root), path.stem))


def circle(graph: Mapping[str, Set[str]]) -> list[str]:
    """The modules along one circle, the first again at the end; nothing where there is none."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for following in sorted(graph[name]):
                found = follow(following, [*way, name])
                if found:
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := follow(name, []))), [])
