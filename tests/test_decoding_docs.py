"""The page about decoding shows every option and every strategy, and the cost table leaves nothing out."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from decoders import strategies
from decoders.profiles import LAST, RULES, WARPERS
from gpt2_np import GPT2

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "decoding" / "README.md"
# What another option's entry speaks of, what acts only inside a strategy, and what the constraints' section shows.
ELSEWHERE = {
    "logit_bias",
    "presence_penalty",
    "min_length",
    "min_new_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "prefix_allowed_tokens_fn",
    "diversity_penalty",
    "constraint",
}
ENTRIES = runpy.run_path(str(ROOT / "scripts" / "decoding_entries.py"))
SHOWN = [entry for name in ("WARPERS", "PENALTIES", "SEARCHES") for entry in ENTRIES[name]]


def test_every_option_and_strategy_has_its_entry() -> None:
    titles = {re.split(r"[ ,]", entry.title)[0] for entry in SHOWN}
    assert {*RULES, *WARPERS, *LAST} - ELSEWHERE <= titles
    searches = {entry.title.split(" search")[0].lower() for entry in ENTRIES["SEARCHES"]}
    searches |= {"beam search", "exhaustive"}
    page = PAGE.read_text(encoding="utf-8")
    searches |= {name for name in ("prompt look-up", "draft model") if f"**{name}**" in page}
    for line in (strategies.__doc__ or "").splitlines():
        if "`" in line and "  " in line:
            assert line.split("  ")[0].lower() in searches, line


def test_the_page_holds_every_entry_with_its_picture() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for entry in SHOWN:
        assert f"### {entry.title}\n" in text, f"{entry.title} is missing: run scripts/build_decoding_page.py"
        assert entry.when in text
    pictures = re.findall(r"!\[[^]]+\]\((figures/[^)]+\.png)\)", text)
    assert len(pictures) > 25
    assert {PAGE.parent / name for name in pictures} == set((PAGE.parent / "figures").iterdir())
    assert sum((PAGE.parent / name).stat().st_size for name in pictures) < 1_500_000
    for name in ("constraints", "speculation"):
        assert f"<!-- {name} -->" in text
        assert f"<!-- end of {name} -->" in text


def test_the_calls_on_the_page_write_what_it_shows() -> None:
    model = GPT2.from_pretrained()
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"```python\n(model\.generate\(.*\))\n```\n\n> (.*) \*\*(.*)\*\*", text)
    assert len(found) == len(SHOWN)
    for call, prompt, written in found[::4]:
        out = eval(call, {"model": model})
        assert out.prompt == prompt
        assert " ".join(out.text.split()) == written, call


def test_every_processor_is_in_the_cost_table() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "bench_decoders.py"))
    assert script["missing"]() == []
    rows = list(script["costs"](1))
    assert {row.name for row in rows} >= {*script["CASES"], *script["PROFILES"]}
    table = (PAGE.parent / "cost.md").read_text(encoding="utf-8")
    for row in rows:
        assert f"| {row.name} |" in table, f"{row.name} is missing: run scripts/bench_decoders.py --write"
    assert "**none**" not in table
