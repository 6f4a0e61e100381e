"""Measure the overhead of work over a corpus, and the memory of a second worker on the same machine.

    python scripts/bench_corpora.py local [--rows 4096] [--turns 5]
    python scripts/bench_corpora.py ray [--rows 4096] [--turns 3]
    python scripts/bench_corpora.py batch [--parts 300]
    python scripts/bench_corpora.py memory [--model tales] [--dtype float32]

The corpus is generated from words of tales; the model is the bundled one. `local` compares the local engine with a loop
over `GPT2.score_all`, in turns. `ray` compares two actors of one core with two processes of the local engine that have
one thread each, on half of the rows each, in turns: once from the first shard to the last, without start and end, and
once with them. `batch` measures the cost of a shard, on shards of one short row. `memory` compares two processes that
map shared weights with two that don't, and with two whose model is next to nothing. Both wall-clock and processor
seconds are reported; the latter say more on a machine that has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WORDS = "the old king had three sons and a fox that ran to the river where a bird of gold sang at night".split()


def corpus(path: Path, rows: int, words: int = 60) -> Path:
    """A file of so many rows of 20 to so many words each."""
    draw = random.Random(0)
    lines = (" ".join(draw.choices(WORDS, k=draw.randint(min(20, words), words))) for _ in range(rows))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock, and of processors, that work in this process takes."""
    begun, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - busy


