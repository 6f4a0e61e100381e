"""The configuration: what transformers writes is read, what it means is kept, what isn't understood is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import GPT2Config

from gpt2_np.model.config import ALIASES, PUBLISHED, Config
from gpt2_np.model.params import shapes


def test_defaults_are_transformers_own() -> None:
    theirs = GPT2Config()
    for name, value in vars(Config()).items():
        assert getattr(theirs, name) == value, name
    assert GPT2Config.attribute_map == ALIASES


def test_whatever_transformers_saves_is_read(tmp_path: Path) -> None:
    GPT2Config(n_layer=3, n_inner=7, eos_token_id=[1, 2], layer_norm_epsilon=1e-6).save_pretrained(tmp_path)
    config = Config.from_file(tmp_path / "config.json")
    assert (config.n_layer, config.mlp_width, config.eos_token_ids) == (3, 7, (1, 2))
    assert config.layer_norm_epsilon == 1e-6


def test_the_published_file_of_gpt2_is_read() -> None:
    fields = json.loads("""{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257}""")
    assert Config.from_dict(fields) == PUBLISHED["gpt2"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("distilgpt2", 81_912_576),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(name: str, count: int) -> None:
    total = 0
    for shape in shapes(PUBLISHED[name]).values():
        size = 1
        for length in shape:
            size *= length
        total += size
    assert total == count


def test_other_names_of_the_same_fields() -> None:
    assert Config.from_dict({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}).head_width == 16
    with pytest.raises(ValueError, match="contradict"):
        Config.from_dict({"hidden_size": 64, "n_embd": 48})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_embd": 50, "n_head": 4}, "n_embd must be a multiple of n_head, got n_embd 50 and n_head 4"),
        ({"n_layer": 0}, "n_layer must be a whole number of at least 1, got 0"),
        ({"vocab_size": 1.5}, "vocab_size must be a whole number of at least 1, got 1.5"),
        ({"n_positions": True}, "n_positions must be a whole number of at least 1, got True"),
        ({"n_inner": 0}, "n_inner must be a whole number of at least 1, got 0"),
        ({"layer_norm_epsilon": -1.0}, r"layer_norm_epsilon must be in \[0, 3.4e\+38\], .*, got -1.0"),
        ({"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon must be in"),
        ({"layer_norm_epsilon": 10**400}, "layer_norm_epsilon must be in"),
        ({"eos_token_id": [0, None]}, r"eos_token_id must be a token id, got \(0, None\)"),
        ({"bos_token_id": [0]}, r"bos_token_id must be a token id, got \(0,\)"),
        ({"activation_function": "swiglu"}, "activation_function must be one of .*, got 'swiglu'"),
        ({"scale_attn_weights": 1}, "scale_attn_weights must be true or false, got 1"),
        ({"eos_token_id": "x"}, "eos_token_id must be a token id, got 'x'"),
        ({"model_type": "llama"}, "model_type must be 'gpt2', got 'llama'"),
        ({"add_cross_attention": True}, "add_cross_attention is set to True: .*not supported"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is set to True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set to"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is set to"),
        ({"rotary": True}, "rotary is not an option of GPT-2 that is known here, got rotary: True"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_dict(fields)


HARMLESS = {
    "loss_type": "ForCausalLMLoss",
    "xla_device": True,
    "unsloth_version": "2024.9",
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "use_flash_attention": True,
    "vocab_file": "vocab.json",
    "trl": {"a": 1},
    "num_key_value_heads": 12,
    "head_dim": 64,
    "intermediate_size": 3072,
    "position_embedding_type": "absolute",
    "attention_bias": True,
    "rope_theta": None,
    "sliding_window": None,
    "num_experts": 0,
}


def test_keys_that_change_nothing_are_passed_over_and_listed() -> None:
    assert Config.from_dict(HARMLESS) == Config()
    assert Config.passed_over(HARMLESS | {"n_layer": 3, "use_cache": True, "_name_or_path": "x"}) == [
        name for name, value in HARMLESS.items() if value
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rope_theta", 10000.0),
        ("rope_scaling", {"type": "linear"}),
        ("partial_rotary_factor", 0.5),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("num_key_value_heads", 2),
        ("multi_query", True),
        ("head_dim", 128),
        ("sliding_window", 256),
        ("attention_types", [[["global", "local"], 6]]),
        ("alibi", True),
        ("position_embedding_type", "rotary"),
        ("rms_norm_eps", 1e-6),
        ("layer_norm_eps", 1e-6),
        ("num_local_experts", 8),
        ("attention_bias", False),
        ("use_parallel_residual", True),
        ("hidden_act", "silu"),
        ("intermediate_size", 5),
        ("logit_scale", 0.5),
        ("transformers_weights", "other.safetensors"),
    ],
)
def test_keys_that_ask_for_another_forward_pass_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name) as error:
        Config.from_dict({name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", "null", '"gpt2"', "\xff", "[" * 100_000, '{"n_layer": ' + "9" * 5000 + "}"],
    ids=lambda text: text[:9],
)
def test_broken_files_are_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        Config.from_file(path)
    assert "\n" not in str(error.value)
