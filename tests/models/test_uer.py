"""UER's Chinese GPT-2 and T5 in Hugging Face folders: a BERT vocabulary beside another model (Zhao et al., 2019).

Their config.json names the tokenizer's class; the other keys are those of gpt2-chinese-cluecorpussmall and
t5-small-chinese-cluecorpussmall, in small.
"""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import tfloader

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"春江潮水连海平月共生，。中国的首都是京北", "extra0", "extra1"]
CLS, SEP = 2, 3
GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "gradient_checkpointing": False,
    "initializer_range": 0.5,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 32,
    "n_embd": 16,
    "n_head": 2,
    "n_inner": None,
    "n_layer": 2,
    "n_positions": 32,
    "output_past": True,
    "resid_pdrop": 0.1,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 320}},
    "tokenizer_class": "BertTokenizer",
    "vocab_size": len(TOKENS),
}
T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 24,
    "d_kv": 8,
    "d_model": 16,
    "decoder_start_token_id": CLS,
    "dropout_rate": 0.1,
    "eos_token_id": SEP,
    "feed_forward_proj": "relu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 32,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "num_layers": 2,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 8,
    "tokenizer_class": "BertTokenizer",
    "vocab_size": len(TOKENS),
}


def folder_of(config, path):
    """A folder with random weights in place of UER's; returns (folder, the model that was written)."""
    keras.utils.set_random_seed(1)
    model = tfloader.build_transformer_model(config, model=config["model_type"], initializer_range=0.5)
    tfloader.save(model, path)
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    (path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "model_max_length": 1024}))
    return path, model


def ids(text):
    return [TOKENS.index(token) for token in text]


def test_the_gpt2_loads_and_nothing_stands_around_a_prompt(tmp_path):
    folder, written = folder_of(GPT2, tmp_path)
    model, tokenizer = tfloader.load(folder, final_activation="softmax"), tfloader.load_tokenizer(folder)
    assert tokenizer.encode("春江潮水")[0] == ids("春江潮水")
    assert tokenizer.token_to_id("[CLS]") == CLS  # UER's poems begin with it: give it before the ids of a prompt
    tokens = np.array([ids("春江潮水")])
    np.testing.assert_array_equal(model(tokens), written(tokens))
    generator = tfloader.TextGenerator(model, tokenizer)
    found = generator.generate_ids([tokens[0]], max_new_tokens=9, eos_token_id=None).sequences[0]
    for token in found:
        assert token == int(np.argmax(written(tokens)[0, -1]))
        tokens = np.append(tokens, [[token]], axis=1)


def test_the_t5_loads_and_reads_sentinels_between_cls_and_sep(tmp_path):
    folder, written = folder_of(T5, tmp_path)
    model, tokenizer = tfloader.load(folder), tfloader.load_tokenizer(folder)
    source = tokenizer.encode("中国的首都是extra0京")[0]
    assert source == [CLS, *ids("中国的首都是"), TOKENS.index("extra0"), *ids("京"), SEP]
    generator = tfloader.TextGenerator(model, tokenizer)
    assert generator.options({}).eos_token_id == (SEP,)
    found = generator.generate_ids([source], max_new_tokens=9, eos_token_id=None).sequences[0]
    targets = np.array([[CLS]])
    for token in found:
        assert token == int(np.argmax(written([np.array([source]), targets])[0, -1]))
        targets = np.append(targets, [[token]], axis=1)


@pytest.mark.parametrize("config", [GPT2, T5], ids=["gpt2", "t5"])
def test_the_folder_passes_every_check(config, tmp_path):
    from tfloader.inspection import verify

    folder, _ = folder_of(config, tmp_path)
    assert {check.name: check.detail for check in verify(folder) if check.status == "FAILED"} == {}
