"""The engine for many machines: Ray Data's `map_batches`, whose actors each load the model once.

Ray moves the numbers of parts, not rows: an actor reads its part from the file and writes the shard itself, so the
files and OUT must be where every machine sees them under the same name. Ray starts an actor again where it died, and
gives the part that it had to it, or to another one. That isn't enough where a machine is lost: Ray notices after some
20 seconds, and until then every try of that machine's parts fails at once. So Ray may give parts up without ending the
run, and they go to new actors afterwards, as long as any part is done meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..display import Readable
from ..system.errors import in_words
from ..system.files import JSONObject
from . import packages, shards
from .inputs import Part, Source
from .job import Job
from .work import Worker, use_threads

RETRIES = 2  # how often Ray tries a part again whose worker died with it, before it gives the part up
ANSWER = 5.0  # seconds in which a cluster's address must answer


class Actor(Readable):
    """A worker in a process of Ray's. It returns a user's errors instead of raising them: Ray would try again."""

    def __init__(self, job: Job, sources: Sequence[Source], out: str, cores: int) -> None:
        self.worker: Worker | None = None
        self.failure: JSONObject = {}
        use_threads(cores)
        try:
            self.worker = Worker(job, sources, Path(out), share=True)
        except (OSError, ValueError, MemoryError) as error:
            self.failure = told(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the outcome of each part of a batch, as JSON."""
        return {"done": [json.dumps(self.one(Part(*json.loads(part)))) for part in batch["part"]]}

    def one(self, part: Part) -> JSONObject:
        """Return the outcome of a part, or the error that ends the run."""
        if self.worker is None:
            return self.failure
        try:
            return self.worker(part)
        except (OSError, ValueError, MemoryError) as error:
            return told(error)
        except Exception as error:  # a fault of ours: Ray would try again, and give the part up without a word of why
            return told(ValueError(f"a worker stopped at part {part.number} with {type(error).__name__}: {error}"))


def told(error: Exception) -> JSONObject:
    """Return an error as JSON, for the process that shows it."""
    number = error.errno if isinstance(error, OSError) else None
    return {"failure": in_words(error), "errno": number, "file": str(getattr(error, "filename", None) or "")}


def raised(failure: JSONObject) -> Exception:
    """Return the error that JSON describes."""
    if failure["errno"] is not None:
        return OSError(failure["errno"], os.strerror(failure["errno"]), failure["file"] or None)
    return ValueError(failure["failure"])


def run(
    job: Job,
    sources: Sequence[Source],
    parts: Sequence[Part],
    out: Path,
    *,
    actors: int | None = None,
    cores: int = 1,
    address: str | None = None,
) -> Iterator[JSONObject]:
    """Yield the outcome of each part as soon as it is done.

    `actors` of `cores` cores each work side by side, as many as the cluster has room for where None. A cluster that
    this process is connected to is used; else the one at `address` ("auto": the one that runs on this machine); with
    neither, one of this machine's cores is started for the run. ``ValueError`` where Ray is missing, or
    the cluster is too small or can't be reached; ``OSError`` where a part's workers died again and again.
    """
    ray = packages.ray()
    waiting = {part.number: part for part in parts}
    with connected(ray, address), quiet(ray):
        while waiting:
            before = len(waiting)
            try:
                for done in outcomes(ray, job, sources, list(waiting.values()), out, actors, cores):
                    del waiting[done["part"]]
                    yield done
            except ray.exceptions.RayError as error:
                raise OSError(errno.EIO, f"Ray stopped: {' '.join(str(error).split()):.600}", str(out)) from None
            if len(waiting) == before:
                raise OSError(errno.EIO, given_up(job, waiting), str(out))


def given_up(job: Job, waiting: Collection[int]) -> str:
    """Return what is said of parts whose workers died again and again: once beside others, once by themselves."""
    first, more = shards.name_of(job.task, min(waiting)), len(waiting) - 1
    others = f" and {more} more" if more else ""
    return f"Ray gave {first}{others} up after {2 * (RETRIES + 1)} tries: the workers died at it, or their machines"


def outcomes(
    ray: Any, job: Job, sources: Sequence[Source], parts: Sequence[Part], out: Path, actors: int | None, cores: int
) -> Iterator[JSONObject]:
    """Yield the outcome of each part as soon as it is done, but for those that Ray gives up."""
    room = int(ray.cluster_resources().get("CPU", 0)) // cores
    if room < 1:
        raise ValueError(f"no machine of the cluster has {cores} cores for an actor")
    size = min(room if actors is None else actors, len(parts))
    items = [{"part": json.dumps(part)} for part in parts]
    found = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Actor,
        batch_size=1,
        num_cpus=cores,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size),
        fn_constructor_args=(job, list(sources), str(out.absolute()), cores),
        max_task_retries=RETRIES,
    )
    for row in found.iter_rows():
        done = json.loads(row["done"])
        if "failure" in done:
            raise raised(done)
        yield done


@contextlib.contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect this process to a cluster, and leave it afterwards, unless it was connected to one before.

    ``ValueError`` if no cluster can be reached or started.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its processes' notes are no concern of a user's
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do from its next release on
    settings: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    if address is not None:
        knock(address)
    try:
        with warnings.catch_warnings(), unheard():
            warnings.simplefilter("ignore")  # of Ray's own code
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise unreachable(address, " ".join(str(error).split())) from None
    try:
        yield
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """Raise ``ValueError`` if nobody answers at HOST:PORT: Ray itself would go on trying for minutes.

    Other addresses, such as "auto", are left to Ray, which finds out by itself.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise unreachable(address, getattr(error, "strerror", None) or str(error)) from None


def unreachable(address: str | None, why: str) -> ValueError:
    """Return the error for a cluster that isn't there."""
    return ValueError(f"no Ray cluster can be reached at {address!r}: {why}")


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Let what is written to standard error go nowhere: Ray's C++ code writes there that it will write nothing."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def quiet(ray: Any) -> Iterator[None]:
    """Keep Ray Data from showing bars and reports of its own, and from ending a run with the first part it gives up."""
    context = ray.data.DataContext.get_current()
    bars = ("enable_progress_bars", "enable_operator_progress_bars", "print_on_execution_start")
    settings: dict[str, Any] = {**dict.fromkeys(bars, False), "max_errored_blocks": -1}
    before = {name: getattr(context, name) for name in settings if hasattr(context, name)}
    log = logging.getLogger("ray.data")
    level = log.level
    try:
        for name in before:
            setattr(context, name, settings[name])
        log.setLevel(logging.CRITICAL)  # it would tell of every part that is given up, with a traceback
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        log.setLevel(level)
