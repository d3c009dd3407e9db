"""A converted folder gives the same outputs in transformers and, for GPT-2 and T5, in CTranslate2.

Optional: needs transformers (5), torch and ctranslate2. Each test records its largest difference, relative to the
largest value, as a test property (`--junitxml`).
"""

from __future__ import annotations

import numpy as np
import pytest

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: what it makes of converted folders is not checked"
)
torch = pytest.importorskip("torch", reason="torch is not installed: transformers does not run without it")

import tfloader  # noqa: E402
from tests.releases import case, relative_error  # noqa: E402

TOLERANCE = 5e-5


def record(request, value):
    request.node.user_properties.append(("largest difference", value))
    assert value <= TOLERANCE


def tensor(array):
    return torch.tensor(np.asarray(array, "int64"))


def bert(folder, arrays):
    model = transformers.BertForPreTraining.from_pretrained(folder).eval()
    found = model(
        input_ids=tensor(arrays["input_ids"]),
        token_type_ids=tensor(arrays["segment_ids"]),
        attention_mask=tensor(arrays["input_mask"]),
    )
    return found.seq_relationship_logits, found.prediction_logits


def gpt2(folder, arrays):
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    return (model(input_ids=tensor(arrays["tokens"])).logits,)


def t5(folder, arrays):
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    mask = tensor(arrays["input_ids"] != 0)
    source, targets = tensor(arrays["input_ids"]), tensor(arrays["decoder_input_ids"])
    return (model(input_ids=source, attention_mask=mask, decoder_input_ids=targets).logits,)


@pytest.mark.parametrize(
    ("name", "run"), [("bert_google", bert), ("gpt2_openai", gpt2), ("t5_mesh_v10", t5), ("mt5_mesh", t5)]
)
def test_a_converted_tensorflow_checkpoint_gives_the_original_s_outputs_in_transformers(name, run, tmp_path, request):
    original = case(name)
    tfloader.convert(original.path, tmp_path / "out", verify=False)
    with torch.no_grad():
        found = run(tmp_path / "out", original.arrays)
    errors = [relative_error(a.numpy(), b) for a, b in zip(found, original.expected, strict=True)]
    record(request, max(errors))


# ---- CTranslate2


@pytest.fixture
def translated(tmp_path):
    """Converts a fixture with tfloader and then with CTranslate2; gives both folders."""
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed: whether it reads our folders is not known")
    from ctranslate2.converters import TransformersConverter

    def convert(name):
        tfloader.convert(case(name).path, tmp_path / "ours", verify=False)
        TransformersConverter(str(tmp_path / "ours")).convert(str(tmp_path / "theirs"))
        return str(tmp_path / "ours"), str(tmp_path / "theirs")

    return convert


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_ctranslate2_runs_a_converted_gpt2(translated, request):
    import ctranslate2

    ours, theirs = translated("gpt2_openai")
    tokenizer = tfloader.load_tokenizer(ours)
    ids = case("gpt2_openai").arrays["tokens"]
    tokens = [tokenizer.ids_to_tokens(row) for row in ids]
    generator = ctranslate2.Generator(theirs, compute_type="float32")
    found = np.array(generator.forward_batch(tokens, return_log_probs=False).to(ctranslate2.DataType.float32))
    expected = case("gpt2_openai").expected[0]
    record(request, relative_error(found[..., : expected.shape[-1]], expected))


def test_ctranslate2_scores_with_a_converted_t5_as_tfloader_does(translated, request):
    import ctranslate2

    # T5 1.0: of T5 1.1, CTranslate2 4.8 with transformers 5 takes the output layer for the tied embedding, and scales.
    ours, theirs = translated("t5_mesh_v10")
    tokenizer = tfloader.load_tokenizer(ours)
    source, target = [20, 31, 42, 53, 1], [60, 71, 82, 93]
    translator = ctranslate2.Translator(theirs, compute_type="float32")
    (scores,) = translator.score_batch([tokenizer.ids_to_tokens(source)], [tokenizer.ids_to_tokens(target)])
    logits = np.asarray(tfloader.load(ours)([np.array([source]), np.array([[0, *target]])]))[0]
    expected = log_softmax(logits)[range(5), [*target, 1]]
    record(request, relative_error(np.array(scores.log_probs), expected))
