"""Write tests/golden/searches.json: results of transformers 4.55.4 for searches that version 5 moved out of its core.

The searches are group beams, constrained beams, contrastive search and DoLa, on tiny random models and the bundled one,
over many settings. 4.55 is the last series with all four of them. The script needs an environment of its own, since the
tests run against version 5:

    python3 -m venv golden && golden/bin/pip install torch==2.13.0 transformers==4.55.4
    golden/bin/python scripts/make_golden_searches.py
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.generation.beam_search import ConstrainedBeamSearchScorer

Case = dict[str, Any]  # a case of the golden file, as JSON
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from tiny_models import MODELS, tensors  # noqa: E402

BUNDLED = ROOT / "gpt2_np" / "bundled" / "tales"
TARGET = ROOT / "tests" / "golden" / "searches.json"
EOS = 3


def build(model: Case) -> transformers.GPT2LMHeadModel:
    """The tiny model as transformers has it."""
    fields = {name: value for name, value in model.items() if name != "seed"}
    config = transformers.GPT2Config(**fields, bos_token_id=0, eos_token_id=0)
    config._attn_implementation = "eager"
    built = transformers.GPT2LMHeadModel(config)
    found = {
        name if name == "lm_head.weight" else f"transformer.{name}": torch.tensor(value)
        for name, value in tensors(model).items()
    }
    missing, unexpected = built.load_state_dict(found, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= ({"lm_head.weight"} if model["tie_word_embeddings"] else set()), missing
    built.tie_weights()
    return built.eval()


class Scores:
    """The scores of the beams that a constrained search returns.

    ``output_scores`` can't be asked for there: it fails wherever a beam that misses a constraint is returned.
    """

    last: torch.Tensor

    @classmethod
    def record(cls) -> None:
        finalize = ConstrainedBeamSearchScorer.finalize

        def recording(*arguments: Any, **settings: Any) -> Any:
            out = finalize(*arguments, **settings)
            cls.last = out["sequence_scores"]
            return out

        ConstrainedBeamSearchScorer.finalize = recording


def generate(model: transformers.GPT2LMHeadModel, case: Case) -> Case:
    """Return what transformers adds to each prompt, and the scores of it."""
    ids = torch.tensor(case["prompts"])
    options = {"top_k": 0, "eos_token_id": None} | case["options"]
    torch.manual_seed(options.pop("seed", 0))
    model.generation_config.eos_token_id = None
    constrained = "force_words_ids" in options
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        return_dict_in_generate=True,
        output_scores=not constrained,
        trust_remote_code=True,
        **options,
    )
    eos = options["eos_token_id"]
    ends = [] if eos is None else [eos] if isinstance(eos, int) else eos
    rows = [cut(row, ends) for row in out.sequences[:, ids.shape[1] :].tolist()]
    if "num_beams" in options:
        found = Scores.last if constrained else out.sequences_scores
        return {"ids": rows, "scores": [round(float(score), 6) for score in found]}
    # The score that each new id had after every processor, and how many tokens were left to choose from.
    scores = [
        [round(float(out.scores[step][number, token]), 6) for step, token in enumerate(row)]
        for number, row in enumerate(rows)
    ]
    left = [
        [int(torch.isfinite(out.scores[step][number]).sum()) for step in range(len(row))]
        for number, row in enumerate(rows)
    ]
    return {"ids": rows, "scores": scores, "left": left}


def cut(row: list[int], ends: list[int]) -> list[int]:
    """A row up to its first end-of-text."""
    for place, token in enumerate(row):
        if token in ends:
            return row[: place + 1]
    return row


# ---- the settings ---------------------------------------------------------------------------------------------------


def prompts(draw: random.Random, V: int, rows: int) -> list[list[int]]:
    length = draw.randint(1, 5)
    return [[draw.randrange(4, V) for _ in range(length)] for _ in range(rows)]


def rules(draw: random.Random, new: int) -> Case:
    """Options that every search heeds."""
    chosen: Case = {"max_new_tokens": new}
    if draw.random() < 0.25:
        chosen["repetition_penalty"] = draw.choice([0.8, 1.2, 1.5])
    if draw.random() < 0.5:
        chosen["sequence_bias"] = [[[EOS], draw.choice([1.0, 3.0, 5.0])]]
    if draw.random() < 0.2:
        chosen["no_repeat_ngram_size"] = draw.choice([2, 3])
    if draw.random() < 0.2:
        chosen["min_new_tokens"] = draw.randint(1, min(4, new))
    return chosen


def ending(draw: random.Random) -> Case:
    return {"eos_token_id": draw.choice([None, EOS, EOS, [EOS, 5], [2, EOS]]), "pad_token_id": draw.choice([0, 7])}


def beams(draw: random.Random, choices: list[int]) -> Case:
    chosen: Case = {"num_beams": draw.choice(choices)}
    chosen["num_return_sequences"] = draw.choice([1, min(3, chosen["num_beams"]), chosen["num_beams"]])
    if draw.random() < 0.6:
        chosen["length_penalty"] = draw.choice([-1.0, 0.0, 0.5, 2.0])
    if draw.random() < 0.6:
        chosen["early_stopping"] = draw.choice([True, False, "never"])
    return chosen


def group_beams(draw: random.Random, model: Case) -> Case:
    options = beams(draw, [2, 3, 4, 6]) | rules(draw, draw.randint(1, 14)) | ending(draw)
    groups = [count for count in (2, 3, 4, 6) if options["num_beams"] % count == 0]
    options |= {"num_beam_groups": draw.choice(groups), "diversity_penalty": draw.choice([0.1, 0.5, 1.0, 3.0])}
    if draw.random() < 0.15:
        options["renormalize_logits"] = True
    return {"prompts": prompts(draw, model["vocab_size"], draw.randint(1, 2)), "options": options}


def words(draw: random.Random, V: int) -> list[Any]:
    """Phrases to force, and choices of phrases: none of a choice begins another."""

    def phrase() -> list[int]:
        return [draw.randrange(6, V) for _ in range(draw.randint(1, 3))]

    def choice() -> list[list[int]]:
        kept: list[list[int]] = []
        for one in [phrase() for _ in range(draw.randint(2, 4))]:
            if not any(other[: len(one)] == one or one[: len(other)] == other for other in kept):
                kept.append(one)
        if draw.random() < 0.5:  # paths that part late, where the order of trying matters
            a, b, c = (draw.randrange(6, V) for _ in range(3))
            if len({a, b, c}) == 3 and not any(other[0] == a for other in kept):
                kept += [[a, b, c], [a, c]]
        return kept

    return [phrase() if draw.random() < 0.5 else choice() for _ in range(draw.randint(1, 3))]


def constrained_beams(draw: random.Random, model: Case) -> Case:
    options = beams(draw, [2, 3, 4, 5, 8]) | rules(draw, draw.randint(2, 14)) | ending(draw)
    options["force_words_ids"] = words(draw, model["vocab_size"])
    return {"prompts": prompts(draw, model["vocab_size"], draw.randint(1, 2)), "options": options}


def contrastive(draw: random.Random, model: Case) -> Case:
    options = rules(draw, draw.randint(1, 16)) | ending(draw)
    options |= {"penalty_alpha": draw.choice([0.1, 0.3, 0.6, 0.6, 0.9]), "top_k": draw.randint(2, 8)}
    return {"prompts": prompts(draw, model["vocab_size"], draw.randint(1, 2)), "options": options}


def dola(draw: random.Random, model: Case) -> Case:
    L, tied = model["n_layer"], model["tie_word_embeddings"]
    choices: list[Any] = ["high", sorted(draw.sample(range(L), draw.randint(1, min(L, 4))))]
    if not (tied and L == 3):
        choices.append("low")
    options = {"max_new_tokens": draw.randint(1, 12), "dola_layers": draw.choice(choices)} | ending(draw)
    if draw.random() < 0.5:
        options["repetition_penalty"] = draw.choice([1.2, 1.5])
    if draw.random() < 0.4:
        options |= {"do_sample": True, "seed": draw.randrange(2**31)}
        if draw.random() < 0.5:
            options["temperature"] = draw.choice([0.5, 0.7, 1.5])
    return {"prompts": prompts(draw, model["vocab_size"], 1), "options": options}


SEARCHES = {
    "group_beams": (group_beams, 200),
    "constrained_beams": (constrained_beams, 240),
    "contrastive": (contrastive, 160),
    "dola": (dola, 170),
}


def on_tales(tokenizer: Any) -> dict[str, list[Case]]:
    """A few longer texts by the trained model that ships with the package."""
    king, sea, end = (tokenizer(text)["input_ids"] for text in ("The king", "The sea was", "."))

    def case(prompt: list[int], **options: Any) -> Case:
        return {"model": "tales", "prompts": [prompt], "options": {"eos_token_id": end[0], "pad_token_id": 0} | options}

    castle, queen, lady = (tokenizer(text)["input_ids"] for text in (" castle", " queen", " old lady"))
    groups = {"num_beams": 6, "num_return_sequences": 3, "max_new_tokens": 30}
    return {
        "group_beams": [
            case(king, **groups, num_beam_groups=3, diversity_penalty=0.5),
            case(sea, **groups, num_beam_groups=6, diversity_penalty=2.0, early_stopping=True),
            case(sea, **groups, num_beam_groups=2, diversity_penalty=1.0, repetition_penalty=1.2, length_penalty=0.0),
        ],
        "constrained_beams": [
            case(king, **groups, force_words_ids=[castle]),
            case(sea, **groups, force_words_ids=[castle, [queen, lady]], no_repeat_ngram_size=3),
            case(sea, **groups, force_words_ids=[lady, castle], early_stopping="never"),
        ],
        "contrastive": [
            case(king, penalty_alpha=0.6, top_k=4, max_new_tokens=60, eos_token_id=None),
            case(sea, penalty_alpha=0.3, top_k=8, max_new_tokens=60, repetition_penalty=1.2),
        ],
        "dola": [
            case(king, dola_layers="high", max_new_tokens=60, repetition_penalty=1.2, eos_token_id=None),
            case(sea, dola_layers=[0, 1, 2], max_new_tokens=60, do_sample=True, seed=5),
        ],
    }


def main() -> None:
    """Draw the settings, run them, write the file."""
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    Scores.record()
    built: dict[int | str, Any] = {number: build(model) for number, model in enumerate(MODELS)}
    built["tales"] = transformers.GPT2LMHeadModel.from_pretrained(BUNDLED, attn_implementation="eager").eval()
    longer = on_tales(transformers.AutoTokenizer.from_pretrained(BUNDLED))
    golden: Case = {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    for name, (settings, count) in SEARCHES.items():
        draw, cases = random.Random(name), list[Case]()
        while len(cases) < count:
            number = draw.randrange(len(MODELS))
            case = {"model": number} | settings(draw, MODELS[number])
            cases.append(case | generate(built[number], case))
        golden[name] = cases + [case | generate(built["tales"], case) for case in longer[name]]
        print(name, len(cases))
    lines = [
        f"{json.dumps(name)}: {json.dumps(value) if isinstance(value, str) else listing(value)}"
        for name, value in golden.items()
    ]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(TARGET, TARGET.stat().st_size, "bytes")


def listing(cases: list[Case]) -> str:
    """One case a line."""
    return "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]"


if __name__ == "__main__":
    main()
