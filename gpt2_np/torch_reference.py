"""The reference: transformers' ``GPT2LMHeadModel`` on torch, behind our interface. The only file that imports torch.

float32 with TF32 off and eager attention, or float64, on the CPU or a CUDA device. `TorchReference` computes the
numbers of a `Model` that it is passed to, so that our decoders run on torch's logits; `transformers_generate` is
transformers' own decoding. The notebook's algorithms stand at the end, as a notebook writes them: no cache, the whole
text at every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoTokenizer, DynamicCache, GenerationConfig, GPT2LMHeadModel
from transformers.utils import logging

from .model.arrays import Array
from .model.config import Config
from .model.taps import Tap, no_tap, points
from .weights import hub

if TYPE_CHECKING:
    from .engine.decode_step import Prepared

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchReference:
    """The implementation that computes a model's numbers by transformers' forward pass: a
    `session.implementation.Implementation`.

    ``ValueError`` for a device that isn't there. `name` is what `Model.from_pretrained` takes.
    """

    backend = "torch"
    batch_invariant = False  # torch's products go by the shape
    observable = False  # transformers shows residual streams and attention patterns, and lets nothing be edited

    def __init__(self, name: str | Path | None, *, dtype: str = "float32", device: str = "cpu") -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype on torch must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda is not there: torch sees no CUDA device")
        self.folder, self.device = hub.locate(name), device
        self.config = Config.from_file(self.folder / "config.json")
        self.torch_model = load_torch(self.folder, dtype, device)
        self.own_settings = copy.deepcopy(self.torch_model.generation_config)  # as transformers read them

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64: what torch computes in."""
        return np.dtype(str(self.torch_model.dtype).removeprefix("torch."))

    def new_cache(self, rows: int, capacity: int) -> TorchCache:
        """Empty caches of transformers', one for each row."""
        return TorchCache([DynamicCache() for _ in range(rows)], capacity)

    def prepare(self, cache: TorchCache, shape: tuple[int, int], before: Any) -> None:
        """Nothing is prepared for torch."""

    def forward(
        self,
        ids: Array,
        *,
        cache: TorchCache | None = None,
        tap: Tap = no_tap,
        token_type_ids: Array | None = None,
        last_only: bool = False,
        prepared: Prepared | None = None,
    ) -> Array:
        """As `model.forward.forward`. A tap may watch what transformers shows: ``blocks.*.resid_pre``,
        ``blocks.*.attn.pattern`` and ``ln_final.out``. ``ValueError`` where it wants more, or changes something.
        """
        self.check_tap(tap)
        if cache is None:
            return self.run(ids, None, tap, token_type_ids, last_only)
        kinds = [None] * len(ids) if token_type_ids is None else [row[None] for row in token_type_ids]
        rows = zip(ids, cache.caches, kinds, strict=True)
        # Each row is run alone: rows that started with different lengths have caches of different lengths.
        return np.concatenate([self.run(row[None], inner, tap, kind, last_only) for row, inner, kind in rows])

    def run(
        self, ids: Array, cache: DynamicCache | None, tap: Tap, token_type_ids: Array | None, last_only: bool
    ) -> Array:
        """One call of transformers' model, whose streams and patterns are shown to the tap."""
        extra: dict[str, Any] = {} if token_type_ids is None else {"token_type_ids": self._tensor(token_type_ids)}
        layers = range(self.config.n_layer)
        if any(tap.wants(f"blocks.{layer}.attn.pattern") for layer in layers):
            extra["output_attentions"] = True
        if tap is not no_tap:
            extra["output_hidden_states"] = True
        with torch.inference_mode():
            out = self.torch_model(
                self._tensor(ids), cache, use_cache=cache is not None, logits_to_keep=int(last_only), **extra
            )
        for name, x in self.shown(out):
            if tap.wants(name):
                value = x.cpu().numpy()
                if tap(name, value) is not value:
                    raise ValueError(f"{name} can't be edited on torch; use --backend numpy")
        logits: Array = out.logits.cpu().numpy()
        return logits

    def shown(self, out: Any) -> list[tuple[str, torch.Tensor]]:
        """By TransformerLens's names what transformers shows of a run."""
        found = []
        for layer in range(self.config.n_layer):
            if out.hidden_states is not None:
                found.append((f"blocks.{layer}.resid_pre", out.hidden_states[layer]))
            if out.attentions is not None:
                found.append((f"blocks.{layer}.attn.pattern", out.attentions[layer]))
        return found if out.hidden_states is None else [*found, ("ln_final.out", out.hidden_states[-1])]

    def check_tap(self, tap: Tap) -> None:
        """``ValueError`` names the first activation that a tap wants and transformers doesn't show."""
        if tap is no_tap:
            return
        for name in points(self.config):
            if tap.wants(name) and not name.endswith((".resid_pre", ".attn.pattern")) and name != "ln_final.out":
                raise ValueError(f"{name} is captured and edited on --backend numpy, not on torch")

    def unembed(self, x: Array) -> Array:
        """The logits of residual streams as they are, by torch: (…, D) → (…, V)."""
        with torch.inference_mode():
            logits: Array = self.torch_model.lm_head(self._tensor(x)).cpu().numpy()
        return logits

    def transformers_generate(self, prompt: Sequence[int], seed: int = 0, **options: Any) -> list[list[int]]:
        """Return what transformers' own ``generate`` adds to a prompt, one list of ids for each returned sequence.

        Nothing is on that was not asked for: its top-50 and the model's own settings are off. With
        ``generation_config=True`` the model's own settings are on, as transformers read them.
        """
        torch.manual_seed(seed)
        own = self.own_settings
        settings: dict[str, Any] = {"do_sample": False, "eos_token_id": None}
        if options.pop("generation_config", False):
            settings = {"eos_token_id": own.eos_token_id, "num_return_sequences": 1}
            self.torch_model.generation_config = copy.deepcopy(own)
        else:
            self.torch_model.generation_config, own = GenerationConfig(), GenerationConfig()
        settings |= {"top_k": 0 if own.top_k is None else own.top_k}
        settings |= {"pad_token_id": 0 if own.pad_token_id is None else own.pad_token_id} | options
        ids = self._tensor(np.array([prompt]))
        with torch.inference_mode():
            model: Any = self.torch_model
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        eos = settings["eos_token_id"]
        ends = {eos} if isinstance(eos, int) else {*(eos or ())}
        return [cut(row, ends) for row in out[:, len(prompt) :].tolist()]

    @property
    def transformers_eos(self) -> tuple[int, ...]:
        """The ids that end a text in transformers, of those that the model has."""
        eos = self.own_settings.eos_token_id
        several = [] if eos is None else [eos] if isinstance(eos, int) else eos
        return tuple(token for token in several if 0 <= token < self.config.vocab_size)

    def transformers_ids(self, text: str) -> list[int]:
        """A text's ids by transformers' tokenizer of the same folder."""
        ids: list[int] = AutoTokenizer.from_pretrained(self.folder)(text)["input_ids"]
        return ids

    def notebook(self, name: str, ids: Sequence[int], length: int, seed: int, **settings: Any) -> list[int]:
        """The new ids of one of the notebook's algorithms: "greedy", "temperature", "top-p" or "beam search"."""
        torch.manual_seed(seed)
        if name == "beam search":
            return notebook_beam_search(self.torch_model, ids, length, **settings)
        choices: dict[str, Callable[..., Callable[[torch.Tensor], torch.Tensor]]] = {
            "greedy": lambda: notebook_greedy,
            "temperature": notebook_temperature,
            "top-p": notebook_top_p,
        }
        return notebook_decode(self.torch_model, ids, length, choices[name](**settings))

    @property
    def multiprocessors(self) -> int | None:
        """Return the number of multiprocessors of the CUDA device, on which its random stream depends, or None."""
        return torch.cuda.get_device_properties(0).multi_processor_count if self.device == "cuda" else None

    def _tensor(self, ids: Array) -> torch.Tensor:
        return torch.tensor(np.asarray(ids), device=self.device)


