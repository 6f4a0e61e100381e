"""``gpt2-np generate``: continue a prompt."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .constraints import EXAMPLES as CONSTRAINT_EXAMPLES
from .constraints import constraint_options
from .explain import explained, write_trace
from .options import GroupedCommand, grouped, load, model_options
from .plain import dumps
from .progress import compiling
from .samplers import EXAMPLES as SAMPLER_EXAMPLES
from .samplers import sampler_options
from .searches import EXAMPLES as SEARCH_EXAMPLES
from .searches import search_options

SAMPLING, RULES, LENGTH, OUTPUT = "Sampling", "Rules", "Length", "Output"
EXAMPLES = {
    LENGTH: 'gpt2-np generate "One day" --max-new-tokens 100 --stop "\\n"',
    SAMPLING: 'gpt2-np generate "One day" --do-sample --temperature 0.8 --top-p 0.95 --seed 1',
    RULES: 'gpt2-np generate "One day" --no-repeat-ngram-size 3 --repetition-penalty 1.2',
    OUTPUT: 'gpt2-np generate "One day" --json | jq .ids',
    "Model": 'gpt2-np generate "One day" --model gpt2-medium --dtype int8',
}


def numbers(path: Path) -> list[float]:
    """The numbers in a text file, separated by white space."""
    try:
        return [float(word) for word in path.read_text(encoding="utf-8").split()]
    except ValueError as error:
        raise ValueError(f"{path} must hold numbers only: {error}") from None


@click.command(
    cls=GroupedCommand,
    examples=EXAMPLES | SAMPLER_EXAMPLES | SEARCH_EXAMPLES | CONSTRAINT_EXAMPLES,
    short_help="Continue a prompt.",
)
@click.argument("prompt")
@grouped(LENGTH, "-n", "--max-new-tokens", type=int, default=50, show_default=True, help="How many tokens at most.")
@grouped(LENGTH, "--min-new-tokens", type=int, help="No end-of-text before so many.")
@grouped(
    LENGTH,
    "--stop",
    "--stop-strings",
    "stop_strings",
    multiple=True,
    metavar="TEXT",
    help="End once this was written; repeatable.",
)
@grouped(LENGTH, "--max-time", type=float, metavar="SECONDS", help="End after so many seconds.")
@grouped(SAMPLING, "--do-sample", is_flag=True, help="Draw each token at random instead of taking the best.")
@grouped(SAMPLING, "--seed", type=int, help="The same text as torch.manual_seed(SEED) gives.")
@grouped(SAMPLING, "--rng", type=click.Choice(["cpu", "cuda"]), help="Whose random stream.  [default: cpu]")
@grouped(SAMPLING, "--cuda-multiprocessors", type=int, help="Of the device whose stream it is.  [default: 132]")
@grouped(
    SAMPLING,
    "--uniforms",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw with the numbers in this file, one in [0, 1) a token.",
)
@grouped(SAMPLING, "--temperature", type=float, help="Below 1 sharpens the distribution, above 1 flattens it.")
@grouped(SAMPLING, "--top-k", type=int, help="Only the k best tokens.")
@grouped(SAMPLING, "--top-p", type=float, help="Only the smallest set of tokens with more than this probability.")
@grouped(SAMPLING, "--min-p", type=float, help="Only tokens at least this many times as likely as the best.")
@grouped(SAMPLING, "--typical-p", type=float, help="Tokens of typical surprise, up to this probability.")
@grouped(SAMPLING, "--epsilon-cutoff", type=float, help="Only tokens at least this likely.")
@grouped(SAMPLING, "--eta-cutoff", type=float, help="As epsilon, lower where the entropy is high.")
@grouped(SAMPLING, "--top-h", type=float, help="The best tokens, up to this share of the entropy.")
@grouped(
    SAMPLING, "--generation-config", is_flag=True, help="Settings of generation_config.json for options not given."
)
@grouped(SAMPLING, "--num-return-sequences", type=int, help="How many texts.  [default: 1]")
@sampler_options
@search_options
@constraint_options
@grouped(RULES, "--repetition-penalty", type=float, help="Above 1: what occurred becomes less likely.")
@grouped(RULES, "--presence-penalty", type=float, help="Subtracted once for a token generated before.")
@grouped(RULES, "--frequency-penalty", type=float, help="Subtracted for each time a token was generated.")
@grouped(RULES, "--no-repeat-ngram-size", type=int, help="No sequence of so many tokens comes twice.")
@grouped(OUTPUT, "--json", "as_json", is_flag=True, help="One JSON object a line and nothing else.")
@grouped(OUTPUT, "--explain", is_flag=True, help="Show step by step which processor removed how much, or the beams.")
@grouped(
    OUTPUT,
    "--trace",
    "trace_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the same as JSON, one object a step.",
)
@model_options
def generate(
    prompt: str,
    model: str,
    dtype: str,
    backend: str,
    device: str | None,
    as_json: bool,
    stop_strings: tuple[str, ...],
    explain: bool,
    trace_file: Path | None,
    **options: Any,
) -> None:
    """Continue PROMPT. Greedy unless --do-sample or --num-beams says otherwise; the text streams to a terminal."""
    chosen = {name: value for name, value in options.items() if value is not None and value != ()}
    if options["generation_config"]:  # its settings give way to what was typed, not to defaults
        source = click.get_current_context().get_parameter_source
        chosen = {name: value for name, value in chosen.items() if source(name) is not ParameterSource.DEFAULT}
    if "uniforms" in chosen:
        chosen["uniforms"] = numbers(chosen["uniforms"])
    if stop_strings:
        chosen["stop_strings"] = stop_strings
    gpt2 = load(model, dtype, backend, device)
    assistant_dtype = chosen.pop("assistant_dtype", None)
    if "assistant_model" in chosen:
        chosen["assistant_model"] = load(chosen["assistant_model"], assistant_dtype or "float32", backend, device)
    elif assistant_dtype is not None:
        raise ValueError("--assistant-dtype needs --assistant-model; give it too, or leave --assistant-dtype out")
    _, checked = gpt2.options(chosen)
    compiling(gpt2)
    if as_json and explain:
        raise ValueError("--explain prints a table, --json nothing but JSON; write the steps with --trace FILE instead")
    if as_json or explain or trace_file is not None or not checked.streams:
        trace: list[Any] | None = [] if explain or trace_file is not None else None
        written = gpt2.generate(prompt, trace=trace, **chosen)
        if trace_file is not None and trace is not None:
            write_trace(trace_file, trace, gpt2)
        several = written if isinstance(written, list) else [written]
        for number, one in enumerate(several, 1):
            if as_json:
                fields = {
                    "prompt": prompt,
                    "text": one.text,
                    "ids": one.ids,
                    "logprobs": one.logprobs,
                    "finish_reason": one.finish_reason,
                }
                if one.score is not None:
                    fields["score"] = one.score
                if one.assistance is not None:
                    fields["assistance"] = asdict(one.assistance)
                print(dumps(fields))
            else:
                if len(several) > 1:
                    score = "" if one.score is None else f", score {one.score:.4f}"
                    print(f"[{number}{score}]")
                print(prompt + one.text)
        if explain and trace is not None:
            print(f"\n{explained(trace, gpt2)}")
        return
    pieces = gpt2.stream(prompt, **chosen)  # refuses what can't be, before anything is printed
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    sys.stdout.flush()
