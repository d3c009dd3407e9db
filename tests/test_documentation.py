"""The documentation is true: its code runs, its names, options and links exist, its printed output is what is printed.

The Python of a page runs as one session in a temporary folder, in which the names of public checkpoints are links to
fixtures. A block after `<!-- needs: package, package -->` runs where these packages are installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.test_examples import needs_weights, similarity
from tfloader import cli, naming
from tfloader.models import builder
from tfloader.models.builder import split_options

ROOT = Path(__file__).parents[1]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
# The names that the pages use for public checkpoints.
PUBLIC = {
    "chinese_L-12_H-768_A-12": "bert_google",
    "GPT_LCCC-base-tf": "b4k_gpt",
    "124M": "gpt2_openai",
    "gpt2-ml-15g": "gpt2_ml",
    "mt5-small": "mt5_mesh",
}
FAMILIES = {"BERT": "bert", "GPT": "gpt", "GPT-2": "gpt2", "GPT2_ML": "gpt2_ml", "T5": "t5"}
KIN = {"ALBERT": "albert", "ELECTRA": "electra"}  # of BERT, with options of their own

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is that of its first line of code, `needs` the packages that it wants."""

    language: str
    code: str
    line: int
    needs: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in re.finditer(r"^(?:<!-- needs: (.*?) -->\n)?```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        needs, language, code = match.groups()
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Block(language, code, line, tuple(needs.split(", ")) if needs else ()))
    assert text.count("\n```") == 2 * len(found), f"{page.name}: a fenced block that is not understood"
    return found


def printed(page: Path, start: str) -> str:
    """The only text block that starts so."""
    (block,) = [item for item in blocks(page) if item.language == "text" and item.code.startswith(start)]
    return block.code


