"""Names of models: bundled, folders, the cache, and downloads from a stand-in for the hub on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gpt2_np.weights import hub


class StandIn(BaseHTTPRequestHandler):
    """What hf_hub_download asks of a hub: HEAD and GET of OWNER/NAME/resolve/REVISION/FILE, with ranges."""

    folder: Path
    asked: list[tuple[str, str, str | None]]
    instead: Callable[[StandIn], None] | None = None  # what answers for a large file's body
    cut: int | None = None  # the connection breaks once, after so many bytes of a large file

    def answer(self, body: bool) -> None:
        repository, _, file = self.path.partition("/resolve/main/")
        self.asked.append((self.command, file, self.headers.get("Range")))
        path = self.folder / repository.strip("/") / file
        if not path.parent.is_dir():
            return self.refuse("RepoNotFound")
        if not path.is_file():
            return self.refuse("EntryNotFound")
        data = path.read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body and self.instead is not None and len(data) > 1 << 20:
            type(self).instead(self)
        elif body and self.cut is not None and len(data) > self.cut:
            self.wfile.write(data[start : self.cut])
            type(self).cut = None
            self.close_connection = True
        elif body:
            self.wfile.write(data[start:])
        return None

    def refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[type[StandIn]]:
    """A hub on a free port of this machine, its repositories being folders in `.folder`."""
    handler = type("Handler", (StandIn,), {"folder": tmp_path / "hub", "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def environment(cache: Path, address: str) -> dict[str, str]:
    """The variables of a process whose hub and cache are these."""
    settings = {
        "HF_HOME": str(cache),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return os.environ | settings


def locate(name: str, cache: Path, address: str, **variables: str) -> subprocess.CompletedProcess:
    """hub.locate in a process of its own, since huggingface_hub reads its settings when it is imported."""
    code = (
        "import sys; from gpt2_np.weights import hub\n"
        "try: print(hub.locate(sys.argv[1]))\n"
        "except (OSError, ValueError) as error: sys.exit(f'{type(error).__name__}: {error}')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, name],
        env=environment(cache, address) | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def publish(stand_in: type[StandIn], repository: str, small: Path, *extra: str, without: tuple[str, ...] = ()) -> None:
    target = stand_in.folder / repository
    shutil.copytree(small, target, ignore=lambda _, names: [name for name in names if name in without])
    for name in extra:
        (target / name).write_text("{}")


def test_an_official_name_fetches_what_is_needed_and_no_more(stand_in, small: Path, tmp_path: Path) -> None:
    publish(
        stand_in,
        "openai-community/gpt2",
        small,
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "pytorch_model.bin",
        "tf_model.h5",
        "README.md",
    )
    first = locate("gpt2", tmp_path / "cache", stand_in.address)
    folder = Path(first.stdout.strip())
    assert first.returncode == 0, first.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()
    assert all((tmp_path / "cache") in path.resolve().parents for path in folder.iterdir())


def test_the_cache_answers_without_a_network(stand_in, small: Path, tmp_path: Path) -> None:
    publish(stand_in, "someone/small", small, "tokenizer.json")
    first = locate("someone/small", tmp_path / "cache", stand_in.address)
    asked = len(stand_in.asked)
    again = locate("someone/small", tmp_path / "cache", stand_in.address)
    offline = locate("someone/small", tmp_path / "cache", "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert first.stdout == again.stdout == offline.stdout != ""
    assert len(stand_in.asked) == asked


def test_marks_and_generation_settings_come_along(stand_in, small: Path, tmp_path: Path) -> None:
    publish(stand_in, "someone/marked", small, "vocab.json", "merges.txt", *hub.EXTRAS)
    folder = Path(locate("someone/marked", tmp_path / "cache", stand_in.address).stdout.strip())
    assert {path.name for path in folder.iterdir()} >= set(hub.EXTRAS)


def test_a_cache_without_marks_is_completed_where_somebody_answers(stand_in, small: Path, tmp_path: Path) -> None:
    publish(stand_in, "someone/marked", small, "tokenizer.json", *hub.EXTRAS)
    cache, address = tmp_path / "cache", stand_in.address
    folder = Path(locate("someone/marked", cache, address).stdout.strip())
    (folder / "added_tokens.json").unlink()
    for nobody, variables in (("http://127.0.0.1:9", {}), (address, {"HF_HUB_OFFLINE": "1"})):
        assert locate("someone/marked", cache, nobody, **variables).stdout.strip() == str(folder)
        assert not (folder / "added_tokens.json").exists()
    asked = len(stand_in.asked)
    assert locate("someone/marked", cache, address).stdout.strip() == str(folder)
    assert (folder / "added_tokens.json").is_file()
    assert len(stand_in.asked) > asked


def test_an_index_that_points_elsewhere_fetches_nothing_more(stand_in, small: Path, tmp_path: Path) -> None:
    publish(stand_in, "someone/sharded", small, "tokenizer.json", without=("model.safetensors",))
    index = stand_in.folder / "someone/sharded/model.safetensors.index.json"
    elsewhere = '{"weight_map": {"a": "../../x"}}'
    for content, message in (
        (elsewhere, "a shard must be a file beside the index, got '../../x'"),
        ("[", "model.safetensors.index.json is not valid JSON"),
    ):
        index.write_text(content)
        done = locate("someone/sharded", tmp_path / message[:5], stand_in.address)
        assert "ValueError" in done.stderr
        assert message in done.stderr
    assert not any("x" in file.split("/")[-1:] for _, file, _ in stand_in.asked)


def test_shards_and_the_older_tokenizer_files(stand_in, small: Path, tmp_path: Path) -> None:
    publish(stand_in, "someone/sharded", small, "vocab.json", "merges.txt", without=("model.safetensors",))
    target = stand_in.folder / "someone/sharded"
    (target / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    shutil.copy(small / "model.safetensors", target / "model-1.safetensors")
    folder = Path(locate("someone/sharded", tmp_path / "cache", stand_in.address).stdout.strip())
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model-1.safetensors",
        "model.safetensors.index.json",
        "vocab.json",
    ]


def test_a_broken_connection_goes_on_where_it_broke(stand_in, small: Path, tmp_path: Path) -> None:
    publish(stand_in, "someone/large", small, "tokenizer.json")
    whole = np.random.default_rng(0).bytes(24 << 20)  # the library counts in steps of 10 MiB
    (stand_in.folder / "someone/large/model.safetensors").write_bytes(whole)
    stand_in.cut = 15 << 20
    done = locate("someone/large", tmp_path / "cache", stand_in.address)
    assert done.returncode == 0, done.stderr
    ranges = [asked for command, file, asked in stand_in.asked if command == "GET" and file == "model.safetensors"]
    assert ranges == [None, f"bytes={10 << 20}-"]
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == whole


def test_a_killed_download_leaves_nothing_that_passes_for_a_model(stand_in, small: Path, tmp_path: Path) -> None:
    publish(stand_in, "someone/large", small, "tokenizer.json")
    whole = np.random.default_rng(0).bytes(24 << 20)
    (stand_in.folder / "someone/large/model.safetensors").write_bytes(whole)
    reached, released = threading.Event(), threading.Event()

    def half(handler: StandIn) -> None:
        handler.wfile.write(whole[: 12 << 20])
        reached.set()
        released.wait(60)
        handler.close_connection = True

    stand_in.instead = half
    code = "import sys; from gpt2_np.weights import hub; hub.locate(sys.argv[1])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "someone/large"],
        stderr=subprocess.DEVNULL,
        env=environment(tmp_path / "cache", stand_in.address),
    )
    arrived = reached.wait(60)
    process.kill()
    process.wait()
    released.set()
    assert arrived
    stand_in.instead = None
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    message = one_line(locate("someone/large", tmp_path / "cache", "http://127.0.0.1:9", HF_HUB_OFFLINE="1"))
    assert "is not in the cache" in message
    done = locate("someone/large", tmp_path / "cache", stand_in.address)
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == whole


def one_line(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_no_network_and_nothing_cached_is_one_line(tmp_path: Path) -> None:
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        message = one_line(locate("gpt2", tmp_path, "http://127.0.0.1:9", **variables))
        assert message.startswith("ConnectionError: openai-community/gpt2 is not in the cache")
        assert "connect to the network, give a local folder, or use the bundled model 'tales'" in message


def test_what_the_hub_does_not_have_is_one_line(stand_in, small: Path, tmp_path: Path) -> None:
    message = one_line(locate("nobody/nothing", tmp_path / "cache", stand_in.address))
    assert "no such model" in message
    assert "gpt2-medium" in message
    publish(stand_in, "someone/pickled", small, "tokenizer.json", "pytorch_model.bin", without=("model.safetensors",))
    message = one_line(locate("someone/pickled", tmp_path / "cache", stand_in.address))
    assert "someone/pickled has no model.safetensors or model.safetensors.index.json" in message


@pytest.mark.parametrize("name", ["./gone", "/gone", "~/gone", "a/b/c", "..", Path("gone")])
def test_a_path_that_is_not_there_never_asks_the_hub(name) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder|holds no config\.json"):
        hub.locate(name)


def test_a_name_that_no_hub_can_have(tmp_path: Path) -> None:
    assert "a hub id is written OWNER/NAME" in one_line(locate("not a name", tmp_path, "http://127.0.0.1:9"))


def test_a_folder_wins_and_needs_a_config(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.locate(small) == hub.locate(str(small)) == small
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        hub.locate(tmp_path)
    monkeypatch.chdir(small.parent)
    assert hub.locate(small.name) == Path(small.name)
