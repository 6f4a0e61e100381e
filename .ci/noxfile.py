"""The project's tasks, each in an environment of its own: `nox -f .ci/noxfile.py --list` names them.

It stands in .ci because the top level holds only what a reader of the project looks for.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent.parent
nox.options.sessions = ["lint", "types", "test"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True  # `nox -r` without saying so; `--reuse-venv=no` makes them anew

# What needs a large package: a session's name, what it installs, the test files that skip without it, and the marks
# that are asked for besides. Patterns, since a package's tests may be divided into files.
HEAVY = {
    "lm_eval": (
        [".[test,evaluate,serve]", "accelerate>=1"],
        ["test_evaluation*", "test_harness*", "test_published_path*"],
        "",
    ),
    "sae_lens": ([".[test,saes]"], ["test_saelens_live*"], ""),
    "transformer_lens": ([".[test,lens]"], ["test_transformer_lens_live*"], ""),
    "peft": ([".[test]", "peft"], ["test_low_rank*"], ""),
    "openai": (
        [".[test,evaluate]", "lm_eval[api]", "accelerate>=1", "openai", "fastapi"],
        ["test_serv*", "test_openai_client*", "test_scheduler*", "test_beside*", "test_completions*"],
        "slow or not slow",
    ),
    "ray": ([".[test,corpora,ray]"], ["test_corpora*", "test_cli_corpus*"], "ray or not ray"),
    "jupyter": ([".[test,jupyter]"], ["test_docs_notebooks*", "test_display*"], ""),
}
# Tests of what each dependency does for us, and of the whole, that need neither torch nor transformers. They run on the
# smallest versions that pyproject.toml allows, which transformers' own requirements would lift, and on Python 3.10, for
# which there is no transformers 5.24.
WITHOUT_TORCH = """test_answers test_bundle test_byte_level_bpe test_cache test_cli test_cli_searches test_fork test_hub
test_ids test_memory test_methods test_operations test_overflow test_products test_streams test_third_party
test_threaded""".split()
# The extras whose smallest versions are tried too, and their tests.
EXTRAS = "corpora,serve,constraints"
OF_EXTRAS = """test_corpora* test_cli_corpus* test_constraints* test_banned* test_scheduler* test_completions*
test_serve_command* test_server*""".split()
TEST_TOOLS = ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "scipy>=1.11", "jsonschema>=4", "lark>=1.1"]


def pytest(session: nox.Session, *arguments: str) -> None:
    """pytest from the top of the project; what stands behind ``--`` on nox's command line goes along."""
    session.chdir(ROOT)
    session.run("python", "-m", "pytest", "-q", *arguments, *session.posargs)


def found(patterns: list[str]) -> list[str]:
    """The test files of these names, relative to the top. A pattern without a file is a ``ValueError``."""
    paths = sorted({path for pattern in patterns for path in (ROOT / "tests").glob(f"{pattern}.py")})
    if not paths:
        raise ValueError(f"no test file is named {' or '.join(patterns)}")
    return [path.relative_to(ROOT).as_posix() for path in paths]


