"""A model's name → a local folder: the bundled model, a folder, the hub's cache, or a download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT = "tales"
OFFICIAL = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}


def bundled() -> list[str]:
    """The names of the models that ship with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def locate(name: str | Path | None = None) -> Path:
    """The local folder of the model called `name`; None means the bundled one.

    An existing folder wins over a hub id of the same spelling. What the hub's cache already holds is used without
    asking the network; anything else is downloaded by huggingface_hub, with its progress bars, into its cache.
    ``FileNotFoundError`` or ``ConnectionError``, in one line, says what is missing and what can be done.
    """
    if name is None:
        name = DEFAULT
    if str(name) in bundled():
        return BUNDLED / str(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no config.json; a model's folder has one beside its safetensors")
        return folder
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1:
        raise FileNotFoundError(f"there is no folder {text!r}")
    return from_hub(OFFICIAL.get(text, text))


def from_hub(repository: str) -> Path:
    """The folder of a hub repository's files, from the cache when all are there, else downloaded.

    Only what is needed is fetched: ``config.json``, the safetensors (whole, or the index and its shards), and the
    tokenizer (``tokenizer.json``, or ``vocab.json`` and ``merges.txt``).
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    def cached(file: str) -> Path:
        return Path(hf_hub_download(repository, file, local_files_only=True))

    def download(file: str) -> Path:
        return Path(hf_hub_download(repository, file))

    missing = (EntryNotFoundError,)
    try:
        try:
            return collect(cached, (LocalEntryNotFoundError, EntryNotFoundError), repository)
        except FileNotFoundError:
            return collect(download, missing, repository)
    except HFValidationError:
        raise FileNotFoundError(
            f"there is no folder {repository!r}, and a hub id is written OWNER/NAME; the bundled model is {DEFAULT!r}"
        ) from None
    except GatedRepoError:
        raise FileNotFoundError(
            f"{repository} is gated on the hub; accept its terms there and log in with 'hf auth login'"
        ) from None
    except RepositoryNotFoundError:
        raise FileNotFoundError(
            f"there is no folder {repository!r} and no such model on {constants.ENDPOINT}; "
            f"known names: {', '.join([*bundled(), *OFFICIAL])}"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        if type(error) is FileNotFoundError:
            raise
        raise ConnectionError(
            f"{repository} is not in the cache ({constants.HF_HUB_CACHE}) and {constants.ENDPOINT} can't be reached; "
            f"connect to the network, give a local folder, or use the bundled model {DEFAULT!r}"
        ) from None


def collect(fetch: Callable[[str], Path], missing: tuple[type[Exception], ...], repository: str) -> Path:
    """Bring together the files of a model with `fetch`, which raises one of `missing` for a file that isn't there."""

    def absent(error: Exception) -> bool:
        # A lost connection is told apart from a file that the repository lacks: it must not pass for the latter.
        return isinstance(error, missing) and (len(missing) > 1 or type(error).__name__ != "LocalEntryNotFoundError")

    def first(*choices: tuple[str, ...]) -> list[Path]:
        for files in choices:
            try:
                return [fetch(file) for file in files]
            except missing as error:
                if not absent(error):
                    raise
        wanted = " or ".join(" + ".join(files) for files in choices)
        raise FileNotFoundError(f"{repository} has no {wanted}")

    config = first(("config.json",))[0]
    weights = first(("model.safetensors",), ("model.safetensors.index.json",))[0]
    if weights.suffix == ".json":
        shards = sorted(set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values()))
        first(tuple(shards))
    first(("tokenizer.json",), ("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
    return config.parent
