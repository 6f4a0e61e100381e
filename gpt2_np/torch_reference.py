"""The reference: transformers' ``GPT2LMHeadModel`` on torch, behind our interface. The only file that imports torch.

float32 with TF32 off and eager attention, or float64, on the CPU or a CUDA device. `TorchModel` is a `Model` whose
numbers come from torch, so that our decoders can run on them; `transformers_generate` is transformers' own decoding.
The notebook's algorithms stand at the end, as a notebook writes them: no cache, the whole text at every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, DynamicCache, GenerationConfig, GPT2LMHeadModel
from transformers.utils import logging

from .model.config import Config
from .model.ids import check_vocabulary
from .model.taps import Tap, no_tap
from .session.model import Model
from .session.rows import Session
from .weights import hub
from .weights import load as weights

Array = np.ndarray
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchModel(Model):
    """A model whose forward pass is transformers' on torch; everything else is as in `Model`."""

    torch_model: GPT2LMHeadModel
    device: str
    own_settings: GenerationConfig  # as transformers read them from the folder

    @classmethod
    def load(cls, name: str | Path | None, *, dtype: str = "float32", device: str = "cpu") -> Any:
        """Load by the same names as `Model.from_pretrained`; ``ValueError`` for a device that isn't there."""
        if dtype not in DTYPES:
            raise ValueError(f"dtype on torch must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda is not there: torch sees no CUDA device")
        folder = hub.locate(name)
        config = Config.from_file(folder / "config.json")
        model = cls(weights.load(folder, config), config, folder=folder, backend="numpy")
        model.torch_model, model.device = load_torch(folder, dtype, device), device
        model.own_settings = copy.deepcopy(model.torch_model.generation_config)
        model.backend = "torch"
        return model

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64: what torch computes in."""
        return np.dtype(str(self.torch_model.dtype).removeprefix("torch."))

    def forward(
        self,
        ids: Array,
        *,
        cache: Any = None,
        tap: Tap = no_tap,
        token_type_ids: Array | None = None,
        last_only: bool = False,
    ) -> Array:
        """As `Model.forward`. `cache` is a torch cache; activations can't be tapped here."""
        if tap is not no_tap:
            raise ValueError("activations are captured and edited on --backend numpy, not on torch")
        check_vocabulary(ids, self.config)
        extra = {} if token_type_ids is None else {"token_type_ids": self._tensor(token_type_ids)}
        with torch.inference_mode():
            out = self.torch_model(
                self._tensor(ids), cache, use_cache=cache is not None, logits_to_keep=int(last_only), **extra
            )
        return out.logits.cpu().numpy()

    def activations(self, ids: Array) -> tuple[Array, dict[str, Array]]:
        """The logits, and by TransformerLens's names what transformers shows: residual streams and patterns."""
        with torch.inference_mode():
            out = self.torch_model(self._tensor(np.atleast_2d(ids)), output_hidden_states=True, output_attentions=True)
        found = {f"blocks.{layer}.resid_pre": x.cpu().numpy() for layer, x in enumerate(out.hidden_states[:-1])}
        found |= {f"blocks.{layer}.attn.pattern": x.cpu().numpy() for layer, x in enumerate(out.attentions)}
        return out.logits.cpu().numpy(), found

    def unembed(self, x: Array) -> Array:
        """The logits of residual streams as they are, by torch: (…, D) → (…, V)."""
        with torch.inference_mode():
            return self.torch_model.lm_head(self._tensor(x)).cpu().numpy()

    def check_logits(self, logits: Array, ids: Array, **about: Any) -> None:
        """As `Model.check_logits`, which here can't name the layer."""
        super().check_logits(logits, ids, again=False)

    def start(self, *, capacity: int | None = None, tap: Tap = no_tap) -> TorchSession:
        """A session on torch: the same steps, torch's logits."""
        return TorchSession(self, self.config.n_positions if capacity is None else capacity, tap)

    def transformers_generate(self, prompt: Sequence[int], seed: int = 0, **options: Any) -> list[list[int]]:
        """What transformers' own ``generate`` adds to a prompt, one list of ids for each returned sequence.

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
        """How many multiprocessors the CUDA device has, which its random stream depends on; None on the CPU."""
        return torch.cuda.get_device_properties(0).multi_processor_count if self.device == "cuda" else None

    def _tensor(self, ids: Array) -> torch.Tensor:
        return torch.tensor(np.asarray(ids), device=self.device)


class TorchSession(Session):
    """Rows in progress on torch's own cache. Rows of different lengths keep caches of their own."""

    def __init__(self, model: TorchModel, capacity: int, tap: Tap = no_tap) -> None:
        super().__init__(model, capacity, tap)
        self.model: TorchModel = model
        self.caches: list[DynamicCache] = []
        self.texts: list[list[int]] = []

    def _observe(
        self, ids: Sequence[Sequence[int]] | Array, names: Sequence[str], last_only: bool
    ) -> tuple[Array, list[list[Array]]]:
        """As in `Session`, for the points that transformers shows: residual streams and the final norm's output."""
        logits, seen = [], []
        self._start(len(ids))
        for row, cache in zip(ids, self.caches, strict=True):
            with torch.inference_mode():
                tokens = self.model._tensor(np.asarray(row, np.int64)[None])
                out = self.model.torch_model(tokens, cache, use_cache=True, output_hidden_states=True)
            states = {f"blocks.{layer}.resid_pre": x for layer, x in enumerate(out.hidden_states[:-1])}
            states["ln_final.out"] = out.hidden_states[-1]
            logits.append(out.logits[0, -1].cpu().numpy())
            seen.append([states[name][0].cpu().numpy() for name in names])
        found = np.stack(logits)
        self.model.check_logits(found, np.empty((len(found), 0), np.int64))
        return found, [list(rows) for rows in zip(*seen, strict=True)]

    def _start(self, rows: int) -> None:
        if not self.caches:
            self.caches = [DynamicCache() for _ in range(rows)]

    def _advance(self, ids: Sequence[Sequence[int]] | Array, last_only: bool, watch: Tap = no_tap) -> list[Array]:
        rows = [np.asarray(row, np.int64) for row in ids]
        self._start(len(rows))
        found = []
        for row, cache in zip(rows, self.caches, strict=True):
            found.append(self.model.forward(row[None], cache=cache, last_only=last_only))
            self.model.check_logits(found[-1], row[None])
        return found

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """New row i continues old row ``rows[i]``."""
        self.caches = [copy.deepcopy(self.caches[int(row)]) for row in rows]

    def rewind(self, counts: Sequence[int] | Array | int) -> None:
        """Forget each row's last ``counts[row]`` ids."""
        for cache, count in zip(self.caches, np.broadcast_to(counts, len(self.caches)), strict=True):
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
