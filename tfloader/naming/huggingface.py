"""What every Hugging Face config.json shares: keys that do not change what a model computes, and keys that would."""

from __future__ import annotations

from dataclasses import replace

from tfloader.naming.base import Identity, Naming, Transpose

# Book-keeping, training, and generation defaults (those of generation belong to the caller, not to the model).
HARMLESS = (
    "architectures|_name_or_path|transformers_version|torch_dtype|dtype|_commit_hash|auto_map|name_or_path",
    "model_type|tfloader|_attn_implementation(_autoset|_internal)?|attn_implementation",
    "id2label|label2id|num_labels|problem_type|finetuning_task|task_specific_params|return_dict|use_return_dict",
    "output_hidden_states|output_attentions|output_past|use_cache|torchscript|gradient_checkpointing",
    "classifier_dropout(_prob)?|tokenizer_class|prefix|sep_token_id|cls_token_id|mask_token_id|bos_token_id",
    "forced_bos_token_id|forced_eos_token_id|max_length|min_length|do_sample|early_stopping|num_beams|num_beam_groups",
    "diversity_penalty|temperature|top_k|top_p|typical_p|repetition_penalty|length_penalty|no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size|bad_words_ids|num_return_sequences|output_scores|return_dict_in_generate",
    "suppress_tokens|begin_suppress_tokens|exponential_decay_length_penalty|remove_invalid_values",
    "initializer_factor|chunk_size_feed_forward|pooler_(fc_size|num_attention_heads|num_fc_layers)",
    "pooler_(size_per_head|type)|summary_(activation|first_dropout|proj_to_labels|type|use_proj)",
    "tf_legacy_loss|use_bfloat16|max_new_tokens|decoder_start_token_id|eos_token_id|_num_labels",
    r"xla_device|transformers\.js_config|unk_token_id",
)

# A first value is also what a silent file means.
ONLY = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "quantization_config": (None,),
    "directionality": ("bidi",),
}

# Hugging Face's names of the activations that we implement.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}

# tf_model.h5 says `top_layer/model_name/bert/encoder/layer_._0/.../kernel:0` where torch says
# `bert.encoder.layer.0....weight`.
H5_OLD_NAMES = (
    (r"^[^/]+/[^/]+/", ""),
    (r":0$", ""),
    (r"/", "."),
    (r"_\._", "."),
    (r"^(mlm|nsp)___cls\.", "cls."),
    (r"\.(kernel|embeddings|gamma)$", ".weight"),
    (r"\.beta$", ".bias"),
)


def h5_naming(naming: Naming) -> Naming:
    """The table of a release's tf_model.h5: other spellings, and kernels that are [in, out] already."""
    rows = tuple(replace(item, op=Identity()) if item.op == Transpose() else item for item in naming.rows)
    return replace(naming, rows=rows, old_names=(*H5_OLD_NAMES, *naming.old_names))
