"""What comes with the package: it is found, and installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfloader
from tests.test_examples import example
from tfloader import assets
from tfloader.assets import boxed
from tfloader.errors import CheckpointError


def test_a_model_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(boxed, "FOLDER", str(tmp_path))
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text("{}")
    assert Path(assets.path("small")) == tmp_path / "small"
    with pytest.raises(CheckpointError, match="No model 'large' comes with this tfloader; there is small"):
        assets.path("large")


def test_finding_one_needs_no_framework():
    code = "import sys, tfloader.assets; assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_model_in_the_box_writes_a_poem_of_the_form_that_is_asked_for():
    model = tfloader.load(assets.path(), dtype="float32")
    tokenizer = tfloader.load_tokenizer(assets.path())
    defaults = tfloader.load_generation_config(Path(assets.path()) / "generation_config.json")
    generator = tfloader.TextGenerator(model, tokenizer, defaults)
    assert model.count_params() == 4_864_000
    prompts = [f"七言绝句《{title}》李白：" for title in ("春夜", "山居", "送别", "秋雨", "江上", "归家", "月", "渔父")]
    poems = generator.generate(prompts, seed=1)
    right = [example("pretrain_language_model").form_of("诗", poem) == "七言绝句" for poem in poems]
    assert sum(right) >= 7, poems
    assert len(set(poems)) == len(poems)
    loss = -generator.score("春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。") / 23
    assert loss < np.log(150), "far better than chance, which is log(6274)"
