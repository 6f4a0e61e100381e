"""Ask a reader who knows the names of the bundled dictionary's features, and nothing else, where they fire.

    python scripts/judge_feature_names.py ask --text TEXT --work WORK
    python scripts/judge_feature_names.py count --work WORK

TEXT is the folder with ``tales.txt.xz``. ``ask`` writes ``WORK/questions.txt`` for the reader and ``WORK/key.json``,
which the reader must not see. For each named feature there are 20 places of held-out tales, one word of each marked: at
half of them the feature fires, weakly and strongly; of the others half have a word at which it fires elsewhere, where
there are such. The reader writes ``WORK/answers.txt``, a line for each feature: its number, and the numbers of the
places where it fires by its name. ``count`` says how many were right, and writes ``WORK/judged.json`` for the card.
(Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models": fuzzing, with one marked
word.)
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
from train_bundled_dictionary import texts

from gpt2_np import GPT2
from gpt2_np.internals.dictionaries import load
from gpt2_np.system.files import write_whole
from gpt2_np.weights.save import as_json

Array = np.ndarray
FIRING, OTHERS = 10, 10  # places of each feature
BEFORE, AFTER = 14, 5  # tokens around the marked one
HELD_OUT_TEXTS = 400  # of up to 256 tokens, at most


def ask(text: Path, work: Path) -> None:
    """Write the questions and the key."""
    model, dictionary, rng = GPT2.from_pretrained(), load("tales"), np.random.default_rng(1)
    rows = list(islice(texts(model, text, True), HELD_OUT_TEXTS))
    name = dictionary.hook_name
    features = sorted(dictionary.names)
    codes = [dictionary.encode(model.run_with_cache(row, name)[1][name][0])[1:, features] for row in rows]
    values = np.concatenate(codes)  # without a text's first position: (places, features)
    where = [(n, t) for n, row in enumerate(rows) for t in range(1, len(row))]
    words = np.array([rows[n][t] for n, t in where])
    questions, key = [], {}
    for column, feature in enumerate(features):
        chosen = places(words, values[:, column], rng)
        firing = [
            (values[place, column], number) for number, place in enumerate(chosen, 1) if values[place, column] > 0
        ]
        key[feature] = [number for _, number in sorted(firing)]
        lines = [f"{number}. {shown(model, rows[where[at][0]], where[at][1])}" for number, at in enumerate(chosen, 1)]
        questions.append(f"## {feature}: {dictionary.names[feature]}\n\n" + "\n".join(lines) + "\n")
    work.mkdir(parents=True, exist_ok=True)
    write_whole(work / "questions.txt", "\n".join(questions).encode())
    write_whole(work / "key.json", as_json(key))


def places(words: Array, values: Array, rng: np.random.Generator) -> list[int]:
    """Return places in a random order: firing ones of all sizes, others with a word that fires elsewhere, and any."""
    firing = np.flatnonzero(values > 0)
    firing = firing[np.argsort(values[firing], kind="stable")]
    some = [int(rng.choice(few)) for few in np.array_split(firing, FIRING) if len(few)]
    silent = np.flatnonzero(values <= 0)
    same = silent[np.isin(words[silent], words[firing])]
    some += rng.choice(same, min(len(same), OTHERS // 2), replace=False).tolist()
    left = np.setdiff1d(silent, some)
    some += rng.choice(left, FIRING + OTHERS - len(some), replace=False).tolist()
    return [some[n] for n in rng.permutation(len(some))]


def shown(model: GPT2, row: list[int], t: int) -> str:
    """Return a place as a reader sees it: the marked word, the words around it, and how far the text has come."""
    before, word, after = row[max(1, t - BEFORE) : t], row[t : t + 1], row[t + 1 : t + 1 + AFTER]
    parts = [model.tokenizer.decode(some) for some in (before, word, after)]
    return f"[token {t}] {parts[0]}»{parts[1]}«{parts[2]}".replace("\n", " / ")


def count(work: Path) -> None:
    """Print how many answers were right, for each feature, as rows of a table."""
    key: dict[int, list[int]] = {int(one): some for one, some in json.loads((work / "key.json").read_text()).items()}
    answers = {}
    for line in (work / "answers.txt").read_text().splitlines():
        if line.strip():
            feature, *given = (int(word) for word in line.replace(":", " ").replace(",", " ").split())
            answers[feature] = set(given)
    if answers.keys() != key.keys():
        raise SystemExit(f"answers.txt must have a line for each of {len(key)} features, got {len(answers)}")
    found = np.zeros((len(key), FIRING), bool)  # from the weakest to the strongest place
    wrong = np.zeros(len(key), int)
    print("| feature | found of its places | of those without it, said to have it |\n|---|---|---|")
    for row, (feature, fires) in enumerate(key.items()):
        found[row, FIRING - len(fires) :] = [place in answers[feature] for place in fires]
        wrong[row] = len(answers[feature] - set(fires))
        print(f"| {feature} | {found[row].sum()} of {len(fires)} | {wrong[row]} of {FIRING + OTHERS - len(fires)} |")
    print(f"| all | {found.sum()} of {found.size} | {wrong.sum()} of {len(key) * OTHERS} |")
    strengths = found.sum(axis=0)[::-1].tolist()
    print("found, from the strongest tenth of the places to the weakest:", *strengths, f"of {len(key)} each")
    each = dict(zip(key, found.sum(axis=1).tolist(), strict=True))
    write_whole(work / "judged.json", as_json({"found": each, "strengths": strengths, "wrong": int(wrong.sum())}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ask", "count"])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    if options.what == "count":
        count(options.work)
    elif options.text is None:
        parser.error("ask needs --text")
    else:
        ask(options.text, options.work)


if __name__ == "__main__":
    main()
