"""What a release says of itself: one version everywhere, links that lead somewhere, tasks that name files there are."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import sys
from pathlib import Path

from gpt2_np import __version__

ROOT = Path(__file__).parent.parent
PREPARED = runpy.run_path(str(ROOT / "scripts" / "prepare_release.py"))


def test_the_version_is_said_alike_everywhere() -> None:
    assert set(PREPARED["versions"](ROOT).values()) == {__version__}


def test_links_are_whole_where_the_index_shows_them(tmp_path: Path) -> None:
    for name in ("README.md", "pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    for _ in range(2):  # the second time changes nothing
        PREPARED["write_addresses"](tmp_path, "https://example.org/a/b/", "v1")
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(links) == len(re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))) > 20
    assert all(link.startswith(("https://", "#")) for link in links)
    for path, anchor in re.findall(r"\(https://example\.org/a/b/blob/v1/([^)#]+)(#[^)]+)?\)", readme):
        assert (ROOT / path).exists(), path + anchor
    assert (tmp_path / "CITATION.cff").read_text(encoding="utf-8").count(
        "\nrepository-code: https://example.org/a/b\n"
    ) == 1
    if sys.version_info >= (3, 11):
        import tomllib

        project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert project["urls"]["Source"] == "https://example.org/a/b"
        assert project["scripts"]["gpt2-np"]


def assigned(name: str) -> ast.expr:
    """What the tasks' file gives a name; it is read without nox, which the tests don't need."""
    tree = ast.parse((ROOT / ".ci" / "noxfile.py").read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.Assign)]
    return next(node.value for node in nodes if isinstance(node.targets[0], ast.Name) and node.targets[0].id == name)


def test_the_tasks_name_files_and_extras_that_are_there() -> None:
    listed = assigned("WITHOUT_TORCH")
    assert isinstance(listed, ast.Call)  # a text that is split
    text = ast.literal_eval(listed.func.value)  # type: ignore[attr-defined]
    assert len(text.split()) > 15
    assert [name for name in text.split() if not (ROOT / "tests" / f"{name}.py").is_file()] == []

    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))
    of_extras = assigned("OF_EXTRAS")
    assert isinstance(of_extras, ast.Call)
    patterns = ast.literal_eval(of_extras.func.value).split()  # type: ignore[attr-defined]
    assert all(list((ROOT / "tests").glob(f"{pattern}.py")) for pattern in patterns)
    assert set(ast.literal_eval(assigned("EXTRAS")).split(",")) <= extras
    heavy = ast.literal_eval(assigned("HEAVY"))
    for name, (wanted, patterns, _) in heavy.items():
        assert set(re.findall(r"\w+", "".join(one[1:] for one in wanted if one.startswith(".")))) <= extras, name
        assert all(list((ROOT / "tests").glob(f"{pattern}.py")) for pattern in patterns), name


def test_the_workflow_of_large_packages_names_every_task() -> None:
    workflow = (ROOT / ".github" / "workflows" / "packages.yml").read_text(encoding="utf-8")
    packages = re.search(r"package: \[(.+)\]", workflow)
    assert packages is not None
    assert packages[1].split(", ") == list(ast.literal_eval(assigned("HEAVY")))
