"""What is measured of the model in the box: perplexities token by token, line lengths, copied lines."""

from __future__ import annotations

import json
from types import SimpleNamespace

import boxed_model
import numpy as np
import pytest
from boxed_model import training

import tfloader


@pytest.fixture(scope="module")
def poet(tmp_path_factory):
    """A folder like the one in the box, of a tiny model that was not trained, and the data it belongs to."""
    folder = tmp_path_factory.mktemp("poet")
    lines = training.SAMPLE.read_text("utf-8").splitlines()[:60]
    (folder / "poems.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    vocabulary = training.make_vocabulary(training.read_poems(folder / "poems.tsv"), 1)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "initializer_range": 0.5}
    config = {**training.CONFIG, **size, "vocab_size": len(vocabulary), "eos_token_id": 3, "bos_token_id": None}
    training.write(training.compiled(config, 1, 1e-3, "float32"), config, vocabulary, folder)
    habits = folder / "generation_config.json"
    habits.write_text(json.dumps({**json.loads(habits.read_text()), "max_new_tokens": 12}))
    return folder


@pytest.fixture(scope="module")
def poems(poet):
    ids = tfloader.load_vocab(poet / "vocab.txt")
    return [training.Poem(row, ids) for row in training.read_poems(poet / "poems.tsv")], len(ids)


def test_log_probabilities_are_those_of_each_sequence_alone(poet, poems):
    model = tfloader.load(poet)
    sequences = [poem.described() for poem in poems[0][:7]]
    found = boxed_model.log_probabilities(model, sequences, batch=3)
    for sequence, row in zip(sequences, found, strict=True):
        logits = np.asarray(model(np.array([sequence])), "float64")[0, :-1]
        expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        np.testing.assert_allclose(row, expected[np.arange(len(sequence) - 1), sequence[1:]], rtol=1e-5)


def test_perplexities_are_those_that_training_reports(poet, poems):
    model, (poems, vocab_size) = tfloader.load(poet), poems
    lines = boxed_model.report_perplexity(model, poems[:40], poems[40:], vocab_size).splitlines()
    alone, behind, described = ([cell.strip() for cell in line.split("|")[2:5]] for line in lines[2:])
    for cells, way in ((alone, training.Poem.bare), (described, training.Poem.described)):
        sequences = [way(poem) for poem in poems[40:]]
        assert int(cells[0]) == sum(map(len, sequences)) - len(sequences)
        assert float(cells[1]) == pytest.approx(training.perplexity(model, sequences), abs=0.02)
    # The same tokens as alone, with more before them.
    assert behind[0] == alone[0] and behind[1] != alone[1]


def test_a_form_is_known_by_the_lengths_of_its_lines():
    assert boxed_model.form_of("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。") == "五言绝句"
    assert boxed_model.form_of("白日依山尽，黄河入海流。欲穷千里目，更上层楼。") == "杂言诗"
    assert boxed_model.form_of("。") == boxed_model.form_of("") == ""


def test_prompts_have_titles_and_authors_that_the_model_can_read():
    rows = [
        ("词", "浣溪沙", "晏殊", "一曲新词酒一杯。"),
        ("五言绝句", "登鹳雀楼", "王之涣", "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。"),
        ("杂言诗", "登幽州台歌", "陈子昂", "前不见古人，后不见来者。念天地之悠悠。"),
    ]
    known = set("登鹳雀楼王之涣歌陈子昂白日依山前不见古")
    assert boxed_model.requests(rows, known, 5)["七言律诗"] == ["七言律诗《登鹳雀楼》王之涣："]
    assert boxed_model.beginnings(rows, known, 5) == ["白日依山"]
    assert boxed_model.beginnings(rows, known - {"白"}, 5) == []


def test_right_line_lengths_and_copied_lines_are_counted():
    """Two poems asked for of each form; whatever is asked for comes as a 五言绝句, half of its lines copied."""
    learned = [("五言绝句", "", "", "白日依山尽，黄河入海流。")]
    held_out = [("五言绝句", "题", "人", "甲乙丙丁戊，白日依山尽。")] * 2
    poem = "白日依山尽，黄河入海流。甲乙丙丁戊，己庚辛壬癸。"
    generator = SimpleNamespace(generate=lambda prompts, **options: [poem] * len(prompts))
    forms, copies, samples = boxed_model.report_writing(generator, learned, held_out, set("题人甲乙丙丁"), 2)
    cells = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in forms.splitlines()[2:]}
    assert cells["五言绝句"] == "100.0% of 2" and cells["七言绝句"] == "0.0% of 2"
    # 甲乙丙丁 and the first line make one of 9.
    assert list(cells.values())[-1] == "0.0% of 2"
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in copies.splitlines()[2:]]
    assert rows == [["as shipped", "50.0% of 32"], ["greedy", "50.0% of 32"]]
    assert samples.splitlines()[1] == f"- 七言绝句《题》人：{poem}"


def test_samples_do_not_depend_on_how_they_are_batched(poet, monkeypatch):
    generator = tfloader.TextGenerator(tfloader.load(poet), tfloader.load_tokenizer(poet), defaults=poet)
    prompts = ["五言", "七言", "五言"]
    together = boxed_model.written(generator, prompts)
    assert together[0] != together[2]
    monkeypatch.setattr(boxed_model, "BATCH", 2)
    assert boxed_model.written(generator, prompts) == together


def test_the_whole_report_is_printed(poet, capsys):
    boxed_model.main(["--data", str(poet / "poems.tsv"), "--model", str(poet), "--count", "1"])
    printed = capsys.readouterr().out
    assert "| poems alone |" in printed and "| 七言律诗 |" in printed and "| held-out poems |" in printed


def test_no_poem_that_is_learned_has_a_line_of_one_that_is_held_out():
    """Short lines, of songs, are common property."""
    song, twin, other, held_out = (
        ("词", "", "", text) for text in ("春光好。", "a，白日依山尽。", "b，黄河入海流。", "白日依山尽，春光好。")
    )
    assert training.split([song, twin, other, held_out], 0.25) == ([song, other], [held_out])
