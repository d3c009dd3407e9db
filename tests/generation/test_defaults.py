"""generation_config.json: every key understood, harmless, or refused; and what a call leaves open."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.generation.models import generator
from tfloader.errors import ConfigError
from tfloader.generation.defaults import with_defaults
from tfloader.generation.text import TextGenerator


@pytest.fixture
def read(tmp_path):
    def read(**content):
        (tmp_path / "generation_config.json").write_text(json.dumps(content))
        return tfloader.load_generation_config(tmp_path)

    return read


def test_options_are_read_and_book_keeping_is_not(read):
    found = read(
        do_sample=True,
        top_p=0.85,
        top_k=20,
        max_new_tokens=320,
        eos_token_id=[3],
        suppress_tokens=[0, 1],
        _from_model_config=True,
        bos_token_id=5,
        transformers_version="4.57.3",
        cache_implementation="static",
        output_scores=True,
        num_assistant_tokens=5,
    )
    assert found == {
        "do_sample": True,
        "top_p": 0.85,
        "top_k": 20,
        "max_new_tokens": 320,
        "eos_token_id": [3],
        "suppress_tokens": [0, 1],
    }


def test_a_file_that_samples_and_says_nothing_of_top_k_means_what_it_means_to_transformers(read):
    assert read(do_sample=True)["top_k"] == 50
    assert read(do_sample=True, top_k=0)["top_k"] is None
    assert read(do_sample=True, top_k=None)["top_k"] is None
    assert "top_k" not in read(eos_token_id=3)


def test_all_that_transformers_writes_by_default_means_nothing(read):
    """The dictionary of transformers 4.55.4's GenerationConfig()."""
    found = read(
        max_length=20,
        max_new_tokens=None,
        min_length=0,
        min_new_tokens=None,
        early_stopping=False,
        max_time=None,
        stop_strings=None,
        do_sample=False,
        num_beams=1,
        num_beam_groups=1,
        penalty_alpha=None,
        dola_layers=None,
        use_cache=True,
        cache_implementation=None,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        min_p=None,
        typical_p=1.0,
        epsilon_cutoff=0.0,
        eta_cutoff=0.0,
        diversity_penalty=0.0,
        repetition_penalty=1.0,
        encoder_repetition_penalty=1.0,
        length_penalty=1.0,
        no_repeat_ngram_size=0,
        bad_words_ids=None,
        force_words_ids=None,
        renormalize_logits=False,
        constraints=None,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
        remove_invalid_values=False,
        exponential_decay_length_penalty=None,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        sequence_bias=None,
        token_healing=False,
        guidance_scale=None,
        low_memory=None,
        watermarking_config=None,
        num_return_sequences=1,
        output_attentions=False,
        return_dict_in_generate=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        encoder_no_repeat_ngram_size=0,
        decoder_start_token_id=None,
        is_assistant=False,
        num_assistant_tokens_schedule="constant",
        assistant_confidence_threshold=0.4,
        prompt_lookup_num_tokens=None,
        max_matching_ngram_size=None,
        assistant_early_exit=None,
        target_lookbehind=10,
        disable_compile=False,
    )
    assert tfloader.GenerationOptions.of(**with_defaults({}, found)) == tfloader.GenerationOptions()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"guidance_scale": 3.0}, r"guidance_scale = 3.0 is not implemented; supported: 1 or None"),
        ({"min_length": 4}, "min_length = 4 is not implemented"),
        ({"max_length": 100}, "max_length = 100 counts the prompt; only max_new_tokens"),
        ({"constraints": ["x"]}, "constraints"),
        ({"sequence_bias": {"5": 1.0}}, "sequence_bias"),
        ({"temprature": 0.5}, "unknown key 'temprature'"),
        ({"seed": 3}, "unknown key 'seed'"),
        ({"do_sample": True, "num_beams": 4}, "beam search with sampling is not implemented"),
        ({"do_sample": True, "top_p": 2}, "top_p must be"),
        ({"do_sample": 1}, "do_sample must be"),
    ],
)
def test_what_would_change_the_result_and_is_not_implemented_is_refused_by_name(read, content, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        read(**content)
    assert "generation_config.json" in str(refusal.value)


def test_all_problems_of_a_file_come_at_once(read):
    with pytest.raises(ConfigError) as refusal:
        read(guidance_scale=2, max_length=99, nonsense=1)
    assert all(name in str(refusal.value) for name in ("guidance_scale", "max_length", "nonsense"))


def test_a_start_token_other_than_the_configs_is_refused(read, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"decoder_start_token_id": 0, "pad_token_id": 7}))
    read(decoder_start_token_id=0)
    with pytest.raises(ConfigError, match="decoder_start_token_id = 5, but 0 by config"):
        read(decoder_start_token_id=5)
    (tmp_path / "config.json").write_text(json.dumps({"pad_token_id": 7}))
    read(decoder_start_token_id=7)


def test_a_file_that_is_not_there_or_no_json_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        tfloader.load_generation_config(tmp_path)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        tfloader.load_generation_config(tmp_path)


SAMPLING = {"do_sample": True, "top_p": 0.8, "top_k": 5, "max_new_tokens": 7}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, SAMPLING),
        ({"max_new_tokens": 3}, {**SAMPLING, "max_new_tokens": 3}),
        ({"top_p": None}, {**SAMPLING, "top_p": None}),
        ({"do_sample": True}, SAMPLING),
        ({"do_sample": False}, {"do_sample": False, "max_new_tokens": 7}),
        ({"num_beams": 4}, {"num_beams": 4, "max_new_tokens": 7}),
        ({"penalty_alpha": 0.6}, {"penalty_alpha": 0.6, "top_k": 5, "max_new_tokens": 7}),
    ],
)
def test_a_call_wins_over_defaults_and_takes_of_them_what_it_has_a_use_for(given, expected):
    found = with_defaults(given, SAMPLING)
    assert found == expected
    tfloader.GenerationOptions.of(**found)


def test_an_option_without_effect_is_still_refused_when_the_call_names_it():
    with pytest.raises(ConfigError, match="only sampling uses top_p"):
        tfloader.GenerationOptions.of(**with_defaults({"num_beams": 2, "top_p": 0.5}, SAMPLING))


def test_a_generator_takes_defaults_as_options_or_from_a_folder(tmp_path):
    model = generator("hf_gpt2").transformer
    shutil.copyfile(CHECKPOINTS / "hf_gpt2" / "config.json", tmp_path / "config.json")
    content = {"max_new_tokens": 5, "suppress_tokens": [94], "eos_token_id": 61}
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    made = {type(item): TextGenerator(model, defaults=item) for item in (content, tmp_path, str(tmp_path))}
    assert all(item.defaults == content for item in made.values())
    made = made[str]
    plain = generator("hf_gpt2").generate_ids([[5, 6]], **content).sequences
    assert made.generate_ids([[5, 6]]).sequences == plain and 94 not in plain[0]
    assert made.generate_ids([[5, 6]], max_new_tokens=1).sequences == [plain[0][:1]]


def test_wrong_defaults_are_said_when_the_generator_is_made():
    with pytest.raises(ConfigError, match="unknown option 'topp'"):
        TextGenerator(generator("hf_gpt2").transformer, defaults={"topp": 0.5})


def test_a_file_is_read_without_tensorflow(read, tmp_path):
    read(do_sample=True)
    code = "import sys, tfloader; tfloader.load_generation_config(sys.argv[1]); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
