"""Write small tasks for lm-evaluation-harness, with their data: `python scripts/harness_tasks.py FOLDER`.

No data set is downloaded for them, and they cover cases that often break such code: empty contexts, contexts longer
than the model's, white space between context and continuation, choices that are prefixes of each other, several right
answers, and few-shot examples that all documents share.

    gpt2-np evaluate --include-path FOLDER --tasks tale_choices,tale_words,tale_texts,tale_endings
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

PEOPLE = ["king", "queen", "old woman", "fisherman", "youngest son", "giant", "wolf", "miller", "princess", "beggar"]
PLACES = ["forest", "castle", "village", "sea", "mountain", "mill", "garden", "well", "market", "church"]
DEEDS = [
    "sat down",
    "went away",
    "began to weep",
    "asked for bread",
    "fell asleep",
    "sang a song",
    "lost a ring",
    "ran",
]
THINGS = ["a golden ring", "three apples", "a loaf of bread", "an old sword", "a silver key", "his horse", "nothing"]
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
    train: {data}
test_split: test
fewshot_split: train
{fields}
metadata:
  version: 1.0
"""
TASKS = {
    "tale_choices": """\
output_type: multiple_choice
num_fewshot: 0
doc_to_text: "{{context}}"
doc_to_target: label
doc_to_choice: "{{choices}}"
target_delimiter: ""
metric_list:
  - metric: acc
  - metric: acc_norm""",
    "tale_examples": """\
output_type: multiple_choice
num_fewshot: 3
fewshot_config:
  sampler: first_n
doc_to_text: "{{context.strip()}}"
doc_to_target: label
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc""",
    "tale_words": """\
output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' ' + text.split(' ')[-1]}}"
metric_list:
  - metric: perplexity
  - metric: acc""",
    "tale_texts": """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte""",
    "tale_endings": """\
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{answers}}"
generation_kwargs:
  until: [".", "\\n\\n", " and"]
  max_gen_toks: 12
  do_sample: false
  temperature: 0.0
  top_p: 0.95
filter_list:
  - name: first-word
    filter:
      - function: regex
        regex_pattern: '^ ?(\\w+)'
      - function: take_first
metric_list:
  - metric: exact_match""",
}


def sentence(draw: random.Random) -> str:
    """A sentence of a tale."""
    who, where, deed = draw.choice(PEOPLE), draw.choice(PLACES), draw.choice(DEEDS)
    return draw.choice(
        [
            f"The {who} went to the {where} and {deed}.",
            f"Once upon a time there lived a {who} near the {where}.",
            f'"What do you want?" asked the {who}; but the {draw.choice(PEOPLE)} had {draw.choice(THINGS)}.',
            f"In the {where} the {who} found {draw.choice(THINGS)}, and {deed}.",
        ]
    )


def text(draw: random.Random, sentences: int) -> str:
    """A few sentences, in paragraphs."""
    return "".join(sentence(draw) + draw.choice([" ", " ", "\n\n"]) for _ in range(sentences)).strip()


def choices(draw: random.Random, number: int) -> dict[str, Any]:
    """A document with its choices: every seventh without a context, every fifth with a long one."""
    context = text(draw, 12 if number % 5 == 4 else draw.randint(1, 3)) + " The " + draw.choice(PEOPLE) + " had"
    few = draw.sample(THINGS, 3)
    several = [f" {few[0]}", f" {few[1]}", f" {few[0]} and {few[2]}", f" {few[2]}."]
    if number % 7 == 3:
        context, several = "", [one.strip().capitalize() for one in several]
    elif number % 3 == 1:  # the space stands at the context's end
        context, several = context + " ", [one.strip() for one in several]
    return {"context": context, "choices": several, "label": number % 4}


def documents(size: int) -> dict[str, list[dict[str, Any]]]:
    """The documents of every task, the same each time; `size` is how many multiple choices there are."""
    draw = random.Random(0)
    several = [choices(draw, number) for number in range(size)]
    words = [{"text": text(draw, draw.randint(1, 4)).rstrip(".")} for _ in range(size)]
    lengths = [draw.choice([1, 2, 3, 5, 30]) for _ in range(size // 4)]
    texts = [{"text": text(draw, length) + draw.choice(["", "\n", " é — ü"])} for length in lengths]
    contexts = [text(draw, draw.choice([1, 2, 3, 9])) + " The" for _ in range(size // 4)]
    endings = [{"context": one, "answers": [*PEOPLE, "man", "old", "wolf"]} for one in contexts]
    return {
        "tale_choices": several,
        "tale_examples": several[: size // 2],
        "tale_words": words,
        "tale_texts": texts,
        "tale_endings": endings,
    }


def write(folder: Path, size: int = 100) -> None:
    """Write every task's YAML file and its data; ``OSError`` where they can't be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, several in documents(size).items():
        data = (folder / f"{name}.jsonl").absolute()
        data.write_text("".join(json.dumps(one) + "\n" for one in several), encoding="utf-8")
        task = TASK.format(name=name, data=json.dumps(str(data)), fields=TASKS[name])
        (folder / f"{name}.yaml").write_text(task, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/harness_tasks.py FOLDER")
    write(Path(sys.argv[1]))
