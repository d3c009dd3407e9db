"""What tfloader writes opens in transformers with the same outputs, and the other way round.

Optional: needs transformers (5) and torch. Each test records its largest relative difference as a test property
(`--junitxml`); with transformers 5.23 and torch 2.13 none exceeds 1.1e-5.
"""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: parity with it is not checked"
)
torch = pytest.importorskip("torch", reason="torch is not installed: parity with transformers is not checked")

import tfloader  # noqa: E402
from tests.releases import ALL_HEADS, CASES, DISCRIMINATOR, GENERATOR, MLM, as_list, relative_error  # noqa: E402
from tfloader.errors import ConfigError  # noqa: E402
from tfloader.naming.heads import CLASSES as CLASSES_OF_HEADS  # noqa: E402

TOLERANCE = 5e-5
LENGTH, BATCH = 11, 3

CLASSES = {"bert": "BertForPreTraining", "gpt2": "GPT2LMHeadModel", "t5": "T5ForConditionalGeneration"}
# transformers 5 has no such models: it knows no NEZHA and no UniLM, and its BERT always has segments.
UNKNOWN = {"gpt2_ml", "hf_nezha", "hf_nezha_cls", "b4k_nezha", "b4k_nezha_gen", "b4k_simbert", "gau_alpha"}
# Nor RoFormerV2, nor a pooler for RoFormer: a test of its own saves it without.
UNKNOWN |= {"b4k_roformer", "b4k_roformer_factorized", "b4k_roformer_v2", "b4k_roformer_v2_factorized"}
# Nor segments of GPT with a table, nor T5 with positions across.
UNKNOWN |= {"b4k_gpt", "b4k_gpt_segtable", "b4k_t5_pegasus"}
KNOWN = [item for item in CASES if item.name not in UNKNOWN]


def open_in_transformers(folder, name):
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
    assert problems == {}, problems
    return model.eval()


def run_transformers(model, arrays):
    """Arrays in the order of tfloader's inputs -> outputs in the order of tfloader's outputs."""
    tensors = [torch.tensor(np.asarray(array, "int64")) for array in arrays]
    with torch.no_grad():
        if kind := next((kind for kind, end in CLASSES_OF_HEADS.items() if type(model).__name__.endswith(end)), None):
            outputs = [run_head(model, kind, tensors)]
        elif "Roberta" in type(model).__name__:
            tokens, mask = tensors
            outputs = [model(input_ids=tokens, attention_mask=mask).logits]
        elif "RoFormer" in type(model).__name__:
            tokens, segments, mask = tensors
            outputs = [model(input_ids=tokens, token_type_ids=segments, attention_mask=mask).logits]
        elif any(kind in type(model).__name__ for kind in ("Bert", "Albert", "Electra")):
            tokens, segments, *mask = tensors
            mask = mask[0] if mask else (tokens != 0).long()
            found = model(input_ids=tokens, token_type_ids=segments, attention_mask=mask)
            if type(model).__name__.endswith("Model"):
                pooled = found.get("pooler_output")
                outputs = [found.last_hidden_state if pooled is None else pooled]
            else:
                outputs = [
                    found[name]
                    for name in ("seq_relationship_logits", "sop_logits", "prediction_logits", "logits")
                    if name in found
                ]
        elif "GPT" in type(model).__name__:
            outputs = [model(input_ids=tensors[0]).logits]
        else:
            source, targets = tensors
            mask = (source != model.config.pad_token_id).long()
            outputs = [model(input_ids=source, attention_mask=mask, decoder_input_ids=targets).logits]
    return [output.float().numpy() for output in outputs]


def run_head(model, kind, tensors):
    """A head's logits as tfloader gives them, of its inputs."""
    tokens, second = tensors[0], tensors[1:]
    mask = (tokens != model.config.pad_token_id).long()
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if second and not type(model).__name__.startswith("GPT2"):
        inputs["token_type_ids"] = second[0]
    if kind == "multiple_choice":
        inputs = {name: tensor.reshape(2, 3, -1) for name, tensor in inputs.items()}
    found = model(**inputs)
    if kind == "question_answering":
        return torch.stack([found.start_logits, found.end_logits], -1)
    return found.logits.reshape(-1, 1) if kind == "multiple_choice" else found.logits


def largest_difference(found, expected):
    return max(relative_error(a, b) for a, b in zip(found, expected, strict=True))


def record(request, value):
    request.node.user_properties.append(("largest difference", value))
    assert value <= TOLERANCE


