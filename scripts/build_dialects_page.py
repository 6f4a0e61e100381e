"""Write docs/decoding/dialects.md: where two engines differ on the same row of scores.

    python scripts/build_dialects_page.py

The page is computed by the profiles of `decoders`, which are checked against the engines' functions or sources.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from decoders import Options, methods
from decoders.generate import chain
from decoders.processors.pipeline import apply

PAGE = Path(__file__).parent.parent / "docs" / "decoding" / "dialects.md"
P = (0.4, 0.3, 0.2, 0.1)
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}  # so that no engine's defaults act


class Row(NamedTuple):
    """The question for every engine: options, the scores of tokens a, b, c, …, the text, and how much is prompt."""

    title: str
    options: dict[str, Any]
    scores: tuple[float, ...] = tuple(np.log(P).tolist())
    text: tuple[int, ...] = (0,)
    prompt: int = 1
    defaults: bool = False


ROWS = (
    Row("top_k 2, and three tokens tie", {"top_k": 2}, (1.0, 2.0, 2.0, 2.0)),
    Row("top_p 0.6", {"top_p": 0.6}),
    Row("top_p 0.7, which the best two reach exactly", {"top_p": 0.7}),
    Row("temperature 2 and top_p 0.65", {"temperature": 2.0, "top_p": 0.65}),
    Row("temperature 0.5 and min_p 0.3", {"temperature": 0.5, "min_p": 0.3}),
    Row("top_k 3 and top_p 0.5", {"top_k": 3, "top_p": 0.5}),
    Row("min_p 0.6 and top_p 0.95", {"min_p": 0.6, "top_p": 0.95}),
    Row("what an engine does by itself", {}, defaults=True),
    Row("presence_penalty 0.5 on a, of the prompt", {"presence_penalty": 0.5}, text=(0, 1), prompt=1),
)


def told(profile: str | None, row: Row) -> str:
    """Describe an engine's result: the shares of the tokens that are kept, or why it can't be asked."""
    accepted = methods.PROCESSORS if profile is None else methods.profile(profile).order
    off = {} if row.defaults else {name: value for name, value in OFF.items() if name in accepted}
    asked = {**off, **row.options} | ({} if profile is None else {"profile": profile})
    try:
        options = Options(do_sample=True, **{name: value for name, value in asked.items() if value != OFF.get(name)})
        options = Options(do_sample=True, **asked) if profile is not None else options
    except ValueError:
        return "—"
    text = [np.array(row.text)]
    out = apply(chain(options, 0, row.prompt, 9), text, np.array([row.scores], np.float32))[0].astype(np.float64)
    p = np.exp(out - out.max())
    p /= p.sum()
    return " ".join(
        f"{letter} {share:.2f}".replace("0.", ".") for letter, share in zip("abcd", p, strict=True) if share
    )


def table() -> str:
    """The table."""
    engines: list[str | None] = [None, *methods.PROFILES]
    lines = ["| | " + " | ".join(name or "transformers" for name in engines) + " |", "|---" * (len(engines) + 1) + "|"]
    lines += [f"| {row.title} | " + " | ".join(told(name, row) for name in engines) + " |" for row in ROWS]
    return "\n".join(lines)


INTRO = """# Where engines part on the same row

Options of the same name don't mean the same everywhere. Four tokens, a to d, of which the model says .4, .3, .2 and .1
(where nothing else is said, and all but the options named switched off): what each engine leaves of them to draw from,
by `profile=`. "—": the engine hasn't got that, or its range is another.

Checked against llama.cpp's and mlx-lm's own functions on recorded rows and against transformers' classes.
CTranslate2's, vLLM's, ExLlamaV3's and KoboldCpp's are read from their sources and were never run beside the engines.

"""
NOTES = """

- **Ties.** transformers, vLLM and ExLlamaV3 keep all that tie with the k-th; llama.cpp, CTranslate2, mlx-lm and
  KoboldCpp keep exactly k, of equals the first.
- **The token that crosses p** stays in all but ExLlamaV3, which keeps no more than p.
- **Order.** llama.cpp, mlx-lm and KoboldCpp cut first and apply the temperature last; transformers, vLLM and ExLlamaV3
  apply it first; CTranslate2 cuts to k before it and to p behind it.
- **Windows.** Presence and frequency penalties look at the new text in vLLM (and in OpenAI's API, which ours without a
  profile follow), at the prompt too in the others: all of it in ExLlamaV3, the last 64, 20 and 320 ids in llama.cpp,
  mlx-lm and KoboldCpp.
- **Defaults** when sampling: llama.cpp top_k 40, top_p .95, min_p .05, temperature .8; KoboldCpp top_k 100, top_p .92,
  temperature .7; CTranslate2 top_k 1; the others none (a server of vLLM takes those of generation_config.json).

`python scripts/build_dialects_page.py` writes this page.
"""


def main() -> None:
    PAGE.write_text(INTRO + table() + NOTES, encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
