"""Config files as users have them are read, with every key that public tools left in them."""

from __future__ import annotations

import json

import pytest

from tests.conftest import FIXTURES
from tests.naming.configs import release
from tfloader.errors import ConfigError
from tfloader.naming import read_config

HF_4 = {
    "_name_or_path": "/home/someone/model",
    "architectures": ["Model"],
    "torch_dtype": "float32",
    "transformers_version": "4.6.0.dev0",
    "use_cache": True,
}
HF_5 = {
    "architectures": ["Model"],
    "dtype": "float32",
    "transformers_version": "5.23.0",
    "use_cache": True,
    "output_hidden_states": False,
    "return_dict": True,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "problem_type": None,
    "_name_or_path": "",
    "output_attentions": False,
}
# What transformers 4 writes when it leaves out nothing (PretrainedConfig.to_dict).
HF_4_ALL = HF_5 | {
    "transformers_version": "4.41.2",
    "add_cross_attention": False,
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "is_decoder": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_scores": False,
    "prefix": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "suppress_tokens": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torchscript": False,
    "typical_p": 1.0,
    "use_bfloat16": False,
}
POOLER = {
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
}
BERT_BASE = {
    "model_type": "bert",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 21128,
}
GOOGLE_BASE = {
    name: value for name, value in BERT_BASE.items() if name not in ("model_type", "layer_norm_eps", "pad_token_id")
}
GPT2_BASE = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
GPT2_NEW = {
    "n_inner": None,
    "pad_token_id": None,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
T5_SMALL = {
    "model_type": "t5",
    "d_ff": 2048,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "n_positions": 512,
    "num_heads": 8,
    "num_layers": 6,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "vocab_size": 32128,
}
T5_TASKS = {
    "task_specific_params": {
        "summarization": {"early_stopping": True, "max_length": 200, "num_beams": 4, "prefix": "summarize: "},
        "translation_en_to_de": {"max_length": 300, "prefix": "translate English to German: "},
    }
}
T5_11 = {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 6, "tie_word_embeddings": False}
T5_NEW = {
    "num_decoder_layers": 6,
    "relative_attention_max_distance": 128,
    "classifier_dropout": 0.0,
    "is_decoder": False,
    "feed_forward_proj": "relu",
    "dense_act_fn": "relu",
    "is_gated_act": False,
    "is_encoder_decoder": True,
    "tie_word_embeddings": True,
}
GATED_NEW = {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True}
HERE = {"lm_head.weight": (32128, 512), "shared.weight": (32128, 512)}
PUBLIC = {
    # name: (release, the file, tensors, fields that tell it apart)
    "google: uncased_L-12_H-768_A-12": (
        "google_bert",
        GOOGLE_BASE,
        {"hidden_act": "gelu_tanh", "layer_norm_eps": 1e-12},
    ),
    "google: chinese_L-12_H-768_A-12": ("google_bert", GOOGLE_BASE | POOLER, {"pad_token_id": 0, "vocab_size": 21128}),
    "bert-base-uncased": (
        "hf_bert",
        BERT_BASE | HF_4 | {"gradient_checkpointing": False, "position_embedding_type": "absolute"},
        {"hidden_act": "gelu"},
    ),
    "bert-base-chinese": ("hf_bert", BERT_BASE | HF_4 | POOLER, {"vocab_size": 21128, "max_position_embeddings": 512}),
    "chinese-roberta-wwm-ext": (
        "hf_bert",
        BERT_BASE | HF_4 | POOLER | {"bos_token_id": 0, "eos_token_id": 2, "output_past": True},
        {"pad_token_id": 0, "application": "encoder"},
    ),
    "bert of transformers 5": (
        "hf_bert",
        HF_5
        | BERT_BASE
        | {
            "classifier_dropout": None,
            "is_decoder": False,
            "add_cross_attention": False,
            "bos_token_id": None,
            "eos_token_id": None,
            "tie_word_embeddings": True,
        },
        {"hidden_size": 768},
    ),
    "bert of transformers 4 with every key": ("hf_bert", HF_4_ALL | BERT_BASE, {"hidden_size": 768}),
    "a fine-tuned bert": (
        "hf_bert",
        BERT_BASE
        | HF_4
        | {
            "id2label": {"0": "neg"},
            "label2id": {"neg": 0},
            "problem_type": "single_label_classification",
            "_num_labels": 1,
            "finetuning_task": "sst2",
        },
        {"hidden_size": 768},
    ),
    "gpt2": (
        "hf_gpt2",
        GPT2_BASE | {"architectures": ["GPT2LMHeadModel"]},
        {"intermediate_size": 3072, "pad_token_id": None},
    ),
    "gpt2-medium, distilgpt2": (
        "hf_gpt2",
        GPT2_BASE | {"n_special": 0, "predict_special_tokens": True, "_num_labels": 1},
        {"hidden_act": "gelu_tanh"},
    ),
    "gpt2-xl": (
        "hf_gpt2",
        GPT2_BASE | {"n_embd": 1600, "n_head": 25, "n_layer": 48, "output_past": True},
        {"intermediate_size": 6400, "layer_norm_eps": 1e-5},
    ),
    "uer/gpt2-chinese-cluecorpussmall": (
        "hf_gpt2",
        GPT2_BASE
        | {
            "gradient_checkpointing": False,
            "n_inner": None,
            "output_past": True,
            "tokenizer_class": "BertTokenizer",
            "vocab_size": 21128,
        },
        {"vocab_size": 21128, "pad_token_id": None},
    ),
    "gpt2 of transformers 5": ("hf_gpt2", HF_5 | GPT2_BASE | GPT2_NEW, {"intermediate_size": 3072}),
    "gpt2 of transformers 4 with every key": ("hf_gpt2", HF_4_ALL | GPT2_BASE | GPT2_NEW, {"intermediate_size": 3072}),
    "t5-small": (
        "hf_t5",
        T5_SMALL | T5_TASKS,
        {"hidden_act": "relu", "tie_word_embeddings": True, "scale_logits": True},
    ),
    "t5-v1_1-base": (
        "hf_t5",
        T5_SMALL | T5_11,
        {"hidden_act": "gelu_tanh", "gated_feed_forward": True, "tie_word_embeddings": False},
    ),
    "flan-t5-base": (
        "hf_t5",
        T5_SMALL | HF_4 | T5_11 | {"relative_attention_max_distance": 128},
        {"gated_feed_forward": True, "scale_logits": False},
    ),
    "mt5-small": (
        "hf_t5",
        T5_SMALL | HF_4 | T5_11 | {"model_type": "mt5", "tokenizer_class": "T5Tokenizer"},
        {"tie_word_embeddings": False, "scale_logits": False},
    ),
    "t5 of transformers 5": (
        "hf_t5",
        HF_5 | T5_SMALL | T5_NEW | {"scale_decoder_outputs": True},
        {"scale_logits": True},
    ),
    "t5 1.1 of transformers 5": (
        "hf_t5",
        HF_5 | T5_SMALL | T5_NEW | GATED_NEW | {"scale_decoder_outputs": False},
        {"hidden_act": "gelu_tanh", "scale_logits": False, "tie_word_embeddings": False},
    ),
    "mt5 of transformers 5": (
        "hf_t5",
        HF_5 | T5_SMALL | T5_NEW | GATED_NEW | {"model_type": "mt5", "bos_token_id": None},
        {"scale_logits": False, "tie_word_embeddings": False},
    ),
    "t5 of transformers 4 with every key": (
        "hf_t5",
        HF_4_ALL | T5_SMALL | T5_NEW | {"transformers_version": "4.41.2"},
        {"scale_logits": True},
    ),
    "gpt2-ml, mega.json": (
        "gpt2_ml",
        {
            "vocab_size": 8021,
            "hidden_size": 1536,
            "attention_probs_dropout_prob": 0.1,
            "hidden_dropout_prob": 0.1,
            "hidden_act": "gelu",
            "initializer_range": 0.014142135623731,
            "intermediate_size": 6144,
            "max_position_embeddings": 1024,
            "num_attention_heads": 24,
            "num_hidden_layers": 48,
        },
        {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "application": "lm"},
    ),
    "openai, 124M": (
        "openai_gpt2",
        {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12},
        {"intermediate_size": 3072, "pad_token_id": None},
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_config_files_that_users_have_are_read(name):
    own, raw, fields = PUBLIC[name]
    stored = HERE if own == "hf_t5" and not fields.get("tie_word_embeddings", True) else None
    found = (
        release(own).dialect_for(raw, name).read(json.loads(json.dumps(raw)), name, release(own).family, tensors=stored)
    )
    assert {field: getattr(found, field) for field in fields} == fields


def test_t5_configs_as_bert4keras_users_wrote_them_are_read():
    raw = json.loads((FIXTURES / "compat_bert4keras" / "t5_mesh_v11.bert4keras_config.json").read_text())
    found = read_config(release("t5_mesh"), raw, {"shared/embedding": (256, 44), "decoder/logits/kernel": (44, 256)})
    assert (found.hidden_act, found.gated_feed_forward, found.head_size) == ("gelu_tanh", True, 11)
    assert (found.tie_word_embeddings, found.scale_logits, found.num_decoder_layers) == (False, False, 2)
    with pytest.raises(ConfigError, match="attention_head_size and attention_key_size mean the same but differ"):
        read_config(release("t5_mesh"), raw | {"attention_key_size": 12}, {})