class TorchCache:
    """Rows in progress on transformers' own caches, one for each row, so that rows may have different lengths."""

    def __init__(self, caches: list[DynamicCache], capacity: int) -> None:
        self.caches, self.capacity = caches, capacity

    @property
    def rows(self) -> int:
        """B."""
        return len(self.caches)

    def check_room(self, T: int) -> None:
        """``ValueError`` when T more positions don't fit into the longest row."""
        longest = max((cache.get_seq_length() for cache in self.caches), default=0)
        if longest + T > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, got {longest} + {T}")

    def row(self, row: int) -> TorchCache:
        """A cache of this one row: what is fed to it is remembered here."""
        return TorchCache([self.caches[row]], self.capacity)

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """New row i continues old row ``rows[i]``."""
        self.caches = [copy.deepcopy(self.caches[int(row)]) for row in rows]

    def rewind(self, counts: Sequence[int] | Array | int) -> None:
        """Forget each row's last ``counts[row]`` ids."""
        for cache, count in zip(self.caches, np.broadcast_to(counts, len(self.caches)), strict=True):
            if count:  # to crop 0 from the end would be to crop to 0
                cache.crop(-int(count))


def cut(row: list[int], ends: set[int]) -> list[int]:
    """A row up to its first end-of-text, that one included."""
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row)) + 1]


