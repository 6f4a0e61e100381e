"""The keys of real ``config.json`` files that are not fields of `config.Config`: which are ignored, and which refused.

transformers' GPT-2 ignores every key that it doesn't know. Here a key that asks for another architecture is refused,
since the model would otherwise silently compute something else than the file's author meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Fields of GPT-2's own files that change nothing in a forward pass: training, bookkeeping, other heads.
WITHOUT_EFFECT = frozenset(
    """architectures attn_pdrop chunk_size_feed_forward decoder_start_token_id dtype embd_pdrop finetuning_task
    gradient_checkpointing id2label initializer_range is_decoder label2id license n_ctx name_or_path num_labels
    output_attentions output_hidden_states output_past prefix predict_special_tokens problem_type resid_pdrop
    return_dict return_dict_in_generate sep_token_id cls_token_id mask_token_id unk_token_id summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj task_specific_params tokenizer_class
    torch_dtype torchscript transformers_version use_bfloat16 use_cache attn_implementation tie_last_hidden_states
    reorder_and_upcast_attn embedding_dropout auto_map max_length min_length do_sample early_stopping num_beams
    num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
    forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens model_type""".split()
)

REFUSED = {
    "add_cross_attention": "GPT-2 as a decoder of an encoder (cross-attention) is not supported",
    "is_encoder_decoder": "encoder-decoder models are not supported",
    "quantization_config": "quantised checkpoints are not supported; load the original and pass dtype=",
    "compression_config": "compressed checkpoints are not supported; load the original and pass dtype=",
    "pruned_heads": "pruned heads are not supported",
    "per_layer_config": "layers of different shapes are not supported",
    "transformers_weights": "weights of another name are not supported; rename the file model.safetensors",
}

# A key whose name contains one of these words asks for another forward pass than GPT-2's.
CHANGES = re.compile(
    "|".join(
        r"""rope rotary alibi relative position_(embedding|encoding|bias) soft_?cap sliding window
        (local|global|sparse|linear|block)_?attention
        (attention|attn)_(types?|layers|pattern|multiplier|mult|scale|scaling|logit)
        attn_(temperature|config) softmax_scale scale_qk clip_qkv pre_attn layer_scale\b
        key_value kv_(heads|groups|channels|lora) n(um)?_kv head_kv multi_?query group_?query head_(dim|size)
        qk_ (query|key)_norm rms_?norm norm_(type|eps|epsilon|first|position) pre_?norm post_?norm
        post_layer layer_?norm
        sandwich normali[sz]ation_(type|function) deepnorm quanti[sz]
        parallel_(attn|attention|residual|block) residual_(multiplier|scale|scaling|alpha)
        embedding_(multiplier|scale|size|factor) scale_embedding embd_scale logits?_(scale|scaling|multiplier)
        (intermediate|ffn|mlp|feed_forward|inner)_?(hidden|size|dim|width|type) d_(ff|model|inner)
        hidden_act act_fn activation gated glu
        no_bias (use|with|attention|qkv|mlp|lm_head)_bias bias_free
        experts moe router lora shared_head memory_tokens mod_capacity layer_types mup num_loops recurren""".split()
    )
)

# The values that such a key may have without an effect: what GPT-2 does anyway.
SAME: dict[str, tuple[bool | str, ...]] = {
    "position_embedding_type": ("absolute", "learned", "learned_absolute"),
    "layer_norm_type": ("layer_norm", "layernorm"),
    "norm_type": ("layer_norm", "layernorm"),
    "normalization_type": ("layer_norm", "layernorm", "LN"),
    "attention_bias": (True,),
    "qkv_bias": (True,),
    "mlp_bias": (True,),
    "use_bias": (True,),
    "pre_norm": (True,),
    "prenorm": (True,),
    "norm_first": (True,),
}
# Keys that must agree with a field of GPT-2's.
FIELDS = {
    "num_key_value_heads": "n_head",
    "num_kv_heads": "n_head",
    "n_kv_head": "n_head",
    "head_dim": "head_width",
    "head_size": "head_width",
    "d_model": "n_embd",
    "embedding_size": "n_embd",
    "intermediate_size": "mlp_width",
    "ffn_dim": "mlp_width",
    "d_ff": "mlp_width",
    "hidden_act": "activation_function",
    "activation": "activation_function",
    "layer_norm_eps": "layer_norm_epsilon",
    "norm_epsilon": "layer_norm_epsilon",
    "norm_eps": "layer_norm_epsilon",
}
# Settings of training, whose names hold one of the words above.
OF_TRAINING = re.compile(r"dropout|pdrop|_loss|loss_|unsloth|initializer|init_|_init|lr_|z_loss|aux_loss|checkpoint")


def unknown(fields: Mapping[str, object]) -> list[str]:
    """List the keys of a parsed ``config.json`` that mean nothing to GPT-2 and are ignored."""
    return [
        name
        for name, value in fields.items()
        if value and name not in WITHOUT_EFFECT and name not in REFUSED and not name.startswith("_")
    ]


def refuse(fields: Mapping[str, object], config: object) -> None:
    """Raise ``ValueError`` for the first key, not a field of `config`, that asks for another forward pass than
    GPT-2's.
    """
    for name, value in fields.items():
        off = not value and not (value is False and SAME.get(name) == (True,))
        if off or name in WITHOUT_EFFECT or name.startswith("_") or not CHANGES.search(name.lower()):
            continue
        if OF_TRAINING.search(name.lower()):
            continue
        field = FIELDS.get(name)
        if value in SAME.get(name, ()) or (field is not None and value == getattr(config, field)):
            continue
        right = f"; GPT-2's is {getattr(config, field)!r}, its {field}" if field is not None else ""
        raise ValueError(
            f"{name} is not an option of GPT-2 that is known here, got {name}: {value!r:.100}{right}; "
            "remove it from config.json if it changes nothing"
        )
