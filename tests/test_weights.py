"""Loading: every layout and dtype that real checkpoints have, and every kind of broken file."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_logits, reference_model
from safetensors.torch import load_file, save_file

from gpt2_np.model.config import Config
from gpt2_np.model.params import assemble, flatten, shapes
from gpt2_np.session.model import Model
from gpt2_np.system import files
from gpt2_np.weights import load as weights

IDS = random_ids(1, 12)


def rewrite(source: Path, target: Path, change) -> Path:
    """A copy of the checkpoint whose dict of tensors went through `change`."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    tensors = change(load_file(source / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target / "model.safetensors")
    return target


def official(tensors: dict) -> dict:
    """The layout of the published files: no prefix, mask buffers, no lm_head."""
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64).tril() for layer in range(3)}
    return bare | masks


def test_official_layout(small: Path, tmp_path: Path) -> None:
    folder = rewrite(small, tmp_path, official)
    np.testing.assert_array_equal(Model.from_pretrained(folder)(IDS), Model.from_pretrained(small)(IDS))


def test_masked_bias_and_a_stored_copy_of_the_tied_head_are_no_surprise(small: Path, tmp_path: Path) -> None:
    def change(tensors: dict) -> dict:
        head = {"lm_head.weight": tensors["transformer.wte.weight"].clone()}
        return tensors | head | {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}

    model = Model.from_pretrained(rewrite(small, tmp_path, change))
    assert model.params.lm_head is model.params.wte


