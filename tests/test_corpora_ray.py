"""Corpora on a Ray cluster of several nodes, here on one machine: the same bits, whoever is killed meanwhile.

`pytest -m ray -n 0 tests/test_corpora_ray.py`, in an environment with ``pip install '.[test,ray]'``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gpt2_np import corpora
from gpt2_np.corpora import inputs, models, on_ray, shards
from gpt2_np.corpora.inputs import Cut
from gpt2_np.corpora.job import Job
from gpt2_np.weights import hub

pytest.importorskip("pyarrow", reason="corpora are written as Parquet, which needs pyarrow")
WORDS = "the old king had three sons and a fox that ran to the river where a bird of gold sang at night".split()
ROWS = 240
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray isn't installed: pip install 'gpt2-np[ray]'")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of which two rows can't be scored."""
    draw = random.Random(3)
    rows = [{"id": f"{number}", "text": " ".join(draw.choices(WORDS, k=40))} for number in range(ROWS - 2)]
    path = tmp_path_factory.mktemp("corpus") / "a.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows[:50], {"text": ""}, *rows[50:], [1]]))
    return path


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of it."""
    out = tmp_path_factory.mktemp("alone") / "out"
    score(corpus, out, "local")
    return files(out)


def score(corpus: Path, out: Path, engine: Any, **options: Any) -> corpora.Result:
    return corpora.score(corpus, out, backend="numpy", shard_rows=8, engine=engine, **options)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


# ---- what an actor is, without Ray ----------------------------------------------------------------------------------


def test_an_actor_tells_rather_than_raises(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "use_threads", lambda cores: None)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    sources, parts = inputs.scan([corpus], Cut(8, 1 << 20))
    home = hub.locate()
    job = Job("score", str(home), "float32", "numpy", models.fingerprint(home), "text", "id", "text")
    batch = {"part": [json.dumps(part) for part in parts[:2]]}
    (tmp_path / "out").mkdir()
    done = [json.loads(one) for one in on_ray.Actor(job, sources, str(tmp_path / "out"), 1)(batch)["done"]]
    assert [one["part"] for one in done] == [0, 1]
    assert shards.about(tmp_path / "out/part-00001.parquet") == done[1]
    (told,) = on_ray.Actor(job, sources, str(tmp_path / "no/out"), 1)({"part": batch["part"][:1]})["done"]
    error = on_ray.raised(json.loads(told))
    assert isinstance(error, FileNotFoundError)
    assert error.filename == str(tmp_path / "no/out/part-00000.parquet")
    actor = on_ray.Actor(job, sources, str(tmp_path / "out"), 1)
    actor.worker = lambda part: {}["a fault"]  # type: ignore[assignment]
    (told,) = actor({"part": batch["part"][:1]})["done"]
    assert str(on_ray.raised(json.loads(told))) == "a worker stopped at part 0 with KeyError: 'a fault'"
    other = Job("score", str(home), "float32", "numpy", "another", "text", "id", "text")
    (told,) = on_ray.Actor(other, sources, str(tmp_path / "out"), 1)({"part": batch["part"][:1]})["done"]
    assert "holds another model here" in str(on_ray.raised(json.loads(told)))


# ---- a cluster ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with one core, which the driver is at, and two nodes of one core."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "error", "RAY_worker_niceness": "0"}
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        found.add_node(num_cpus=1)
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


def workers() -> list[Any]:
    """The processes in which actors are at work."""
    import psutil

    return [one for one in psutil.process_iter(["name"]) if (one.info["name"] or "").startswith("ray::MapWorker")]


@needs_ray
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray's own code
@pytest.mark.parametrize("actors", [1, 3])
def test_the_same_bits_at_any_number_of_actors(
    actors: int, cluster: Any, corpus: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    result = score(corpus, tmp_path / "out", corpora.Engine("ray", actors=actors))
    assert files(tmp_path / "out") == alone
    assert (result.rows, result.new, len(result.errors)) == (ROWS, ROWS // 8, 2)


@needs_ray
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray's own code
def test_workers_and_a_node_are_killed(cluster: Any, corpus: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    told: list[int] = []
    killed: list[Any] = []

    def kill(done: int, total: int) -> None:
        told.append(done)
        if len(told) in (2, 6):
            one = workers()[0]
            one.kill()
            killed.append(one.pid)
        if len(told) == 10:
            node = next(iter(cluster.worker_nodes))
            cluster.remove_node(node, allow_graceful=False)
            killed.append(node)

    result = score(corpus, tmp_path / "out", corpora.Engine("ray", actors=3), progress=kill)
    assert len(killed) == 3
    assert files(tmp_path / "out") == alone
    assert (result.rows, result.new) == (ROWS, ROWS // 8)
    assert told == [8 * count for count in range(1, ROWS // 8 + 1)]  # each shard was told of once
    cluster.add_node(num_cpus=1)


class Deadly(on_ray.Actor):
    """An actor of which one part takes the process down."""

    def one(self, part: Any) -> dict[str, Any]:
        if part.number == 3:
            os._exit(1)
        return super().one(part)


@needs_ray
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray's own code
def test_a_part_that_takes_its_workers_down_ends_the_run(
    cluster: Any, corpus: Path, alone: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import cloudpickle

    monkeypatch.setattr(on_ray, "Actor", Deadly)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't find this module
    try:
        with pytest.raises(OSError, match=r"Ray gave part-00003\.parquet up after 6 tries"):
            score(corpus, tmp_path / "out", corpora.Engine("ray", actors=2))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    found = files(tmp_path / "out")
    assert alone.keys() - found.keys() == {"part-00003.parquet"}  # all others were done meanwhile
    assert all(content == alone[name] for name, content in found.items() if name.startswith("part-"))


@needs_ray
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray's own code
def test_the_driver_is_killed(cluster: Any, corpus: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    arguments = ["corpus", "score", str(corpus), str(tmp_path / "out"), "--backend", "numpy", "--shard-rows", "8"]
    command = [sys.executable, "-m", "gpt2_np", *arguments, "--engine", "ray", "--address", cluster.address]
    plain = {name: value for name, value in os.environ.items() if name != "RAY_BACKEND_LOG_LEVEL"}  # as a user's is
    process = subprocess.Popen(command, env=plain)
    until = time.monotonic() + 300
    while time.monotonic() < until and len(list((tmp_path / "out").glob("part-*"))) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    there = {one: one.stat().st_mtime_ns for one in (tmp_path / "out").glob("part-*")}
    assert len(there) < ROWS // 8
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=300, env=plain)
    assert (done.returncode, done.stderr) == (1, "")  # two rows can't be scored
    found = json.loads(done.stdout)
    assert (found["rows"], found["failed"]) == (ROWS, 2)
    assert {one: one.stat().st_mtime_ns for one in there} == there
    assert files(tmp_path / "out") == alone


@needs_ray
@pytest.mark.ray
def test_what_can_t_be_reached_is_one_line(corpus: Path, tmp_path: Path) -> None:
    arguments = ["corpus", "score", str(corpus), str(tmp_path / "out"), "--backend", "numpy", "--engine", "ray"]
    command = [sys.executable, "-m", "gpt2_np", *arguments, "--address", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no Ray cluster can be reached at '127.0.0.1:1'")
    assert done.stderr.count("\n") == 1
