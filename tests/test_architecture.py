"""The rules of the house: imports go one way, and nothing heavy is paid for by those who don't use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from import_graph import Graph, circle, import_graph, imported

from decoders import methods
from gpt2_np.cli import cli

ROOT = Path(__file__).parent.parent
# Each room of gpt2_np may import those on its own level or below. What is not listed stands alone.
LEVELS = [
    {"version"},
    {"system", "display"},
    {"model"},
    {"weights"},
    {"engine"},
    {"gradients"},
    {"session"},
    {"torch_reference"},
    {"text"},
    {"training"},
    {"internals", "notebook"},
    {"parity"},
    {"evaluation", "server", "corpora"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
# The same of decoders, whose other files and face may import all of them.
DECODERS = ("base", "random", "processors", "searches", "fields", "methods", "options", "generate")


def imports(path: Path) -> set[str]:
    """The dotted names that a file imports anywhere, relative ones made absolute."""
    return {name for stem, one in imported(path, ROOT) for name in (stem, *([f"{stem}.{one}"] if one else []))}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room(path: Path) -> str:
    """The module or sub-package of gpt2_np that a file belongs to."""
    part = path.relative_to(ROOT / "gpt2_np").parts[0]
    return part.removesuffix(".py")


@pytest.mark.parametrize("path", modules("gpt2_np"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    if path == ROOT / "gpt2_np/__init__.py":
        return
    here = room(path)
    assert here in LEVEL, f"{here} has no level yet"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "gpt2_np" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != here:
            assert LEVEL[parts[1]] <= LEVEL[here], f"{here} imports {parts[1]}"


def test_every_folder_says_what_its_files_are() -> None:
    for face in (ROOT / "gpt2_np").glob("*/__init__.py"):
        told = face.read_text(encoding="utf-8").split('"""')[1]
        assert len(told.splitlines()) > 2 or face.parent.name in {"parity", "cli"}, face
        if face.parent.name in {"system", "model", "weights", "engine", "session", "text"}:
            for path in face.parent.glob("[a-z]*.py"):
                assert path.stem.split("_")[0] in told, f"{face} doesn't say what {path.name} is"


def whole_graph(package: str) -> Graph:
    """The import graph of a package, with what `methods` loads by its lists."""
    graph = import_graph(ROOT, package)
    if package == "decoders":
        homes = {
            "processors": [*methods.PROCESSORS.values(), *methods.STOPS.values(), *methods.PROFILES.values()],
            "searches": methods.SEARCHES.values(),
        }
        graph["decoders.methods"] |= {f"decoders.{room}.{home}" for room, names in homes.items() for home in names}
        assert graph["decoders.methods"] <= graph.keys()
    return graph


@pytest.mark.parametrize("package", ["decoders", "gpt2_np"])
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    graph = whole_graph(package)
    assert len(graph) == len(modules(package))
    assert not circle(graph), " > ".join(circle(graph))


