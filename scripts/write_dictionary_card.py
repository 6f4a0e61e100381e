"""Copy the trained dictionary into the bundled model's folder, with names for features and its card.

    python scripts/write_dictionary_card.py --work WORK --names names.json --judged judged.json

WORK is the folder of ``train_bundled_dictionary.py``. ``names.json`` holds {feature: name}, for features that somebody
named after reading where they fire, strongly and weakly; ``judged.json`` is ``judge_feature_names.py``'s.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gpt2_np.internals.dictionaries.load import CONFIG, WEIGHTS
from gpt2_np.internals.dictionaries.releases import BUNDLED
from gpt2_np.system.files import write_whole
from gpt2_np.weights.save import as_json

CARD = """# A dictionary of tales' middle layer

A top-k sparse autoencoder (Gao et al. 2024) of the stream that the fifth of the bundled model's eight layers reads,
`blocks.4.hook_resid_pre`: {d_in} numbers as at most {k} of {d_sae:,} features. `gpt2_np.internals.dictionaries.load("tales")`
reads it, and so does SAELens (`SAE.load_from_disk`). Weights are kept in float16, {size:.1f} MB.

## Data and training

{texts:,} passages of up to 256 tokens ({tokens:,} in all) of the fairy tales that the model was trained on, each behind
an end-of-text token; the first position of each passage doesn't count. {done:,} steps of {batch:,} vectors, of a schedule of
{steps:,} in which the learning rate falls to 0; about {epochs:.0f} times through the data, with
`scripts/train_bundled_dictionary.py`, which says every setting. The texts and their licences are those of the model's own
card. The dictionary is under the licence of this project.

## Figures

On the tales that were held out from model and dictionary, {held:,} tokens (`figures.json` has all of them, under SAELens's
names):

| figure | value |
|---|---|
| features that fire at a token (L0) | {l0:.1f} |
| explained variance | {ev:.3f} |
| mean squared error, summed over the width | {mse:.2f} |
| loss, nats a token: the model's own | {loss:.3f} |
| … with the dictionary in the stream's place | {spliced:.3f} |
| … with zeros in its place | {ablated:.3f} |
| share of the loss recovered | {score:.3f} |
| features that never fired there | {dead:,} |
| features that fired at more than 10% of the tokens | {dense:,} |

## Twenty features, named

Named by a language model that read some thirty places of the training text where each fires, from its strongest to its
weakest tenth; no person has checked the names. How often each fires is of the same text. The three positions were read
off how often those features fire at each place of the passages.

Another language model, which knew the names alone, was shown 20 places of held-out tales for each, one word of them
marked: ten where the feature fires, spread over all its strengths, and ten where it doesn't, half of them with a word at
which it fires elsewhere (`scripts/judge_feature_names.py`). It found {found} of {places}, and took {wrong} of the other {places} for
firing. From the strongest tenth of the places to the weakest it found {strengths} of {named}
each. (Earlier names, which had been read off each feature's twelve strongest places alone, were found at 83 of 200: what
shows at the top is often a small part of what a feature does.)

| feature | name | fires at | found of 10 |
|---|---|---|---|
{rows}

## What it is bad at

- **First tokens.** The stream at a text's first position is many times longer than anywhere else. It was left out of
  training, so features there mean nothing.
- **Anything but tales.** It has seen fairy tales alone; of the model's other half, novels, nothing.
- **What matters to the model.** It was trained to explain variance, not loss: what it misses is {missed:.1%} of the variance
  and costs {cost:.3f} nats a token.
- **Texts without end-of-text before them.** Every passage in training had one; without it a text's first words look
  different to the model, and to the dictionary (the study `docs/guide/features.md` puts one before each text).
- **Places beyond 256.** The passages were no longer than that; the model reads 512 tokens.
- **Rare things.** {tokens:,} tokens are few, and most features that were looked at are single words in single contexts.
- **Names.** Twenty of {d_sae:,} features have one. {dense:,} fire at more than a tenth of the tokens; three of these say how far
  from the beginning a token stands, and what the others say isn't known.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--names", type=Path, required=True)
    parser.add_argument("--judged", type=Path, required=True)
    options = parser.parse_args()
    source, out = options.work / "dictionary", BUNDLED["tales"]
    names = {int(one): str(name) for one, name in json.loads(options.names.read_text()).items()}
    boards = {one["feature"]: one for one in json.loads((options.work / "dashboards.json").read_text())}
    config: dict[str, Any] = json.loads((source / CONFIG).read_text())
    figures: dict[str, Any] = json.loads((source / "figures.json").read_text())
    config["metadata"]["feature_names"] = {str(one): names[one] for one in sorted(names)}
    out.mkdir(exist_ok=True)
    write_whole(out / WEIGHTS, (source / WEIGHTS).read_bytes())
    write_whole(out / CONFIG, as_json(config))
    write_whole(out / "figures.json", as_json(figures))
    loss, quality = figures["model_performance_preservation"], figures["reconstruction_quality"]
    run, capture = config["metadata"]["training"], json.loads((options.work / "capture.size.json").read_text())
    judged: dict[str, Any] = json.loads(options.judged.read_text())
    found = {int(one): count for one, count in judged["found"].items()}
    rows = "\n".join(f"| {one} | {names[one]} | {boards[one]['density']:.2%} | {found[one]} |" for one in sorted(names))
    *most, last = judged["strengths"]
    card = CARD.format(
        d_in=config["d_in"],
        d_sae=config["d_sae"],
        k=config["k"],
        size=(out / WEIGHTS).stat().st_size / 1e6,
        texts=capture["texts"],
        tokens=capture["tokens"],
        steps=run["steps"],
        batch=run["batch_size"],
        done=run["steps_done"],
        epochs=run["steps_done"] * run["batch_size"] / (capture["tokens"] - capture["texts"]),
        held=figures["token_stats"]["total_tokens_eval_reconstruction"],
        l0=figures["sparsity"]["l0"],
        ev=quality["explained_variance"],
        mse=quality["mse"],
        loss=loss["ce_loss_without_sae"],
        spliced=loss["ce_loss_with_sae"],
        ablated=loss["ce_loss_with_ablation"],
        score=loss["ce_loss_score"],
        dead=figures["features"]["dead"],
        dense=figures["features"]["dense"],
        missed=1 - quality["explained_variance"],
        cost=loss["ce_loss_with_sae"] - loss["ce_loss_without_sae"],
        found=sum(found.values()),
        places=10 * len(found),
        wrong=judged["wrong"],
        strengths=f"{', '.join(map(str, most))} and {last}",
        named=len(found),
        rows=rows,
    )
    write_whole(out / "README.md", card.encode())
    print(card)


if __name__ == "__main__":
    main()