def rows(text: str) -> Iterator[list[str]]:
    """The cells of all tables."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader's folder; families and releases that a page registers are forgotten afterwards."""
    for name, fixture in PUBLIC.items():
        (tmp_path / name).symlink_to(CHECKPOINTS / fixture, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    releases, families = list(naming.RELEASES), dict(builder.FAMILIES)
    yield tmp_path
    naming.RELEASES[:] = releases
    builder.FAMILIES.clear()
    builder.FAMILIES.update(families)


# ---- code


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The head .* is new")  # as the page says
@pytest.mark.parametrize("page", [page for page in PAGES if page != CHINESE], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, reader):
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python" and all(importlib.util.find_spec(name) for name in block.needs):
            code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
            exec(code, namespace)  # a page of ours


def test_what_the_readme_saves_is_what_it_trained(reader):
    """Its claim that the model which `load` returned shares the variables of the models built on it."""
    import keras
    import numpy as np

    bert = tfloader.load("chinese_L-12_H-768_A-12", with_pool=True)
    classifier = keras.Model(bert.inputs, keras.layers.Dense(2)(bert.output))
    classifier.get_layer("Embedding-Norm").beta.assign_add(np.ones(48))
    tfloader.save(bert, "changed")
    tokens = np.array([[101, 120, 102]])
    again = tfloader.load("changed", with_pool=True)
    np.testing.assert_array_equal(again([tokens, tokens * 0]), bert([tokens, tokens * 0]))


def test_a_keras_file_is_read_in_another_process_as_the_readme_says(reader):
    model = tfloader.load("chinese_L-12_H-768_A-12", num_hidden_layers=1)
    model.save("model.keras")
    code = "import keras, tfloader.layers; print(keras.saving.load_model('model.keras').count_params())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=elsewhere(), check=False)
    assert done.stdout.strip() == str(model.count_params()), done.stderr


def elsewhere() -> dict[str, str]:
    """The environment of a process that finds tfloader from any folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def test_both_readmes_have_the_same_code():
    assert [(block.language, block.code, block.needs) for block in blocks(README)] == [
        (block.language, block.code, block.needs) for block in blocks(CHINESE)
    ]


def test_the_readmes_test_command_is_what_ci_runs():
    commands = [block.code.strip() for block in blocks(README) if block.language == "sh"]
    assert len(commands) == 2 and not any("\n" in command for command in commands)
    assert commands[1] in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert "python examples/sentence_similarity.py" in commands[0]
    assert f"pip install --no-deps {similarity.PACKAGE.replace('_', '-')}" in commands[0]


# ---- names


@by_page
def test_names_of_modules_functions_and_classes_exist(page):
    names = re.findall(r"`((?:tfloader|keras)(?:\.\w+)+)", page.read_text("utf-8"))
    missing = [name for name in names if not exists(name)]
    assert not missing


def exists(name: str) -> bool:
    module, *attributes = name.split(".")
    found: object = importlib.import_module(module)
    for attribute in attributes:
        if not hasattr(found, attribute):
            if not isinstance(found, ModuleType) or not importlib.util.find_spec(f"{found.__name__}.{attribute}"):
                return False
            importlib.import_module(f"{found.__name__}.{attribute}")
        found = getattr(found, attribute)
    return True


@by_page
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", [README, CHINESE], ids=lambda page: page.name)
def test_options_belong_to_the_families_that_the_table_says(page):
    table = [row for row in rows(page.read_text("utf-8")) if len(row) == 3 and re.fullmatch(r"`\w+`", row[0])]
    options = {row[0].strip("`"): row[1] for row in table}
    assert len(options) > 10
    for option, families in options.items():
        for family in re.split(r", |、", families):
            for name in FAMILIES.values() if family in ("all", "全部") else [(FAMILIES | KIN)[family]]:
                split_options(builder.FAMILIES[name], {option: None})


@pytest.mark.parametrize("page", [README, CHINESE], ids=lambda page: page.name)
def test_every_option_is_documented(page):
    classes = {base for family in builder.FAMILIES.values() for base in family.__mro__}
    options = {
        name
        for function in (tfloader.load, *(item.__init__ for item in classes))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    text = page.read_text("utf-8")
    assert not [name for name in options if f"`{name}" not in text]


def test_every_error_and_command_is_documented():
    text = README.read_text("utf-8")
    errors = [name for name in tfloader.__all__ if name.endswith("Error")]
    assert not [name for name in errors if f"`{name}`" not in text and f"`tfloader.{name}`" not in text]
    assert not [command.__name__ for command in cli.COMMANDS if f"`tfloader {command.__name__}" not in text]


def test_layer_names_for_bert4keras_users_exist(reader):
    text = (ROOT / "docs" / "migrating-from-bert4keras.md").read_text("utf-8")
    table = {row[0]: re.findall(r"`(.+?)`", row[1]) for row in rows(text) if len(row) == 2 and row[0] in FAMILIES}
    assert set(table) == set(FAMILIES)
    options = {"BERT": {"with_nsp": True, "with_mlm": True}}
    for (family, names), path in zip(table.items(), PUBLIC, strict=True):
        model = tfloader.load(path, **options.get(family, {}))
        missing = set(names) - {layer.name for layer in model.layers}
        assert model.transformer.config.family == FAMILIES[family] and not missing


def test_the_diff_on_the_architecture_page_is_what_stands_in_the_files():
    (diff,) = [block.code for block in blocks(ROOT / "docs" / "architecture.md") if block.language == "diff"]
    path, missing = None, []
    for line in diff.splitlines():
        if line.startswith("+++ "):
            path = ROOT / line.removeprefix("+++ ")
        elif line.removeprefix("+") not in path.read_text("utf-8").splitlines():
            missing.append((path.name, line))
    assert path and not missing


# The public names at the top of each module of bert4keras 0.11.5, and the methods of its Transformer.
BERT4KERAS = {
    "models": """Transformer LM_Mask UniLM_Mask BERT ALBERT ALBERT_Unshared NEZHA RoFormer RoFormerV2 ELECTRA GPT GPT2
        GPT2_ML T5_Base T5_Encoder T5_Decoder T5 extend_with_language_model extend_with_unified_language_model
        data_parallel build_transformer_model .build .call .prefixed .apply .get_inputs .apply_embeddings
        .apply_main_layers .apply_final_layers .compute_attention_bias .compute_position_bias .set_inputs .set_outputs
        .initializer .simplify .load_embeddings .load_variable .create_variable .variable_mapping
        .load_weights_from_checkpoint .save_weights_as_checkpoint""",
    "layers": """integerize_shape Layer Model Node NodeBase GlobalAveragePooling1D GlobalMaxPooling1D Embedding
        ScaleOffset Concatenate1D BatchSplit BatchConcat MultiHeadAttention GatedAttentionUnit LayerNormalization
        PositionEmbedding SinusoidalPositionEmbedding RelativePositionEmbedding RelativePositionEmbeddingT5 FeedForward
        ConditionalRandomField MaximumEntropyMarkovModel GlobalPointer EfficientGlobalPointer Loss custom_objects""",
    "backend": """keras K is_tf_keras do_recompute get_available_gpus gelu_erf gelu_tanh set_gelu piecewise_linear
        search_layer align reshape flatten dtype where logsumexp sequence_masking batch_gather pool1d
        divisible_temporal_padding root_mean_square swish leaky_relu attention_normalize sinusoidal_embeddings
        Sinusoidal apply_rotary_position_embeddings multilabel_categorical_crossentropy
        sparse_multilabel_categorical_crossentropy
        symbolic graph_mode_decorator recompute_grad custom_objects""",
    "optimizers": """Adam AdaFactor AdaFactorBase AdaFactorV1 AdaFactorV2 Lion LionV2 export_to_custom_objects
        custom_objects extend_with_weight_decay extend_with_weight_decay_v2 extend_with_layer_adaptation
        extend_with_layer_adaptation_v2 extend_with_piecewise_linear_lr extend_with_piecewise_linear_lr_v2
        extend_with_gradient_accumulation extend_with_gradient_accumulation_v2 extend_with_lookahead
        extend_with_lookahead_v2 extend_with_lazy_optimization extend_with_lazy_optimization_v2
        extend_with_exponential_moving_average extend_with_exponential_moving_average_v2 extend_with_parameter_wise_lr
        extend_with_parameter_wise_lr_v2""",
    "snippets": """is_py2 basestring to_array is_string strQ2B string_matching convert_to_unicode convert_to_str
        lowercase_and_normalize open parallel_apply_generator parallel_apply sequence_padding truncate_sequences
        text_segmentate is_one_of DataGenerator ViterbiDecoder softmax AutoRegressiveDecoder insert_arguments
        delete_arguments longest_common_substring longest_common_subsequence orthogonally_resize WebServing Hook
        uniout""",
    "tokenizers": "load_vocab save_vocab TokenizerBase Tokenizer SpTokenizer .stem",
}
KEPT = {"same", "fixed"}


def names_of_bert4keras(module: str) -> list[tuple[str, str, str]]:
    """(name, what the page says of it, status) for each name in the tables under a module's heading."""
    text = (ROOT / "docs" / "migrating-from-bert4keras.md").read_text("utf-8")
    section = text.partition(f"\n### `bert4keras.{module}`\n")[2].partition("\n### ")[0]
    table = [row for row in rows(section) if len(row) == 3 and row[0].startswith("`")]
    return [(name, today, status) for names, today, status in table for name in re.findall(r"`(.+?)`", names)]


@pytest.mark.parametrize("module", BERT4KERAS)
def test_every_name_of_bert4keras_stands_once_on_the_page(module):
    assert sorted(name for name, _, _ in names_of_bert4keras(module)) == sorted(BERT4KERAS[module].split())


@pytest.mark.parametrize("module", BERT4KERAS)
def test_what_the_page_says_of_each_name_of_bert4keras_can_be_imported(module):
    for name, today, status in names_of_bert4keras(module):
        named = re.findall(r"`((?:tfloader|keras)(?:\.\w+)+)", today)
        assert status in KEPT | {"renamed", "Keras", "gone"}
        assert all(exists(path) for path in named), name
        if status in KEPT and name != ".initializer":  # an attribute of instances
            bare = name.removeprefix(".")
            assert any(path.endswith(f".{bare}") or exists(f"{path}.{bare}") for path in named), name


def test_no_private_api_is_used_as_the_architecture_page_says():
    sources = {path.name: path.read_text("utf-8") for path in (ROOT / "tfloader").rglob("*.py")}
    assert not [name for name, source in sources.items() if re.search(r"keras\.src|tensorflow\.python", source)]


# ---- tables and output


def test_the_tables_of_checkpoints_are_those_of_the_code():
    page = ROOT / "docs" / "checkpoints.md"
    spec = importlib.util.spec_from_file_location("make_checkpoints", page.with_name("make_checkpoints.py"))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.with_tables(page.read_text("utf-8")) == page.read_text("utf-8"), "run python docs/make_checkpoints.py"


def test_the_changelog_knows_this_version():
    assert f"\n## {tfloader.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_error_in_the_readme_is_the_one_that_users_get(tmp_path, monkeypatch):
    shutil.copytree(CHECKPOINTS / "hf_bert", tmp_path / "bert_relative")
    config = tmp_path / "bert_relative" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"position_embedding_type": "relative_key"}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tfloader.ConfigError) as refusal:
        tfloader.load("bert_relative")
    assert printed(README, "bert_relative") == f"{refusal.value}\n"


@needs_weights
@pytest.mark.parametrize("command", ["info", "verify"])
def test_the_commands_print_what_the_readme_shows(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "all-MiniLM-L6-v2").symlink_to(similarity.packaged_model(), target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, "all-MiniLM-L6-v2"]) == 0
    line = f"$ tfloader {command} all-MiniLM-L6-v2\n"
    assert printed(README, line) == line + capsys.readouterr().out


@needs_weights
def test_the_example_prints_what_the_readme_shows(capsys):
    similarity.main([])
    assert printed(README, "Someone plays") == capsys.readouterr().out
