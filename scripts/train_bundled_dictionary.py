"""Train the bundled model's dictionary: on the residual stream of its middle layer, over the text it was trained on.

    python scripts/train_bundled_dictionary.py --text TEXT --work WORK [--steps 4000] [--texts 1797]

The learning rate falls along a line that would reach 0 after ``--steps``; the run ends with ``--stop-after``. TEXT is
the folder with ``tales.txt.xz``. WORK gets the capture (300 MB), the run, and the result in
``WORK/dictionary``: SAELens's two files in float16, ``figures.json`` (evaluated on the held-out tales), and
``WORK/dashboards.json``, every feature's best places among the tales. A run that was stopped continues.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm
from training import data

from gpt2_np import GPT2
from gpt2_np.internals import dictionaries
from gpt2_np.internals.capture import capture_corpus
from gpt2_np.system.files import write_whole
from gpt2_np.training.loop import Stopped
from gpt2_np.weights.save import as_json

HOOK = "blocks.4.hook_resid_pre"
LENGTH = 256
SETTINGS = {"architecture": "topk", "d_sae": 2048, "k": 32, "batch_size": 1024, "learning_rate": 5e-4}
ABOUT = {"model_name": "gpt2-np/tales", "context_size": LENGTH, "prepend_bos": True, "dataset_path": "tales"}


def texts(model: GPT2, folder: Path, held_out: bool) -> Iterator[list[int]]:
    """The tales' ids, cut into texts that each begin with end-of-text."""
    for document in data.documents(folder, "tales"):
        if data.is_held_out(document) != held_out:
            continue
        ids = model.tokenizer.encode(document, add_special_tokens=False)
        for start in range(0, len(ids), LENGTH - 1):
            if len(ids) - start > 8:
                yield [0, *ids[start : start + LENGTH - 1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--stop-after", type=int, default=2500, help="end there, before the learning rate is at 0")
    parser.add_argument("--held-out-texts", type=int, default=48)
    parser.add_argument("--texts", type=int, default=1797, help="of 256 tokens: how many are captured")
    options = parser.parse_args()
    model = GPT2.from_pretrained(backend="numpy")
    with tqdm(unit="token", desc="capture", mininterval=20) as bar:
        captured = capture_corpus(
            model,
            islice(texts(model, options.text, False), options.texts),
            HOOK,
            options.work / "capture",
            chunk_bytes=32 << 20,
            dtype="float16",
            progress=bar.update,
        )
    size = {"texts": len(captured), "tokens": sum(len(captured.ids(text)) for text in range(len(captured)))}
    write_whole(options.work / "capture.size.json", as_json(size))
    with tqdm(unit="step", desc="train", total=options.steps, mininterval=20) as bar:

        def report(now: dictionaries.training.Report) -> None:
            bar.update(now.step - bar.n)
            bar.set_postfix_str(f"loss {now.loss:.1f}, explained {now.explained:.3f}, dead {now.dead}")
            if now.step >= options.stop_after:
                signal.raise_signal(signal.SIGINT)  # which saves the step

        words: dict[str, Any] = SETTINGS | {"steps": options.steps, "lr_scheduler_type": "linear"}
        run = options.work / "run"
        done = [int(folder.name.partition("-")[2]) for folder in run.glob("checkpoint-*")]
        if max(done, default=0) < min(options.stop_after, options.steps):
            with contextlib.suppress(Stopped):
                dictionaries.train(captured, run, HOOK, resume=True, metadata=ABOUT, report=report, **words)
    dictionaries.save(dictionaries.load(run), options.work / "dictionary", dtype="float16")
    sae = dictionaries.load(options.work / "dictionary")  # what is shipped is what is evaluated
    held = islice(texts(model, options.text, True), options.held_out_texts)
    with tqdm(unit="token", desc="evaluate", mininterval=20) as bar:
        found = dictionaries.evaluate(model, sae, held, progress=bar.update)
    write_whole(options.work / "dictionary" / "figures.json", as_json(found.as_json()))
    print(json.dumps(found.as_json(), indent=1))
    with tqdm(unit="token", desc="dashboards", mininterval=20) as bar:
        boards = dictionaries.dashboards(model, sae, captured, examples=12, context=10, words=8, progress=bar.update)
    tokens = model.tokenizer.tokens
    table = [
        {
            "feature": board.feature,
            "density": board.density,
            "raises": tokens(board.raises),
            "lowers": tokens(board.lowers),
            "examples": [
                {"value": one.value, "at": one.position - one.start, "tokens": tokens(one.ids)}
                for one in board.examples
            ],
        }
        for board in boards
    ]
    write_whole(options.work / "dashboards.json", as_json(table))


if __name__ == "__main__":
    main()
