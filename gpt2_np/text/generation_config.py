"""``generation_config.json``: which ids end a text, and settings that are used only on request.

As in transformers, this file alone says how texts begin and end if it exists; ``config.json`` counts only without it.
Its other settings are options of `decoders.Options` by the same names, for ``generation_config=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decoders import methods

from ..model.config import Config
from ..system.files import read_object

FILE = "generation_config.json"
MARKS = ("bos_token_id", "eos_token_id", "pad_token_id")
OPTIONS = {*methods.OPTIONS, "stop_strings"}
# Only the caller says how many texts are returned, and gives what no file can hold.
NOT_FROM_FILE = {
    "num_return_sequences",
    "assistant_model",
    "unconditional",
    "first_layers",
    "constraint",
    "seed",
    "uniforms",
    *MARKS,
}
# Settings of transformers that change a text and aren't supported here, with the value that switches them off.
UNSUPPORTED: dict[str, Any] = {"constraints": None}
# Values that switch a setting off in transformers and are no valid value here.
OFF: dict[str, Any] = {"prompt_lookup_num_tokens": 0}
# These act only in beam search without `Option.only` saying so: their methods refuse them in their own words.
AMONG_BEAMS = ("num_beam_groups", "diversity_penalty")


def read(folder: Path | None, config: Config) -> dict[str, Any]:
    """Read the settings of a model's folder and check the ids of `MARKS`.

    Where there is no ``generation_config.json``, `config` has the ids and ``config.json`` may hold the settings, as
    old checkpoints do. ``ValueError`` names the file when it is broken.
    """
    ids = {name: getattr(config, name) for name in MARKS}
    if folder is None:
        return ids
    if not (folder / FILE).is_file():
        older = read_object(folder / "config.json") if (folder / "config.json").is_file() else {}
        return {name: value for name, value in older.items() if name in OPTIONS} | ids
    fields = read_object(folder / FILE)
    for name in MARKS:
        value = fields.get(name)
        several = value if isinstance(value, list) and name == "eos_token_id" else [] if value is None else [value]
        if any(isinstance(one, bool) or not isinstance(one, int) for one in several):
            raise ValueError(f"{folder / FILE}: {name} must be a token id, got {value!r:.100}")
    return fields


def ends(fields: Mapping[str, Any], vocab_size: int) -> tuple[int, ...]:
    """Return every id that ends a text, of those that the model has."""
    eos = fields.get("eos_token_id")
    several = eos if isinstance(eos, (list, tuple)) else [] if eos is None else [eos]
    return tuple(token for token in several if 0 <= token < vocab_size)


def start(fields: Mapping[str, Any], config: Config) -> int | None:
    """Return the id that an empty prompt starts from: the first of these that is set, or None."""
    eos = fields.get("eos_token_id")
    several = [fields.get("bos_token_id"), config.bos_token_id, *(eos if isinstance(eos, (list, tuple)) else [eos])]
    return next((token for token in [*several, *config.eos_token_ids] if token is not None), None)


def settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a file's fields that are options here and are switched on. Fields that change no text are left
    out.
    """
    return {
        name: value for name, value in fields.items() if name in OPTIONS - NOT_FROM_FILE and not is_off(name, value)
    }


def is_off(name: str, value: Any) -> bool:
    """Tell whether a setting's value means that it is switched off."""
    if value in (None, [], {}) or value == OFF.get(name):
        return True
    return name in methods.OPTIONS and methods.option(name).means_off(value)


def asked(fields: Mapping[str, Any], names: Mapping[str, Any], longest: int = 0) -> dict[str, Any]:
    """Merge the file's settings into options by name, with lower priority, if ``generation_config`` among them asks for
    it.

    `longest` is the length of the longest prompt, which ``max_length`` counts. The file's settings for sampling or
    beams are left out if the text isn't sampled or there are no beams. ``ValueError`` for a setting that is not
    supported.
    """
    names = dict(names)
    wanted = names.pop("generation_config", False)
    if not isinstance(wanted, bool):
        raise ValueError(f"generation_config must be True or False, got {wanted!r:.100}")
    if not wanted:
        return names
    for name, off in UNSUPPORTED.items():
        if fields.get(name) not in (None, off):
            raise ValueError(f"{FILE}: {name} is not supported, got {fields[name]!r:.100}; give the options instead")
    below = settings(fields)
    length = below.pop("max_length", None)
    if length is not None and not {"max_new_tokens", "max_length"} & {*names, *below}:
        if isinstance(length, bool) or not isinstance(length, int) or length <= longest:
            raise ValueError(
                f"{FILE}: max_length must be a whole number above the prompt's length ({longest}), "
                f"got {length!r:.100}; or give max_new_tokens"
            )
        below["max_new_tokens"] = length - longest
    return acting(below | names) | names


def acting(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some options that take effect together: those of sampling only if the text is sampled, and so on.

    This is for requests in transformers' manner, where options without an effect are ignored.
    """
    given = frozenset(name for name, value in names.items() if name in methods.OPTIONS and value is not None)
    return {name: value for name, value in names.items() if acts(name, names, given)}


def acts(name: str, both: Mapping[str, Any], given: frozenset[str]) -> bool:
    """Tell whether a setting of the file takes effect beside all others; `given` are those that are decoding
    options.
    """
    if name not in methods.OPTIONS:
        return True
    needed = methods.option(name).needs
    if needed and given.isdisjoint(needed):
        return False
    if any(name in method.takes for method in methods.asked_for(given)):
        return True
    only = "beams" if name in AMONG_BEAMS else methods.only(name)
    return not (
        (only == "sampling" and not both.get("do_sample")) or (only == "beams" and both.get("num_beams", 1) == 1)
    )
