"""The locations of dictionaries: SAELens's releases for GPT-2 as data, the hub, and the bundled dictionary.

``releases.json`` is written by ``scripts/write_releases.py`` from SAELens's own list, which it names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ...model.taps import nearest as most_alike
from ...weights import hub

FILES = ("cfg.json", "sae_weights.safetensors")
LISTED = Path(__file__).with_name("releases.json")
BUNDLED = {"tales": hub.BUNDLED / "tales" / "dictionary"}


@dataclass(frozen=True)
class Release:
    """A release of dictionaries: a hub repository, and by id the folder of each.

    ``overrides`` take the place of fields of their files; ``factors`` are what activations were multiplied by in
    training. ``pickled`` ones are kept in files that are never opened.
    """

    model: str
    repository: str
    pickled: bool
    paths: Mapping[str, str]
    overrides: dict[str, object]
    factors: Mapping[str, float] = field(default_factory=dict)

    def path(self, sae_id: str) -> str:
        """The folder of an id. ``ValueError`` names the nearest one for an id that isn't there."""
        if sae_id not in self.paths:
            raise ValueError(f"{self.repository} has no {sae_id!r}; the nearest is {most_alike(sae_id, self.paths)!r}")
        return self.paths[sae_id]


@cache
def listed() -> dict[str, Release]:
    """Every release, by SAELens's name."""
    content = json.loads(LISTED.read_text(encoding="utf-8"))
    return {name: Release(**entry) for name, entry in content["releases"].items()}


class Releases(Mapping[str, Release]):
    """`listed`, read when it is first asked."""

    def __getitem__(self, name: str) -> Release:
        return listed()[name]

    def __repr__(self) -> str:
        return f"Releases({len(self)}: {', '.join(listed())})"

    def __iter__(self) -> Iterator[str]:
        return iter(listed())

    def __len__(self) -> int:
        return len(listed())


RELEASES = Releases()


def nearest(name: str) -> str:
    """The release whose name looks most like this one."""
    return most_alike(name, RELEASES)


def from_hub(repository: str, path: str) -> Path:
    """The local folder of a dictionary's two files on the hub, from the cache where they are, else downloaded.

    ``ValueError``, ``FileNotFoundError`` or ``ConnectionError``, in one line, says what is missing.
    """
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise ValueError(f"a dictionary's folder on the hub is a path like blocks.8.hook_resid_pre, got {path!r}")
    names = [f"{path}/{file}" if path else file for file in FILES]
    config, _ = (file_of(repository, name) for name in names)
    return config.parent


def file_of(repository: str, name: str) -> Path:
    """One file of a hub repository: from the cache without asking the network, else downloaded into it."""
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError:
        raise FileNotFoundError(
            f"a dictionary from the hub ({repository}) needs huggingface_hub: pip install huggingface_hub"
        ) from None
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=True))
        except LocalEntryNotFoundError:
            get_hf_file_metadata(hf_hub_url(repository, name))  # the download would try for half a minute
            return Path(hf_hub_download(repository, name))
    except HFValidationError:
        raise FileNotFoundError(f"there is no folder {repository!r}, and a hub id is written OWNER/NAME") from None
    except GatedRepoError:
        raise FileNotFoundError(
            f"{repository} is gated on the hub; accept its terms there and log in with 'hf auth login'"
        ) from None
    except RepositoryNotFoundError:
        raise FileNotFoundError(f"there is no {repository} on {constants.ENDPOINT}") from None
    except LocalEntryNotFoundError:
        raise unreachable(repository, name) from None
    except EntryNotFoundError:
        raise FileNotFoundError(f"{repository} has no {name}") from None
    except Exception as error:  # whatever the HTTP library of the day raises when nobody answers
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise  # a full disk, a cache that may not be written
        raise unreachable(repository, name) from None


def unreachable(repository: str, name: str) -> ConnectionError:
    """The error for a file that is neither cached nor to be had."""
    from huggingface_hub import constants

    return ConnectionError(
        f"{repository}'s {name} is not in the cache ({constants.HF_HUB_CACHE}) and {constants.ENDPOINT} can't be "
        "reached; connect to the network, or give a local folder"
    )