@pytest.mark.parametrize("case", KNOWN, ids=str)
def test_what_tfloader_writes_opens_in_transformers_with_the_same_outputs(case, tmp_path, request):
    model = tfloader.load(case.path, **case.options)
    tfloader.save(model, tmp_path)
    architecture = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    if architecture.startswith("T5") and model.transformer.config.model_type == "mt5":
        architecture = architecture.replace("T5", "MT5")
    theirs = open_in_transformers(tmp_path, architecture)
    record(request, largest_difference(run_transformers(theirs, case.input_arrays), case.expected))


@pytest.mark.parametrize("name", ["b4k_roformer", "b4k_roformer_factorized"])
def test_a_roformer_of_tensorflow_opens_in_transformers_with_the_originals_logits(name, tmp_path, request):
    """The epsilon of the head's norm, 1e-12 in the original, is 1e-7 there."""
    release = next(item for item in CASES if item.name == name)
    tfloader.save(tfloader.load(release.path, model="roformer", with_mlm="linear"), tmp_path)
    theirs = open_in_transformers(tmp_path, json.loads((tmp_path / "config.json").read_text())["architectures"][0])
    tokens, segments = release.input_arrays
    found = run_transformers(theirs, [tokens, segments, tokens != 0])
    record(request, largest_difference(found, release.expected[1:]))


@pytest.mark.parametrize("name", ["hf_bert_cls", "hf_bert_token", "hf_gpt2_cls"])
def test_the_labels_of_a_new_head_are_those_of_transformers(name, tmp_path, request):
    case = next(item for item in CASES if item.name == name)
    options = case.options | {"ignore": ["classifier.*", "score.*"], "id2label": {0: "bad", 1: "good"}}
    with pytest.warns(UserWarning, match="is new"):
        model = tfloader.load(case.path, **options)
    tfloader.save(model, tmp_path)
    theirs = open_in_transformers(tmp_path, json.loads((tmp_path / "config.json").read_text())["architectures"][0])
    assert theirs.config.id2label == {0: "bad", 1: "good"} and theirs.config.label2id == {"bad": 0, "good": 1}
    record(request, largest_difference(run_transformers(theirs, case.input_arrays), [model(case.input_arrays)]))


BERT_HEADS = ({}, {"with_pool": True}, {"with_mlm": "linear"}, {"with_nsp": "linear", "with_mlm": "linear"})
HEADS = [(name, heads) for name in ("bert_google", "albert_google") for heads in BERT_HEADS]
HEADS += [("electra_google", {}), ("electra_google_generator", {"model": "electra_generator"})]


@pytest.mark.parametrize(("name", "heads"), HEADS, ids=str)
def test_a_model_with_any_heads_opens_in_the_class_that_its_config_names(name, heads, tmp_path, request):
    google = next(item for item in CASES if item.name == name)
    model = tfloader.load(google.path, custom_attention_mask=True, **heads)
    tfloader.save(model, tmp_path)
    architecture = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    options = {} if heads or "electra" in name else {"add_pooling_layer": False}
    theirs, info = getattr(transformers, architecture).from_pretrained(tmp_path, output_loading_info=True, **options)
    assert not any(info.values()), info
    found = as_list(model(google.input_arrays))
    record(
        request,
        largest_difference(run_transformers(theirs.eval(), google.input_arrays), [np.asarray(f) for f in found]),
    )


