"""Sound files of every kind that commands read beside models, all of a tiny model: what the file fuzzer then breaks."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from broken_folders import base
from surroundings import Around, run_command

from gpt2_np import GPT2
from gpt2_np.parity import bundle, training

TEXT = "the cat sat at the hat that the bat had\n" * 12
TRAIN = "--steps 3 --save-steps 2 --batch-size 2 --context 8 --sample-tokens 0 --backend numpy".split()
LEARN = "--hook-name blocks.0.hook_resid_pre --d-sae 8 --k 2 --steps 3 --save-steps 2 --batch-size 8".split()
PAIR = {"clean": "the cat", "corrupted": "the hat", "answer": "t", "wrong": "h"}


def command(*words: str | Path) -> None:
    """A command that must work."""
    code, said, faults = run_command([str(word) for word in words], Around())
    assert (code, faults) == (0, []), (words, said, faults)


def make(place: Path) -> Path:
    """A folder with one of each: model, capture, lenses, figures, dictionary, bundle, shards, texts, a training run."""
    place.mkdir(parents=True, exist_ok=True)
    model = place / "model"
    model.mkdir()
    base(model, random.Random(0))
    (place / "text.txt").write_text(TEXT)
    rows = [{"id": number, "text": text, "prompt": text} for number, text in enumerate(TEXT.split()[:6])]
    corpus = place / "rows"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    table(corpus / "b.parquet", rows[4:])
    (place / "pairs.jsonl").write_text(f"{json.dumps(PAIR)}\n" * 2)
    of = ("-m", model)
    internals = ("internals",)
    text, captured, sae = place / "text.txt", place / "captured", place / "sae"
    command(*internals, "capture", text, captured, "--names", "blocks.*.resid_pre", "--length", "12", *of)
    command(*internals, "tune", text, place / "tuned.safetensors", "--length", "12", *of)
    fit = ("--length", "12", "--skip-first", "1", "--texts", "2")
    command(*internals, "jacobian-lens", text, place / "jacobian.safetensors", *fit, *of)
    with stopped(sae):
        command(*internals, "train-dictionary", captured, sae, *LEARN, *of)
    sums = ("--dictionary", sae, "--sums", place / "figures.safetensors", "--length", "12")
    command(*internals, "evaluate-dictionary", text, *sums, *of)
    command("corpus", "score", corpus, place / "scores", "--shard-rows", "2", *of)
    command("corpus", "generate", corpus, place / "texts", "-n", "1", "--shard-rows", "2", "--field", "text", *of)
    command("corpus", "capture", corpus, place / "shards", "--names", "blocks.*.resid_pre", "--length", "12", *of)
    command("parity", "export", place / "bundle", "--training", "--tokens", "2", "--ids", "1 2 3", *of)
    tiny = GPT2.from_pretrained(model, backend="numpy")
    bundle.answer(place / "theirs", place / "bundle", tiny)
    training.answer(place / "theirs", place / "bundle", tiny)
    with stopped(place / "run"):
        command("train", text, "--out", place / "run", *TRAIN, *of)
    return place


@contextmanager
def stopped(run: Path) -> Iterator[None]:
    """Leave a run of three steps as a kill behind the second would: its last checkpoint is that of the second."""
    with mock.patch("gpt2_np.training.checkpoint.shutil.rmtree"):  # older checkpoints stay
        yield
    shutil.rmtree(run / "checkpoint-3")


def table(path: Path, rows: list[dict[str, object]]) -> None:
    """Rows as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
