"""From a model's name to a local folder: the bundled model, a folder, the hub's cache, or a download."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..system.files import shards
from .other_weights import instead

BUNDLED = Path(__file__).parents[1] / "bundled"
DEFAULT = "tales"
OFFICIAL = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
# Further files of a model's folder: special tokens and generation settings. Each may be missing.
EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json")


def bundled() -> list[str]:
    """List the names of the models that ship with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def locate(name: str | Path | None = None) -> Path:
    """The local folder of the model called `name`; None means the bundled one.

    An existing folder takes precedence over a hub id of the same spelling. Files in the hub's cache are used without
    asking the network; everything else is downloaded by huggingface_hub, with its progress bars, into its cache.
    ``FileNotFoundError`` or ``ConnectionError``, in one line, says what is missing and what can be done.
    """
    if name is None:
        name = DEFAULT
    if str(name) in bundled():
        return BUNDLED / str(name)
    if not str(name):
        raise ValueError("a model's name must not be empty")
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # ~somebody who doesn't exist
        raise FileNotFoundError(f"there is no folder {str(name)!r}") from None
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            more = "" if (folder / "model.safetensors").is_file() else f"; {instead(folder)}"
            raise FileNotFoundError(
                f"{folder} holds no config.json; a model's folder has one beside its safetensors{more}"
            )
        return folder
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1:
        raise FileNotFoundError(f"there is no folder {text!r}")
    return from_hub(OFFICIAL.get(text, text))


def from_hub(repository: str) -> Path:
    """Return the folder of a hub repository's files, from the cache if they are all there, else downloaded.

    Only the needed files are fetched: ``config.json``, the safetensors (one file, or the index and its shards), the
    tokenizer (``tokenizer.json``, or ``vocab.json`` and ``merges.txt``), and those of `EXTRAS` that exist. If the cache
    doesn't know whether one of these exists, the hub is asked, and the cache is used as it is if the hub doesn't
    answer.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError:
        raise FileNotFoundError(
            f"there is no folder {repository!r}, and a model from the hub needs huggingface_hub: "
            "pip install huggingface_hub"
        ) from None
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def cached(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, file, local_files_only=True))
        except LocalEntryNotFoundError:
            return None

    def download(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError:  # a lost connection, which must not pass for a file that isn't there
            raise
        except EntryNotFoundError:
            return None

    def ask() -> None:
        """Once: the download itself would try to connect for half a minute before it gave up."""
        get_hf_file_metadata(hf_hub_url(repository, "config.json"))

    try:
        folder, _ = collect(cached)
        if folder is None:
            ask()
            folder, missing = collect(download)
            for file in EXTRAS:
                download(file)
        elif unknown := [file for file in EXTRAS if try_to_load_from_cache(repository, file) is None]:
            with suppress(Exception):  # nobody answers
                ask()
                for file in unknown:
                    download(file)
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
    except LocalEntryNotFoundError:
        raise unreachable(repository) from None
    except EntryNotFoundError:
        folder, missing = None, "config.json"
    except ValueError:  # a broken index
        raise
    except Exception as error:  # whatever the HTTP library of the day raises when nobody answers
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise  # a full disk, a cache that may not be written
        raise unreachable(repository) from None
    if folder is None:
        raise FileNotFoundError(f"{repository} has no {missing}")
    return folder


def unreachable(repository: str) -> ConnectionError:
    """Return the error for a model that is neither cached nor reachable."""
    from huggingface_hub import constants

    return ConnectionError(
        f"{repository} is not in the cache ({constants.HF_HUB_CACHE}) and {constants.ENDPOINT} can't be reached; "
        f"connect to the network, give a local folder, or use the bundled model {DEFAULT!r}"
    )


def collect(fetch: Callable[[str], Path | None]) -> tuple[Path | None, str]:
    """Collect a model's files with `fetch`, which returns None for a file that doesn't exist.

    Returns (their folder, "") or (None, what is missing).
    """
    config = fetch("config.json")
    if config is None:
        return None, "config.json"
    if fetch("model.safetensors") is None:
        index = fetch("model.safetensors.index.json")
        if index is None:
            return None, "model.safetensors or model.safetensors.index.json"
        for shard in shards(index):
            if fetch(shard) is None:
                return None, shard
    choices = [("tokenizer.json",), ("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")]
    if not any(all(fetch(file) is not None for file in files) for files in choices):
        return None, " or ".join(" + ".join(files) for files in choices)
    return config.parent, ""