def shares(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> str:
    """The ratios of two lists of times, their median and range, by the clock and by processors."""
    told = []
    for which, name in enumerate(("clock", "processors")):
        ratios = [one[which] / other[which] for one, other in zip(ours, theirs, strict=True)]
        middle = statistics.median(ratios)
        told.append(f"{name} × {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    return ", ".join(told)


def local(folder: Path, rows: int, turns: int) -> None:
    """The local engine beside the plain loop."""
    from gpt2_np import GPT2, corpora

    path = corpus(folder / "corpus.txt", rows)
    texts = path.read_text().splitlines()
    model = GPT2.from_pretrained()
    model.score_all([(None, text) for text in texts[:64]])  # compiles

    def plain() -> None:
        loaded = GPT2.from_pretrained()
        for at in range(0, rows, 1024):
            loaded.score_all([(None, text) for text in texts[at : at + 1024]])

    engine, loop = [], []
    for turn in range(turns):
        loop.append(timed(plain))
        engine.append(timed(lambda: corpora.score(path, folder / f"out{turn}", progress=None)))  # noqa: B023
        print(f"loop {loop[-1][0]:.2f} s ({loop[-1][1]:.2f}), engine {engine[-1][0]:.2f} s ({engine[-1][1]:.2f})")
    print(f"local engine / plain loop, {rows} rows in {-(-rows // 1024)} shards: {shares(engine, loop)}", flush=True)


def halves(folder: Path, path: Path, rows: int, turn: int) -> tuple[float, float, float]:
    """Two processes of the local engine, one thread each: seconds in all, of processors, and a shard."""
    lines = path.read_text().splitlines(keepends=True)
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    running = []
    for half in range(2):
        some = folder / f"half{half}.txt"
        some.write_text("".join(lines[half * rows // 2 : (half + 1) * rows // 2]))
        command = [sys.executable, "-m", "gpt2_np", "corpus", "score", str(some), str(folder / f"half{turn}.{half}")]
        running.append(subprocess.Popen([*command, "--shard-rows", "128", "--json"], env=environment, stdout=-3))
    assert [one.wait() for one in running] == [0, 0]
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, between([folder / f"half{turn}.{half}" for half in range(2)])


def between(outs: list[Path]) -> float:
    """Seconds from the first shard to the last, for as many shards as there are after the first of each worker."""
    times = sorted(path.stat().st_mtime for out in outs for path in out.glob("part-*"))
    return (times[-1] - times[1]) / (len(times) - 2)


def on_ray(folder: Path, rows: int, turns: int) -> None:
    """Two actors of one core beside two processes."""
    import ray

    from gpt2_np import corpora

    path = corpus(folder / "corpus.txt", rows)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "error", "RAY_worker_niceness": "0"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ours, theirs = [], []
    for turn in range(turns):
        seconds, busy, each = halves(folder, path, rows, turn)
        theirs.append((each, busy))
        begun = time.perf_counter()
        most: dict[int, float] = {}

        def watch(done: int, total: int, most: dict[int, float] = most) -> None:
            import psutil  # which Ray brings, where it isn't installed otherwise

            for one in psutil.process_iter(["name"]):
                if "MapWorker" in (one.info["name"] or ""):
                    used = one.cpu_times()
                    most[one.pid] = used.user + used.system

        out, driver = folder / f"ray{turn}", time.process_time()
        corpora.score(path, out, shard_rows=128, engine=corpora.Engine("ray", actors=2), progress=watch)
        driver = time.process_time() - driver
        ours.append((between([out]), sum(most.values()) + driver))
        print(
            f"two processes: {seconds:.1f} s, {1000 * each:.0f} ms a shard, busy {busy:.1f} s; "
            f"two actors: {time.perf_counter() - begun:.1f} s, {1000 * ours[-1][0]:.0f} ms a shard, workers busy "
            f"{sum(most.values()):.1f} s and the driver {driver:.1f} s",
            flush=True,
        )
    print(f"Ray / two processes, {rows} rows in shards of 128: {shares(ours, theirs)}", flush=True)
    ray.shutdown()


def batch(folder: Path, parts: int) -> None:
    """Measure the overhead of a shard: shards of one short row each, by either engine."""
    import ray

    from gpt2_np import corpora

    path = corpus(folder / "corpus.txt", parts, words=2)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "error", "RAY_worker_niceness": "0"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    for name, engine in (("local", corpora.Engine()), ("ray", corpora.Engine("ray", actors=1))):
        at: list[tuple[float, float]] = []
        corpora.score(
            path,
            folder / name,
            shard_rows=1,
            engine=engine,
            progress=lambda *_: at.append((time.perf_counter(), time.process_time())),  # noqa: B023
        )
        clock, busy = ((at[-1][which] - at[0][which]) / (len(at) - 1) * 1000 for which in range(2))
        print(f"{name}: {clock:.2f} ms a shard of one row by the clock, this process busy {busy:.2f} ms", flush=True)
    ray.shutdown()


HOLDER = """
import json, sys
import numpy as np
from gpt2_np import GPT2
from gpt2_np.corpora import models
from gpt2_np.corpora.job import Job
from gpt2_np.model.config import Config
from gpt2_np.model.params import assemble, shapes
from gpt2_np.weights import hub
if sys.argv[3] == "none":
    config = Config(vocab_size=64, n_positions=64, n_embd=64, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    gpt2 = GPT2(assemble({name: np.zeros(shape, np.float32) for name, shape in shapes(config).items()}, config), config)
else:
    home = hub.locate(sys.argv[1])
    job = Job("score", str(home), sys.argv[2], "numba", models.fingerprint(home), "text", "id", "row")
    gpt2 = models.load(job, share=sys.argv[3] == "share")
gpt2.score([1, 2, 3] * 20)
print("ready", flush=True)
sys.stdin.readline()
found = {}
for line in open("/proc/self/smaps_rollup"):
    name, _, rest = line.partition(":")
    if name in ("Rss", "Pss", "Private_Clean", "Private_Dirty", "Shared_Clean", "AnonHugePages"):
        found[name] = int(rest.split()[0]) / 1024
print(json.dumps(found), flush=True)
sys.stdin.readline()
"""


def memory(model: str, dtype: str) -> None:
    """Two processes with the same model at the same time, that share weights or don't, or have next to none."""
    for how in ("alone", "share", "none"):
        command = [sys.executable, "-c", HOLDER, model, dtype, how]
        held = []
        for _ in range(2):
            one = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert one.stdin is not None
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
            held.append((one, one.stdin, one.stdout))
        for number, (_, stdin, stdout) in enumerate(held, 1):
            stdin.write("\n")
            stdin.flush()
            found = json.loads(stdout.readline())
            own = found["Private_Clean"] + found["Private_Dirty"]
            print(f"{how}, process {number}: its own {own:.0f} MiB, {found['Shared_Clean']:.0f} MiB shared", flush=True)
        for one, *_ in held:
            one.communicate()


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["local", "ray", "batch", "memory"])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--parts", type=int, default=300)
    parser.add_argument("--model", default="tales")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    if given.what == "memory":
        memory(given.model, given.dtype)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "local":
            local(Path(folder), given.rows, given.turns)
        elif given.what == "ray":
            on_ray(Path(folder), given.rows, given.turns)
        else:
            batch(Path(folder), given.parts)


if __name__ == "__main__":
    main()