def load_torch(folder: Path, dtype: str, device: str) -> GPT2LMHeadModel:
    """transformers' model from a folder: eager attention, TF32 off, silent."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=DTYPES[dtype], attn_implementation="eager")
    return model.eval().to(device)


# ---- the notebook's algorithms, as it writes them -------------------------------------------------------------------


@torch.inference_mode()
def notebook_decode(
    model: GPT2LMHeadModel,
    ids: Sequence[int],
    max_length: int,
    choose: Callable[[torch.Tensor], torch.Tensor],
    eos: int | None = None,
) -> list[int]:
    """The new ids: ``choose`` picks each from the (1, V) logits of the whole text."""
    tokens = torch.tensor([list(ids)], device=model.device)
    for _ in range(max_length):
        token = choose(model(tokens).logits[:, -1, :])
        tokens = torch.cat([tokens, token], dim=1)
        if token.item() == eos:
            break
    return tokens[0, len(ids) :].tolist()


def notebook_greedy(logits: torch.Tensor) -> torch.Tensor:
    """``torch.argmax``."""
    return torch.argmax(logits, dim=-1, keepdim=True)


def notebook_temperature(temperature: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """``torch.multinomial`` of softmax(logits / temperature)."""
    return lambda logits: torch.multinomial(torch.softmax(logits / temperature, dim=-1), num_samples=1)


def notebook_top_p(p: float, temperature: float = 1.0) -> Callable[[torch.Tensor], torch.Tensor]:
    """The nucleus by the shift-right mask: the first token that passes `p` stays."""

    def choose(logits: torch.Tensor) -> torch.Tensor:
        logits = logits / temperature
        ordered, indices = torch.sort(logits, descending=True)
        remove = torch.cumsum(torch.softmax(ordered, dim=-1), dim=-1) > p
        remove[..., 1:] = remove[..., :-1].clone()
        remove[..., 0] = False
        logits[remove.scatter(1, indices, remove)] = -float("inf")
        return torch.multinomial(torch.softmax(logits, dim=-1), num_samples=1)

    return choose


@torch.inference_mode()
def notebook_beam_search(
    model: GPT2LMHeadModel, ids: Sequence[int], max_length: int, num_beams: int, eos: int | None = None
) -> list[int]:
    """The list of beams with its ``completed_beams``; the winner by its mean log-probability per new token."""
    beams, completed_beams = [(list(ids), 0.0)], []
    for _ in range(max_length):
        candidates = []
        for text, score in beams:
            logits = model(torch.tensor([text], device=model.device)).logits[0, -1]
            values, tokens = torch.topk(torch.log_softmax(logits.double(), dim=-1), num_beams)
            for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
                candidates.append(([*text, token], score + value))
        best = sorted(candidates, key=lambda beam: -beam[1])[:num_beams]
        completed_beams += [beam for beam in best if beam[0][-1] == eos]
        beams = [beam for beam in best if beam[0][-1] != eos]
        if not beams:
            break
    winner = max(completed_beams + beams, key=lambda beam: beam[1] / (len(beam[0]) - len(ids)))
    return winner[0][len(ids) :]
