"""What Hugging Face folders share: containers, spellings of tensors, keys of config.json; and twins of releases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tfloader.naming.base import Identity, Naming, Transpose, renamed, with_prefix
from tfloader.naming.dialect import Dialect, Key
from tfloader.naming.release import Release

FOLDER: dict[str, Any] = {
    "formats": ("safetensors", "torch", "memory"),
    "config_files": ("config.json",),
    "writes": "huggingface",
}

# Book-keeping, training, and generation defaults (those of generation belong to the caller, not to the model).
HARMLESS = (
    "architectures|_name_or_path|transformers_version|torch_dtype|dtype|_commit_hash|auto_map|name_or_path",
    "model_type|_attn_implementation(_autoset|_internal)?|attn_implementation",
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

# The first value is also the default.
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
# Where the code computes the exact gelu whatever the file says, or has no other.
EXACT_GELU = Key("hidden_act", "hidden_act", values={"gelu": "gelu"})

WRAPPED = (r"^((module|_orig_mod)\.)+", "")  # saved from torch's DataParallel, or after torch.compile


def old_names(body: str, parts: str = "embeddings|embeddings_project|encoder|pooler") -> tuple[tuple[str, str], ...]:
    """Older spellings of a release's tensors.

    Args:
        body: what the names of the model without heads begin with; a folder of it alone leaves that out.
        parts: what may stand after it.
    """
    return (
        WRAPPED,
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (rf"^({parts})\.", rf"{body}\1."),
    )


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


def h5_twin(release: Release, op: Callable[[str, Identity], Identity] = lambda _, op: op) -> Release:
    """The tf_model.h5 of a release: other spellings, and kernels that are [in, out] already.

    `op`: from a tensor's name and its operation, without the transposition, to the operation in that file.
    """
    kept = ((item, Identity() if item.op == Transpose() else item.op) for item in release.naming.rows)
    rows = tuple(replace(item, op=op(item.theirs, plain)) for item, plain in kept)
    return replace(
        release,
        name=f"{release.name}_h5",
        title=f"{release.title} (tf_model.h5)",
        formats=("hdf5",),
        naming=replace(release.naming, rows=rows, old_names=(*H5_OLD_NAMES, *release.naming.old_names)),
        writes=None,
        architectures={},
    )


def folder_twin(release: Release, names: Mapping[str, str], dialect: Dialect) -> Release:
    """A TensorFlow release in Hugging Face's layout of files, for a model that transformers does not have.

    Args:
        names: as for `renamed`; then slashes become dots.
        dialect: of its config.json, marked by a model_type of its own.
    """
    rows = (replace(item, theirs=item.theirs.replace("/", ".")) for item in renamed(release.naming.rows, names))
    return replace(
        release,
        name=f"hf_{release.name}",
        title=release.title.replace("TensorFlow checkpoint", "Hugging Face layout"),
        signature=str(with_prefix(str(release.signature), names)).replace("/", "."),
        naming=Naming(tuple(rows)),
        dialects=(dialect,),
        **FOLDER,
    )
