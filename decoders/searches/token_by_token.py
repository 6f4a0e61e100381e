"""The decoding loop (feed, process, choose, report) for greedy decoding and every kind of sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..base.errors import require
from ..base.given import given
from ..base.interface import Array, Token, log_softmax
from ..base.method import Cost, Documentation, Method, Option
from ..base.readable import Readable
from ..base.task import Task
from ..base.value_types import FLAG, ID_OR_IDS, NAME, NUMBER, NUMBERS, SEED, WHOLE
from ..processors import pipeline

MOST_TEXTS = 2**16  # texts of one prompt; more are a typing error, and would fill the memory before the first token
STREAM = "torch's CPU stream takes 100,514 draws a token from its Mersenne Twister"
PHILOX = "Philox's ten rounds for each of 50,257 tokens, which a GPU computes side by side"


class Step(NamedTuple):
    """The result of one pass of the model: a token for each row that was growing, and the places of those that go
    on.
    """

    tokens: list[Token]
    staying: list[int]


class Rows(Readable):
    """A task's texts as they grow, one step at a time: whoever runs the model gives the logits, and feeds `newest`.

    Rows are the prompts, each ``task.copies`` times, side by side; ``growing`` are the numbers of those that haven't
    ended. `own` gives the model's own logits where those of the steps are others.
    """

    def __init__(self, task: Task, own: Callable[[], Array] | None = None) -> None:
        self.task, self.own = task, own
        self.chains = [prompt.chain(()) for prompt in task.prompts]
        self.texts = [list(prompt.ids) for prompt in task.prompts for _ in range(task.copies)]
        self.growing = list(range(len(self.texts)))

    def step(self, logits: Array) -> Step:
        """Choose a token for each growing row from its (V,) logits; a row ends as `token_by_token` says."""
        task, texts, copies = self.task, self.texts, self.task.copies
        changes, watch = task.watch(len(self.growing))
        owners = [(row // copies, texts[row]) for row in self.growing]
        scores = pipeline.side_by_side(self.chains, owners, logits, watch)
        chosen = task.choose(scores, self.growing, len(texts))
        model = logits if self.own is None else self.own()
        logprobs, late = log_softmax(model), task.late()
        done = Step([], [])
        for place, (row, token) in enumerate(zip(self.growing, chosen.tolist(), strict=True)):
            prompt = task.prompts[row // copies]
            texts[row].append(token)
            new = texts[row][len(prompt.ids) :]
            reason = task.finish_reason(prompt, new, late)
            if reason is None:
                done.staying.append(place)
            done.tokens.append(
                task.token(row, len(new), token, model[place], logprobs[place], scores[place], changes[place], reason)
            )
        self.growing = [self.growing[place] for place in done.staying]
        return done

    @property
    def newest(self) -> list[list[int]]:
        """The last id of each growing row, which the model must be fed next."""
        return [self.texts[row][-1:] for row in self.growing]


def token_by_token(task: Task, own: Callable[[], Array] | None = None) -> Iterator[Token]:
    """Each new id of each row as it is chosen: greedy decoding, or sampling where the task says so.

    Rows are the prompts, each ``task.copies`` times, side by side. A row ends with an end-of-text or a ``stopping``
    callable ("stop"), or where its room ends ("length"); it is then no longer fed, but the random stream still draws
    for it, as torch does, until all have ended. `own` gives the model's own logits where the stepper's are others.
    """
    rows = Rows(task, own)
    logits = task.feed_prompts(task.copies)
    while rows.growing:
        step = rows.step(logits)
        yield from step.tokens
        if step.staying and len(step.staying) < len(step.tokens):
            task.stepper.reorder(step.staying)
        if step.staying:
            logits = task.stepper.feed(rows.newest)


def check(options: Any) -> None:
    """Refuse options that can't be combined with the draws, and several texts if nothing is drawn."""
    o = options
    if o.cuda_multiprocessors is not None and o.rng != "cuda":
        raise ValueError("cuda_multiprocessors needs rng='cuda'; give it too, or leave cuda_multiprocessors out")
    if o.uniforms is not None:
        outside = [one for one in o.uniforms if not 0 <= one < 1]
        require(not outside, "uniforms must be in [0, 1)", *outside[:1] or [None])
        drawn = ["rng", "cuda_multiprocessors"]
        for name in drawn if given(o, "xtc_probability") else ["seed", *drawn]:
            if given(o, name):
                raise ValueError(f"uniforms are the draws themselves; leave {name} out")
    single = not o.do_sample and o.num_beams == 1 and not o.exhaustive
    if single and o.num_return_sequences > 1:
        raise ValueError(
            f"greedy decoding gives one sequence, got num_return_sequences "
            f"{o.num_return_sequences}; give do_sample or num_beams"
        )


