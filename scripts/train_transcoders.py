"""Train a transcoder for each layer of the bundled model, as `gpt2-np internals graph` needs; none is bundled.

    python scripts/train_transcoders.py --text TEXT --work WORK [--steps 1500] [--texts 600] [--d-sae 2048] [--k 32]

TEXT is the folder with ``tales.txt.xz``. WORK gets the capture (10 KB a token, 2.6 MB a text of 256), a run for each
layer, and the result in ``WORK/transcoders``: a folder for each layer with SAELens's two files and ``figures.json``,
its quality on held-out tales. A run that was stopped continues; with ``--layers`` several processes share the work.

In training the k features a token that fire most in a batch are active (BatchTopK), so even a short run is sparse from
its first step; the result is saved as a JumpReLU with one threshold, as SAELens saves such a run. Longer runs with more
features and more text explain more.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm
from train_bundled_dictionary import LENGTH, texts

from gpt2_np import GPT2
from gpt2_np.internals import dictionaries
from gpt2_np.internals.capture import capture_corpus
from gpt2_np.system.files import write_whole
from gpt2_np.weights.save import as_json

READS, WRITES = "blocks.{}.ln2.hook_normalized", "blocks.{}.hook_mlp_out"
SETTINGS = {
    "architecture": "batchtopk_transcoder",
    "batch_size": 512,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 20,
    "skip_first": 1,
}
ABOUT = {"model_name": "gpt2-np/tales", "context_size": LENGTH, "prepend_bos": True, "dataset_path": "tales"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500, help="of each layer")
    parser.add_argument("--texts", type=int, default=600, help="of 256 tokens: how many are captured")
    parser.add_argument("--held-out-texts", type=int, default=16)
    parser.add_argument("--d-sae", type=int, default=2048, help="features of each layer")
    parser.add_argument("--k", type=int, default=32, help="features that fire at a token, on average")
    parser.add_argument("--layers", type=int, nargs="*", help="only these")
    options = parser.parse_args()
    model = GPT2.from_pretrained(backend="numpy")
    layers = options.layers if options.layers else range(model.config.n_layer)
    with tqdm(unit="token", desc="capture", mininterval=20) as bar:
        captured = capture_corpus(
            model,
            islice(texts(model, options.text, False), options.texts),
            [name.format("*") for name in (READS, WRITES)],
            options.work / "capture",
            chunk_bytes=64 << 20,
            dtype="float16",
            progress=bar.update,
        )
    held = list(islice(texts(model, options.text, True), options.held_out_texts))
    settings: dict[str, Any] = SETTINGS | {
        "steps": options.steps,
        "d_sae": options.d_sae,
        "k": options.k,
        "dead_feature_window": max(1, options.steps // 10),
    }
    for layer in layers:
        run, names = options.work / f"run-{layer}", (READS.format(layer), WRITES.format(layer))
        with tqdm(unit="step", desc=f"layer {layer}", total=options.steps, mininterval=20) as bar:

            def report(now: dictionaries.training.Report, bar: Any = bar) -> None:
                bar.update(now.step - bar.n)
                bar.set_postfix_str(f"L0 {now.l0:.1f}, explained {now.explained:.3f}, dead {now.dead}")

            found = dictionaries.train(captured, run, *names, resume=True, metadata=ABOUT, report=report, **settings)
        out = options.work / "transcoders" / f"layer-{layer}"
        dictionaries.save(found, out)
        figures = dictionaries.evaluate(model, found, held).as_json()
        write_whole(out / "figures.json", as_json(figures))
        print(f"layer {layer}: {json.dumps(figures)}", flush=True)


if __name__ == "__main__":
    main()