def test_imports_among_decoders_go_down() -> None:
    def level(name: str) -> int:
        part = name.split(".")[1:2]
        return DECODERS.index(part[0]) if part and part[0] in DECODERS else len(DECODERS)

    graph = whole_graph("decoders")
    assert {part for name in graph for part in name.split(".")[1:2]} - {"textbook", "trace"} == set(DECODERS)
    up = [f"{name} imports {one}" for name, edges in graph.items() for one in edges if level(one) > level(name)]
    assert not up, up


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": "from . import b", "b": "import numpy"}, []),
        ({"a": "from . import b", "b": "from .a import x"}, ["p.a", "p.b", "p.a"]),
        ({"a": "def late():\n    import p.b", "b": "import p.c", "c": "from p import a"}, ["p.a", "p.b", "p.c", "p.a"]),
        (
            {"a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import X", "b": "from .a import Y"},
            ["p.a", "p.b", "p.a"],
        ),
        ({"__init__": "from .a import x", "a": "from . import x"}, ["p", "p.a", "p"]),  # a name of the face
        ({"__init__": "from .a import x", "a": "from . import b", "b": ""}, []),  # a module beside it
        (
            {"a": "from .s.b import x", "s/__init__": "from .b import x", "s/b": "from ..a import y"},
            ["p.a", "p.s.b", "p.a"],
        ),
        ({"a": "from .s import x", "s/__init__": "", "s/b": "from .. import a"}, []),
        ({"a": "from .s import b", "s/__init__": "", "s/b": "from .. import a"}, ["p.a", "p.s.b", "p.a"]),
        ({"a": "import_module('.' + name, 'p')\nHOMES = ['s.b']", "s/b": "from ..a import x"}, ["p.a", "p.s.b", "p.a"]),
    ],
)
def test_a_circle_is_found(files: dict[str, str], expected: list[str], tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / "p" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert circle(import_graph(tmp_path, "p")) == expected


@pytest.mark.parametrize("path", modules("decoders"), ids=lambda path: str(path.relative_to(ROOT)))
def test_decoders_know_only_numpy(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top in {"decoders", "numpy"} | set(sys.stdlib_module_names), f"{path.name} imports {top}"


def test_torch_lives_in_one_file_and_decoders_are_used_at_the_edge() -> None:
    for path in modules("gpt2_np"):
        tops = {name.split(".")[0] for name in imports(path)}
        if room(path) != "torch_reference":
            assert not tops & {"torch", "transformers"}, path
        if room(path) not in {"text", "notebook", "internals", "cli", "parity", "torch_reference", "server"}:
            assert "decoders" not in tops, path


def test_no_pickle() -> None:
    for path in [*modules("gpt2_np"), *modules("decoders"), *modules("scripts")]:
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib"}, path
        assert "allow_pickle" not in path.read_text(), path
        assert "torch.load" not in path.read_text(), path
        assert "torch.save" not in path.read_text(), path


def test_files_can_be_read_in_one_sitting() -> None:
    for path in [*modules("gpt2_np"), *modules("decoders"), *modules("scripts"), *modules("tests")]:
        text = path.read_text().split("# ---- from here on written by ")[0]  # a table that is generated isn't read
        assert len(text.splitlines()) <= 400, path


def test_importing_pays_for_neither_numba_nor_torch_nor_the_hub() -> None:
    code = """
import sys, gpt2_np, decoders
from gpt2_np import cli
print([name for name in ('numba', 'torch', 'transformers', 'huggingface_hub', 'matplotlib') if name in sys.modules])
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_command_starts_without_what_it_does_not_need() -> None:
    code = """
import contextlib, sys
from gpt2_np.cli import main
with contextlib.suppress(SystemExit):
    main(["generate", "a", "--temperature", "-1"])
with contextlib.suppress(SystemExit):
    main(["--help"])
assert "numba" not in sys.modules
main(["generate", "a", "-n", "1"])
loaded = [name for name in ("numba", "scipy") if name in sys.modules]
assert loaded == ([] if sys.platform == "linux" else ["numba"]), loaded  # object_code is for Linux
import scipy.linalg
"""
    compiled = [sys.executable, "-m", "gpt2_np", "generate", "a", "-n", "1"]  # Numba loads SciPy where it compiles
    subprocess.run(compiled, check=True, capture_output=True)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(("given", "used"), [(None, "3000"), ("77", "77")])
def test_waiting_threads_spin_briefly_unless_told_otherwise(given: str | None, used: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if given is not None:
        environment["GOMP_SPINCOUNT"] = given
    code = "import os, gpt2_np.engine.kernels; print(os.environ['GOMP_SPINCOUNT'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip() == used


def test_greedy_decoding_starts_without_the_other_commands_and_the_processors() -> None:
    code = """
import sys
from gpt2_np.cli import main
def loaded(*names): return [name for name in names if name in sys.modules]
unused = ("decoders.random.torch_rng", "decoders.base.watching", "gpt2_np.cli.parity", "gpt2_np.cli.internals",
          "threadpoolctl", "yaml")
def rooms(room): return {name for name in sys.modules if name.startswith(f"decoders.{room}.")}
main(["generate", "a", "-n", "1"])
assert loaded(*unused) == [], loaded(*unused)
assert rooms("processors") == {"decoders.processors.order", "decoders.processors.pipeline"}, rooms("processors")
assert rooms("searches") == {"decoders.searches.token_by_token", "decoders.searches.collected"}, rooms("searches")
main(["generate", "a", "-n", "1", "--do-sample", "--top-k", "5"])
assert len(loaded("decoders.processors.top_k", "decoders.random.torch_rng")) == 2
assert "decoders.processors.top_p" not in sys.modules
import yaml
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_command_is_found_by_its_name() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
    assert cli.get_command(context, "nothing") is None


@pytest.mark.parametrize("collecting", [True, False])
def test_loading_leaves_garbage_collection_as_it_was(collecting: bool) -> None:
    code = f"""
import gc
(gc.enable if {collecting} else gc.disable)()
from gpt2_np.engine import kernels
assert gc.isenabled() is {collecting} and kernels.linear
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_everything_but_the_reference_works_with_torch_blocked(tmp_path: Path) -> None:
    for name in ("torch", "transformers", "matplotlib", "scipy"):
        (tmp_path / f"{name}.py").write_text("raise ModuleNotFoundError('blocked', name=__name__)")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    code = """
from gpt2_np import GPT2, notebook
model = GPT2.from_pretrained()
out = model.generate("One day", max_new_tokens=5, do_sample=True, seed=1, num_return_sequences=2)
assert len(out) == 2 and model.generate("a", num_beams=2, max_new_tokens=3).score is not None
assert model.score("The king was old.").tokens and notebook.greedy_decode("The", 3)
logits, cache = model.run_with_cache([1, 2, 3])
assert cache["blocks.0.attn.hook_pattern"].shape[-1] == 3
import sys
from gpt2_np.cli import main
for arguments in (["generate", "a", "-n", "2"], ["logits", "a"], ["score", "a b"], ["info"]):
    main(arguments)
main(["generate", "a", "--backend", "torch"])
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "error: the torch backend needs torch and transformers: pip install 'gpt2-np[reference]'\n"
    assert done.returncode == 2