def test_a_head_that_differs_is_untied_as_in_transformers(small: Path, tmp_path: Path) -> None:
    folder = rewrite(small, tmp_path, lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] * 2})
    reference = type(reference_model()).from_pretrained(folder).eval()
    np.testing.assert_allclose(Model.from_pretrained(folder)(IDS), reference_logits(reference, IDS), atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_shards(tied: bool, tmp_path: Path) -> None:
    reference = reference_model(tie_word_embeddings=tied)
    reference.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(weights.files(tmp_path)) > 2
    np.testing.assert_allclose(Model.from_pretrained(tmp_path)(IDS), reference_logits(reference, IDS), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_become_float32(dtype: torch.dtype, small: Path, tmp_path: Path) -> None:
    folder = rewrite(small, tmp_path, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    reference = type(reference_model()).from_pretrained(folder, dtype=torch.float32).eval()
    model = Model.from_pretrained(folder)
    assert {array.dtype for _, array in flatten(model.params)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(model(IDS), reference_logits(reference, IDS), atol=1e-4)


def test_float32_is_mapped_not_copied(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SMALL", 0)  # a small file is read
    params = weights.load(small, Config.from_file(small / "config.json"))
    for name, array in flatten(params):
        base = array
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap), name
        assert not array.flags.writeable


@pytest.mark.parametrize(("dtype", "flag"), [("float32", "hg"), ("int8", "nh")])
def test_mapped_weights_ask_for_large_pages_where_all_are_read(dtype: str, flag: str, small: Path) -> None:
    if "[" not in read_if_there("/sys/kernel/mm/transparent_hugepage/enabled"):
        pytest.skip("this system has no large pages to ask for")
    code = (
        "import sys; from gpt2_np.system import files; files.SMALL = 0; from gpt2_np.session.model import Model;"
        "model = Model.from_pretrained(sys.argv[1], dtype=sys.argv[2]);"
        "parts = open('/proc/self/smaps').read().split('VmFlags:');"
        "print(*[after.split('\\n')[0] for part, after in zip(parts, parts[1:]) if 'model.safetensors' in part])"
    )
    flags = subprocess.check_output([sys.executable, "-c", code, str(small), dtype], text=True).split()
    assert flag in flags
    assert ({"hg", "nh"} - {flag}).isdisjoint(flags)


def read_if_there(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def test_loading_a_large_model_takes_no_second_copy(tmp_path: Path) -> None:
    config = Config(n_layer=8, n_embd=512, n_head=8, vocab_size=20000)
    tensors = {name: torch.ones(shape) for name, shape in shapes(config).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 8, "n_embd": 512, "n_head": 8, "vocab_size": 20000}))
    code = (
        "import resource, sys; from gpt2_np.session.model import Model; model = Model.from_pretrained(sys.argv[1]);"
        "print([int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon')][0])"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("private memory is read from /proc, which this system lacks")
    size = (tmp_path / "model.safetensors").stat().st_size // 1024
    private = int(subprocess.check_output([sys.executable, "-c", code, str(tmp_path)]))
    assert private < 0.6 * size, f"{private} KiB of private memory for a file of {size} KiB"


def test_flatten_is_the_inverse_of_assemble() -> None:
    config = Config(n_layer=2, n_embd=8, n_head=2, vocab_size=5, tie_word_embeddings=False, activation_function="xielu")
    tensors = {name: np.full(shape, number) for number, (name, shape) in enumerate(shapes(config).items())}
    again = dict(flatten(assemble(tensors, config)))
    assert list(again) == list(tensors) or set(again) == set(tensors)
    assert all(again[name] is tensors[name] for name in tensors)


# ---- bad files -----------------------------------------------------------------------------------------------------


def test_every_wrong_tensor_is_named_in_one_message(small: Path, tmp_path: Path) -> None:
    def change(tensors: dict) -> dict:
        del tensors["transformer.h.1.ln_1.bias"], tensors["transformer.wpe.weight"]
        tensors["transformer.h.0.mlp.c_fc.weight"] = tensors["transformer.h.0.mlp.c_fc.weight"].T
        return tensors | {"transformer.h.0.attn.rotary": torch.ones(2), "transformer.h.3.ln_1.bias": torch.ones(48)}

    with pytest.raises(ValueError) as error:
        Model.from_pretrained(rewrite(small, tmp_path, change))
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "missing wpe.weight",
        "missing h.1.ln_1.bias",
        "unexpected h.0.attn.rotary",
        "unexpected h.3.ln_1.bias",
        "h.0.mlp.c_fc.weight must be (48, 192), got (192, 48)",
    ):
        assert part in message


def test_a_missing_untied_head_is_named(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    config = json.loads((small / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ValueError, match=r"missing lm_head\.weight"):
        Model.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(value: float, small: Path, tmp_path: Path) -> None:
    def change(tensors: dict) -> dict:
        tensors["transformer.h.2.attn.c_proj.weight"][3, 5] = value
        tensors["transformer.wpe.weight"][63, 47] = value
        return tensors

    with pytest.raises(ValueError, match=r"NaN or infinity in .*(wpe\.weight|h\.2\.attn\.c_proj\.weight)") as error:
        Model.from_pretrained(rewrite(small, tmp_path, change))
    assert "wpe.weight" in str(error.value)


def test_large_finite_weights_are_no_error() -> None:
    assert weights.all_finite(np.full(100, 3e38, np.float32))
    assert not weights.all_finite(np.array([3e38, np.inf, -np.inf], np.float32))


def test_what_float32_cannot_hold_is_named(small: Path, tmp_path: Path) -> None:
    def change(tensors: dict) -> dict:
        return tensors | {"transformer.wpe.weight": tensors["transformer.wpe.weight"].double() * 1e300}

    with pytest.raises(ValueError, match=r"NaN or infinity in wpe\.weight"):
        Model.from_pretrained(rewrite(small, tmp_path, change))


@pytest.mark.parametrize("layers", [7, 10**6, 10**20])
def test_layers_beyond_those_in_the_file_are_counted_not_listed(layers: int, small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    config = json.loads((small / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_layer": layers}))
    with pytest.raises(ValueError, match=f"n_layer is {layers}, but there are tensors of 3 layers"):
        Model.from_pretrained(tmp_path)


def test_a_file_that_may_not_be_read_says_so(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").chmod(0)
    root = os.geteuid() == 0  # who may read everything
    if root:
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match="Permission denied"):
            weights.open_safetensors(tmp_path / "model.safetensors")
    finally:
        if root:
            os.seteuid(0)


def test_integer_tensors_are_refused(small: Path, tmp_path: Path) -> None:
    folder = rewrite(small, tmp_path, lambda t: t | {"transformer.wpe.weight": torch.ones(64, 48, dtype=torch.int8)})
    with pytest.raises(ValueError, match=r"wpe\.weight must be F32, F16, BF16 or F64, got I8"):
        Model.from_pretrained(folder)


def damaged(small: Path, tmp_path: Path, data: bytes) -> Path:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:1000],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: struct.pack("<Q", 2**60) + data[8:],
        lambda data: struct.pack("<Q", len(data)) + data[8:],
        lambda data: data[:8] + b"x" + data[9:],
        lambda data: b"PK\3\4" + data,
    ],
    ids=[
        "empty",
        "no header",
        "truncated header",
        "one byte short",
        "one byte more",
        "header of 2^60 bytes",
        "header as long as the file",
        "header is no JSON",
        "a zip file",
    ],
)
def test_damaged_files(damage, small: Path, tmp_path: Path) -> None:
    folder = damaged(small, tmp_path, damage((small / "model.safetensors").read_bytes()))
    with pytest.raises(ValueError, match=r"model\.safetensors is not a sound safetensors file") as error:
        Model.from_pretrained(folder)
    assert "\n" not in str(error.value)


@given(bit=st.integers(0), data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_in_the_header_is_a_clear_error_or_changes_nothing(
    bit: int, data, small: Path, tmp_path: Path
) -> None:
    whole = bytearray((small / "model.safetensors").read_bytes())
    bit = data.draw(st.integers(0, 8 * (8 + struct.unpack("<Q", whole[:8])[0]) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    problem, logits = "", np.zeros(1)
    try:
        logits = Model.from_pretrained(damaged(small, tmp_path, bytes(whole)))(IDS)
    except ValueError as error:
        problem = str(error)
    assert "\n" not in problem
    assert np.isfinite(logits).all()


def test_pickle_is_never_opened(small: Path, tmp_path: Path) -> None:
    shutil.copy(small / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin .*pickle files are never opened; convert it"):
        Model.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "weight_map"),
        ("[]", "weight_map"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "a file beside the index"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "a file beside the index"),
        ('{"weight_map": {"a": ".."}}', "a file beside the index"),
        ('{"weight_map": {"a": "x\\u0000y"}}', "a file beside the index"),
        ('{"weight_map": {"a": 3}}', "a file beside the index"),
        ("[" * 100_000, "nested too deeply"),
        ("\0", "not valid JSON"),
        ('{"weight_map": {"a": "gone.safetensors"}}', r"shard 'gone\.safetensors' is missing"),
    ],
    ids=lambda text: text[:40],
)
def test_bad_indices(index: str, message: str, small: Path, tmp_path: Path) -> None:
    shutil.copy(small / "config.json", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Model.from_pretrained(tmp_path)