@nox.session
def test(session: nox.Session) -> None:
    """The tests. `-P 3.12` chooses a Python; `-- tests/test_beam.py` a file; `-- -m slow` the slow ones."""
    session.install(f"{ROOT}[test]")
    pytest(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Layout and style, as `.ci/run` has them."""
    session.install("ruff>=0.8")
    session.chdir(ROOT)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy over the packages and scripts, then calls as users type them, by mypy and pyright."""
    session.install(f"{ROOT}[dev]")
    session.chdir(ROOT)
    session.run("mypy")
    pytest(session, "-n", "0", "tests/test_typed_calls.py")


@nox.session
def coverage(session: nox.Session) -> None:
    """The tests with branch coverage. Kernels are left out: each is proved by its twin's test."""
    session.install(f"{ROOT}[test]", "coverage>=7.10")
    session.chdir(ROOT)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-q", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation's site, into build/site; warnings are errors."""
    session.install(f"{ROOT}[docs]")
    session.chdir(ROOT)
    session.run("mkdocs", "build", "--strict", "-f", ".ci/mkdocs.yml")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark beside torch, llama.cpp and CTranslate2: hours on an idle machine, so say what after ``--``."""
    session.install(f"{ROOT}[bench]")
    session.chdir(ROOT)
    session.run("python", "scripts/bench.py", *(session.posargs or ["--only", "decoding", "--rounds", "3"]))


@nox.session
@nox.parametrize("package", [nox.param(name, id=name) for name in HEAVY])
def beside(session: nox.Session, package: str) -> None:
    """The tests that need a large package: `-s "beside(peft)"`. Minutes, and up to 3 GB."""
    wanted, patterns, marks = HEAVY[package]
    session.install(*(f"{ROOT}{one[1:]}" if one.startswith(".") else one for one in wanted))
    pytest(session, "-n", "0", *(["-m", marks] if marks else []), *found(patterns))
    if package == "jupyter":
        session.run("python", "scripts/build_notebooks.py", "--check")


@nox.session
def plain(session: nox.Session) -> None:
    """The tests that need neither torch nor transformers: all that there is for Python 3.10."""
    session.install(str(ROOT), *TEST_TOOLS)
    pytest(session, *found(WITHOUT_TORCH))


@nox.session(venv_backend="uv")
def minimum(session: nox.Session) -> None:
    """The same tests, and those of some extras, on the smallest versions that pyproject.toml allows."""
    session.install("--resolution=lowest-direct", f"{ROOT}[{EXTRAS}]", *TEST_TOOLS)
    pytest(session, *found([*WITHOUT_TORCH, *OF_EXTRAS]))


@nox.session
def sdist(session: nox.Session) -> None:
    """The source distribution, unpacked: every test is collected there, and those of the package's face run."""
    session.install("build>=1.2")
    made = Path(session.create_tmp())
    session.run("python", "-m", "build", "--sdist", "--outdir", str(made / "dist"), str(ROOT))
    (archive,) = (made / "dist").glob("*.tar.gz")
    shutil.unpack_archive(archive, made)
    unpacked = made / archive.name.removesuffix(".tar.gz")
    session.install(f"{unpacked}[test]")
    session.chdir(unpacked)
    session.run("python", "-m", "pytest", "-q", "-n", "0", "--collect-only", silent=True)
    chosen = session.posargs or ["tests/test_readme.py", "tests/test_contract.py", "tests/test_architecture.py"]
    session.run("python", "-m", "pytest", "-q", "-n", "0", *chosen)
    session.chdir(ROOT)
    shutil.rmtree(unpacked)


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel: its metadata are sound, it writes without torch, and what it installs takes less than 350 MB."""
    session.install("build>=1.2", "twine>=6")
    made = Path(session.create_tmp())
    session.run("python", "-m", "build", "--outdir", str(made / "dist"), str(ROOT))
    (built,) = (made / "dist").glob("*.whl")
    session.run("twine", "check", "--strict", *(str(path) for path in (made / "dist").iterdir()))
    bare = made / "bare"
    session.run("python", "-m", "venv", "--clear", str(bare))
    python = bare / ("Scripts/python.exe" if (bare / "Scripts").is_dir() else "bin/python")
    # Without pip's bytecode, which is made from what is counted and differs between versions of Python.
    session.run(str(python), "-m", "pip", "install", "--quiet", "--no-compile", str(built), external=True)
    size = sum(
        path.stat().st_size for path in bare.rglob("*") if path.is_file() and not path.is_symlink() and ours(path)
    )
    session.log(f"what an installation brings takes {size / 1e6:.0f} MB, bytecode not counted")
    session.chdir(made)
    session.run(str(python), "-m", "gpt2_np", "generate", "Once upon a time", "--max-new-tokens", "10", external=True)
    if size > 350e6:
        session.error("it must take less than 350 MB")


def ours(path: Path) -> bool:
    """Whether a file of a new environment came with the package: not pip, which was there before, and no bytecode."""
    return not {"pip", "setuptools", "pkg_resources", "_distutils_hack"} & set(path.parts) and path.suffix != ".pyc"