BERT = {
    "vocab_size": 97,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
ROBERTA = BERT | {"type_vocab_size": 1}
ALBERT = BERT | {"embedding_size": 7, "num_hidden_layers": 4}
ELECTRA = BERT | {"embedding_size": 7}
GPT2 = {"vocab_size": 97, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 20}
GPT = {"vocab_size": 97, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 20}
T5 = {"vocab_size": 97, "d_model": 24, "num_layers": 2, "num_heads": 3, "d_kv": 5, "d_ff": 40}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
MODELS = {
    # name: (class, config class, settings)
    "bert": ("BertForPreTraining", "BertConfig", BERT),
    "bert relu": ("BertForPreTraining", "BertConfig", BERT | {"hidden_act": "relu"}),
    "bert gelu_new": ("BertForPreTraining", "BertConfig", BERT | {"hidden_act": "gelu_new"}),
    "bert silu": ("BertForPreTraining", "BertConfig", BERT | {"hidden_act": "silu"}),
    "bert epsilon": ("BertForPreTraining", "BertConfig", BERT | {"layer_norm_eps": 1e-5}),
    "bert large epsilon": ("BertForPreTraining", "BertConfig", BERT | {"layer_norm_eps": 0.1}),
    "bert four segments": ("BertForPreTraining", "BertConfig", BERT | {"type_vocab_size": 4}),
    "albert": ("AlbertForPreTraining", "AlbertConfig", ALBERT),
    "albert exact gelu": ("AlbertForPreTraining", "AlbertConfig", ALBERT | {"hidden_act": "gelu"}),
    "albert epsilon": ("AlbertForPreTraining", "AlbertConfig", ALBERT | {"layer_norm_eps": 0.1}),
    "albert two groups": ("AlbertForPreTraining", "AlbertConfig", ALBERT | {"num_hidden_groups": 2}),
    "albert uneven groups": ("AlbertForPreTraining", "AlbertConfig", ALBERT | {"num_hidden_groups": 3}),
    "albert unshared": ("AlbertForPreTraining", "AlbertConfig", ALBERT | {"num_hidden_groups": 4}),
    "albert inner groups": ("AlbertForPreTraining", "AlbertConfig", ALBERT | {"inner_group_num": 2}),
    "albert both groups": (
        "AlbertForPreTraining",
        "AlbertConfig",
        ALBERT | {"num_hidden_groups": 2, "inner_group_num": 3},
    ),
    "electra": ("ElectraForPreTraining", "ElectraConfig", ELECTRA),
    "electra not factorised": ("ElectraForPreTraining", "ElectraConfig", BERT | {"embedding_size": 24}),
    "electra relu": ("ElectraForPreTraining", "ElectraConfig", ELECTRA | {"hidden_act": "relu"}),
    "electra_generator": ("ElectraForMaskedLM", "ElectraConfig", ELECTRA),
    "electra_generator epsilon": ("ElectraForMaskedLM", "ElectraConfig", ELECTRA | {"layer_norm_eps": 0.1}),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", ROBERTA),
    "roberta epsilon": ("RobertaForMaskedLM", "RobertaConfig", ROBERTA | {"layer_norm_eps": 0.1}),
    "roformer": ("RoFormerForMaskedLM", "RoFormerConfig", BERT),
    "roformer factorized": ("RoFormerForMaskedLM", "RoFormerConfig", BERT | {"embedding_size": 7}),
    "roformer epsilon": ("RoFormerForMaskedLM", "RoFormerConfig", BERT | {"layer_norm_eps": 0.1}),
    "gpt": ("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", GPT),
    "gpt relu": ("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", GPT | {"afn": "relu"}),
    "gpt silu": ("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", GPT | {"afn": "silu"}),
    "gpt epsilon": ("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", GPT | {"layer_norm_epsilon": 0.1}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "gpt2 n_inner": ("GPT2LMHeadModel", "GPT2Config", GPT2 | {"n_inner": 50}),
    "gpt2 relu": ("GPT2LMHeadModel", "GPT2Config", GPT2 | {"activation_function": "relu"}),
    "gpt2 exact gelu": ("GPT2LMHeadModel", "GPT2Config", GPT2 | {"activation_function": "gelu"}),
    "gpt2 epsilon": ("GPT2LMHeadModel", "GPT2Config", GPT2 | {"layer_norm_epsilon": 0.1}),
    "t5 1.0": ("T5ForConditionalGeneration", "T5Config", T5),
    "t5 1.1": ("T5ForConditionalGeneration", "T5Config", T5 | GATED),
    "t5 gated, tied and scaled": ("T5ForConditionalGeneration", "T5Config", T5 | {"feed_forward_proj": "gated-gelu"}),
    "t5 gated-relu": ("T5ForConditionalGeneration", "T5Config", T5 | {"feed_forward_proj": "gated-relu"}),
    "t5 gated-silu": ("T5ForConditionalGeneration", "T5Config", T5 | {"feed_forward_proj": "gated-silu"}),
    "t5 gelu": ("T5ForConditionalGeneration", "T5Config", T5 | {"feed_forward_proj": "gelu"}),
    "t5 distance": ("T5ForConditionalGeneration", "T5Config", T5 | {"relative_attention_max_distance": 20}),
    "t5 buckets": (
        "T5ForConditionalGeneration",
        "T5Config",
        T5 | {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 9},
    ),
    "t5 fewer decoder layers": ("T5ForConditionalGeneration", "T5Config", T5 | {"num_decoder_layers": 1}),
    "t5 epsilon": ("T5ForConditionalGeneration", "T5Config", T5 | {"layer_norm_epsilon": 0.1}),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", T5),
    "mt5 epsilon": ("MT5ForConditionalGeneration", "MT5Config", T5 | {"layer_norm_epsilon": 0.1}),
}


def random_model(name, seed=0):
    """A tiny model of transformers with weights that are far from their initial values."""
    architecture, config_class, settings = MODELS[name]
    torch.manual_seed(seed)
    model = getattr(transformers, architecture)(getattr(transformers, config_class)(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.requires_grad:  # RoFormer's table of positions is no weight
                continue
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def random_inputs(name, vocab=97):
    rng = np.random.default_rng(3)
    tokens = rng.integers(2, vocab, (BATCH, LENGTH)).astype("int32")
    if name.startswith(("bert", "albert", "electra", "roformer")):
        tokens[1, 8:] = 0
        return [tokens, rng.integers(0, 2, tokens.shape).astype("int32"), (tokens != 0).astype("int32")]
    if name.startswith("gpt"):
        return [tokens]
    if name.startswith("roberta"):
        tokens[1, 8:] = tokens[2, :3] = 1  # on either side
        return [tokens, (tokens != 1).astype("int32")]
    tokens[1, 8:] = 0
    targets = rng.integers(2, vocab, (BATCH, LENGTH + 2)).astype("int32")
    targets[:, 0] = 0
    return [tokens, targets]


def options_of(name):
    options = {"bert": ALL_HEADS, "albert": ALL_HEADS, "electra": DISCRIMINATOR, "electra_generator": GENERATOR}
    return {**options, "roberta": MLM, "roformer": MLM}.get(name.split()[0], {})


@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_writes_is_loaded_with_the_same_outputs_and_back(name, tmp_path, request):
    theirs = random_model(name)
    theirs.save_pretrained(tmp_path / "theirs")
    inputs = random_inputs(name)
    expected = run_transformers(theirs, inputs)
    model = tfloader.load(tmp_path / "theirs", **options_of(name))
    found = [np.asarray(output) for output in as_list(model([np.asarray(array) for array in inputs]))]
    record(request, largest_difference(found, expected))

    tfloader.save(model, tmp_path / "ours")
    again = open_in_transformers(tmp_path / "ours", MODELS[name][0])
    record(request, largest_difference(run_transformers(again, inputs), expected))


@pytest.mark.parametrize("name", ["bert", "albert", "electra", "gpt2", "t5 1.0", "t5 1.1", "mt5"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_hold_the_same_weights_on_both_sides(name, dtype, tmp_path, request):
    theirs = random_model(name).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path / "theirs")
    inputs = random_inputs(name)
    expected = run_transformers(theirs.float(), inputs)
    model = tfloader.load(tmp_path / "theirs", dtype="float32", **options_of(name))
    found = [np.asarray(output) for output in as_list(model([np.asarray(array) for array in inputs]))]
    record(request, largest_difference(found, expected))

    half = tfloader.load(tmp_path / "theirs", dtype=dtype, **options_of(name))
    tfloader.save(half, tmp_path / "ours")
    again = getattr(transformers, MODELS[name][0]).from_pretrained(tmp_path / "ours")
    # transformers keeps T5's `wo` in float32, whatever the file has
    assert getattr(torch, dtype) in {parameter.dtype for parameter in again.parameters()}
    before, after = theirs.state_dict(), again.float().state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_t5_means_the_same_to_both_whatever_its_file_says_of_tied_and_scaled(tmp_path, request):
    """Every combination of the two keys that transformers 5 reads, with and without a stored lm_head."""
    for name in ("t5 1.0", "t5 1.1"):
        folder = tmp_path / name.replace(" ", "-")
        random_model(name).save_pretrained(folder)
        path = folder / "config.json"
        written = json.loads(path.read_text())
        for tied in (True, False):
            for scaled in (True, False):
                path.write_text(json.dumps(written | {"tie_word_embeddings": tied, "scale_decoder_outputs": scaled}))
                theirs = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
                inputs = random_inputs(name)
                model = tfloader.load(folder)
                record(request, relative_error(model(inputs), run_transformers(theirs, inputs)[0]))


@pytest.mark.parametrize("said", [{"dense_act_fn": "gelu"}, {"is_gated_act": False}])
def test_t5_files_that_contradict_themselves_are_refused_as_transformers_believes_the_other_key(said, tmp_path):
    random_model("t5 1.1").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    config = transformers.T5Config.from_pretrained(tmp_path)
    assert all(getattr(config, key) == value for key, value in said.items())
    with pytest.raises(ConfigError, match="contradicts"):
        tfloader.load(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "BertConfig",
        "AlbertConfig",
        "ElectraConfig",
        "RobertaConfig",
        "RoFormerConfig",
        "OpenAIGPTConfig",
        "GPT2Config",
        "T5Config",
        "MT5Config",
    ],
)
def test_every_key_that_transformers_writes_is_known(name):
    """A new transformers may add keys: each must be looked at, not ignored."""
    from tfloader.naming import RELEASES

    raw = getattr(transformers, name)().to_dict()
    dialects = [
        dialect for release in RELEASES if release.config_files == ("config.json",) for dialect in release.dialects
    ]
    dialect = next(item for item in dialects if item.constants.get("model_type") == raw["model_type"])
    dialect.read(json.loads(json.dumps(raw)), name, raw["model_type"])
    assert set(inspect.signature(getattr(transformers, name)).parameters) - set(raw) <= {"kwargs"}