METHODS = (
    Method(
        "token by token",
        options=(
            Option(
                "max_new_tokens",
                WHOLE,
                50,
                interval="[1, inf)",
                group="Length",
                flag="-n/--max-new-tokens",
                help="Generate at most this many new tokens.",
            ),
            Option(
                "max_length",
                WHOLE,
                interval="[1, inf)",
                group="Length",
                help="The greatest length of prompt and text together; -n takes precedence.",
            ),
            Option(
                "max_time",
                NUMBER,
                interval="(0, inf]",
                group="Length",
                metavar="SECONDS",
                help="End after this many seconds.",
            ),
            Option("eos_token_id", ID_OR_IDS, help="The id, or ids, that end a text."),
            Option(
                "do_sample", FLAG, False, group="Sampling", help="Sample each token instead of taking the likeliest."
            ),
            Option(
                "seed",
                SEED,
                converted=lambda seed: seed % 2**64,
                only="sampling",
                group="Sampling",
                help="The seed of the random stream: the text is that of transformers after torch.manual_seed(SEED).",
            ),
            Option(
                "rng",
                NAME,
                "cpu",
                choices=("cpu", "cuda"),
                only="sampling",
                group="Sampling",
                help="Use torch's random stream of this device.",
            ),
            Option(
                "cuda_multiprocessors",
                WHOLE,
                otherwise=132,
                interval="[1, inf)",
                only="sampling",
                group="Sampling",
                help="The number of multiprocessors of the CUDA device, on which its random stream depends.",
            ),
            Option(
                "uniforms",
                NUMBERS,
                only="sampling",
                group="Sampling",
                metavar="FILE",
                help="Draw with the numbers in this file: one in [0, 1) for each token.",
            ),
            Option(
                "num_return_sequences",
                WHOLE,
                1,
                interval=f"[1, {MOST_TEXTS}]",
                group="Sampling",
                help="How many texts are returned for each prompt.",
            ),
            Option("output_scores", FLAG, False, help="Return the scores from which each token was chosen."),
            Option(
                "top_logprobs",
                WHOLE,
                0,
                interval="[0, inf)",
                help="Return this many of the likeliest tokens at each position.",
            ),
        ),
        run=token_by_token,
        asked=(),  # it runs where nothing else is asked for
        streams=True,
        with_profiles=True,
        check=check,
        documentation=(
            Documentation(
                "greedy",
                what="The likeliest token is taken at every step.",
                formula=r"\arg\max_i p_i",
                source="",
                when="For short factual answers and parity checks. Long texts tend to loop.",
                example={},
            ),
            Documentation(
                "sampling",
                what="Each token is sampled; a seed gives the tokens that torch samples with it.",
                formula=r"\arg\max_i p_i / q_i,\; q_i \sim \text{Exp}(1)",
                source="torch, `multinomial`",
                when="For open-ended text, together with the samplers above.",
                example={"temperature": 0.8, "top_p": 0.95},
                random=True,
            ),
        ),
        costs=(
            Cost({}, title="greedy"),
            Cost({"do_sample": True}, title="do_sample", reason=STREAM),
            Cost({"do_sample": True, "rng": "cuda"}, title="do_sample, rng cuda", reason=PHILOX),
            Cost(
                {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95},
                title="temperature 0.8, top-k 50, top-p 0.95",
                reason=STREAM,
            ),
            Cost(
                {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95, "rng": "cuda"},
                title="the same, rng cuda",
            ),
            Cost({"do_sample": True, "profile": "llama.cpp"}, title="profile llama.cpp", reason=STREAM),
            Cost(
                {"do_sample": True, "profile": "llama.cpp", "top_logprobs": 10},
                title="the same, 10 alternatives listed",
                reason=STREAM,
            ),
        ),
        trials={"greedy": {}, "sampling": {"do_sample": True, "seed": 1, "top_p": 0.9}},
    ),
)
