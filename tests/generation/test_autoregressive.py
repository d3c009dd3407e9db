"""AutoRegressiveDecoder against brute force, exact probabilities and a golden of Hugging Face."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter, namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.errors import ArgumentError, ConfigError
from tfloader.generation.autoregressive import AutoRegressiveDecoder

END = 0


class Markov(AutoRegressiveDecoder):
    """The next id's distribution is the row of the last id in a table [vocab, vocab]; start_id=1 has a row too."""

    def __init__(self, table, start_id=1, end_id=END, maxlen=5, **options):
        super().__init__(start_id, end_id, maxlen, **options)
        self.table = np.asarray(table)
        self.rows = []  # of each call of predict

    @AutoRegressiveDecoder.wraps(default_rtype="probas")
    def predict(self, inputs, output_ids, states):
        self.rows.append(len(output_ids))
        assert [len(array) for array in inputs] == [len(output_ids)] * len(inputs)
        return self.table[output_ids[:, -1]]


def random_table(seed, vocab=4):
    return np.random.default_rng(seed).dirichlet(np.full(vocab, 0.5), vocab)


def outputs(decoder, min_ends=1):
    """Every output that the decoder can give, with its log-probability."""
    vocab = len(decoder.table)
    found = {}
    for ids in itertools.product(range(vocab), repeat=decoder.maxlen):
        ids, score = (decoder.start_id, *ids), 0.0
        for place in range(1, len(ids)):
            score += np.log(decoder.table[ids[place - 1], ids[place]] + 1e-12)
            so_far = ids[: place + 1]
            if so_far[-1] == END and so_far.count(END) >= min_ends and len(so_far) >= decoder.minlen:
                break
        found[so_far] = score
    return found


def score_of(decoder, ids, min_ends=1):
    return outputs(decoder, min_ends)[tuple(ids)]


# Beam search.

# The ids: end, start, a, b. [end] has .45, and after a the end has .34: .187.
TOY = [[1, 0, 0, 0], [0.45, 0, 0.55, 0], [0.34, 0, 0.33, 0.33], [0.2, 0, 0.4, 0.4]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 6), st.integers(1, 2), st.integers(3, 4))
def test_a_beam_as_wide_as_all_hypotheses_finds_the_optimum(seed, maxlen, minlen, min_ends, vocab):
    decoder = Markov(random_table(seed, vocab), maxlen=maxlen, minlen=minlen)
    everything = outputs(decoder, min_ends)
    found = decoder.beam_search([], topk=vocab**maxlen, min_ends=min_ends)
    assert everything[tuple(found)] == pytest.approx(max(everything.values()), abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(1, 2))
def test_one_beam_is_greedy(seed, minlen, min_ends):
    decoder = Markov(random_table(seed), minlen=minlen)
    ids = [1]
    while len(ids) <= decoder.maxlen:
        ids.append(int(decoder.table[ids[-1]].argmax()))
        if ids[-1] == END and ids.count(END) >= min_ends and len(ids) >= minlen:
            break
    for compat in (None, "bert4keras"):
        decoder.compat = compat
        assert decoder.beam_search([], 1, min_ends=min_ends).tolist() == ids
    (sample,) = decoder.random_sample([], 1, topk=1, min_ends=min_ends)
    assert sample.tolist() == ids


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_whatever_a_search_finds_can_be_found(seed, topk):
    decoder = Markov(random_table(seed))
    everything = outputs(decoder)
    for compat in (None, "bert4keras"):
        decoder.compat = compat
        assert tuple(decoder.beam_search([], topk)) in everything
    assert all(tuple(ids) in everything for ids in decoder.random_sample([], topk))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_a_search_that_stops_early_loses_nothing(seed, topk):
    """The same search without stopping: every finished hypothesis is kept, and the best of all is picked at maxlen."""
    decoder = Markov(random_table(seed))
    beam, finished = [(0.0, (1,))], []
    for _ in range(decoder.maxlen):
        grown = [(s + np.log(decoder.table[ids[-1], t] + 1e-12), (*ids, t)) for s, ids in beam for t in range(4)]
        grown.sort(reverse=True)
        finished += [item for item in grown[:topk] if item[1][-1] == END]
        beam = [item for item in grown if item[1][-1] != END][:topk]
    best, _ = max(finished + beam)
    assert score_of(decoder, decoder.beam_search([], topk)) == pytest.approx(best, abs=1e-9)


def test_a_finished_hypothesis_is_kept():
    decoder = Markov(TOY)
    assert decoder.beam_search([], 2).tolist() == [1, END]


def test_compat_throws_it_away_as_bert4keras_did():
    decoder = Markov(TOY, compat="bert4keras")
    assert decoder.beam_search([], 2).tolist() == [1, 2, END]
    assert decoder.rows == [1, 1], "the beam has not shrunk"


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 4))
def test_compat_is_bert4keras_search(seed, topk, minlen):
    """As its description says: the beam narrows by what ends, and the first to end as the best is returned."""
    decoder = Markov(random_table(seed), minlen=minlen, compat="bert4keras")
    beam, width, rows = [(0.0, (1,))], topk, []
    for _ in range(decoder.maxlen):
        rows.append(len(beam))
        grown = [(s + np.log(decoder.table[ids[-1], t] + 1e-12), (*ids, t)) for s, ids in beam for t in range(4)]
        beam = sorted(grown, reverse=True)[:width]
        best = beam[0][1]
        if len(best) >= minlen:
            if best[-1] == END:
                break
            beam = [item for item in beam if item[1][-1] != END]
            width = len(beam)
    # Two orders of the same transitions have the same probability: either may be found.
    found = decoder.beam_search([], topk)
    assert score_of(decoder, found) == pytest.approx(score_of(decoder, best), abs=1e-9)
    assert found[-1] == best[-1]
    assert decoder.rows == rows


def test_the_beam_stays_as_wide_when_hypotheses_finish():
    decoder = Markov([[1, 0, 0, 0], [0.1, 0, 0.5, 0.4], [0.3, 0, 0.35, 0.35], [0.3, 0, 0.35, 0.35]])
    assert decoder.beam_search([], 3).tolist() == [1, 2, END]
    assert decoder.rows == [1, 3, 3], "the end, third of the first step, has taken a place"


def test_the_search_stops_as_soon_as_nothing_open_can_win():
    decoder = Markov(TOY, maxlen=5)
    decoder.beam_search([], 2)
    assert decoder.rows == [1, 2], ".55 x .34 < .45 after two steps"


def test_an_output_cut_off_at_maxlen_may_win():
    decoder = Markov([[1, 0, 0], [0.3, 0, 0.7], [0.1, 0, 0.9]], maxlen=3)
    assert decoder.beam_search([], 2).tolist() == [1, 2, 2, 2]
    decoder.maxlen = 30
    assert decoder.beam_search([], 2).tolist() == [1, END]


def test_temperature_in_beam_search():
    decoder = Markov(TOY)
    assert decoder.beam_search([], 2, temperature=1).tolist() == [1, END]
    # At .1 the first a has .88, and the end behind it .41, the others .3 each: .36 > .12.
    assert decoder.beam_search([], 2, temperature=0.1).tolist() == [1, 2, END]


# minlen, maxlen, min_ends, start_id.


@pytest.mark.parametrize("search", ["beam", "compat", "sample"])
@pytest.mark.parametrize(
    ("start_id", "minlen", "min_ends", "length"),
    # All ids are ends: the lengths say when an end was taken for one; start_id counts in minlen and maxlen is 5 more.
    [(1, 1, 1, 2), (1, 4, 1, 4), (None, 4, 1, 4), (None, 1, 1, 1), (1, 1, 3, 4), (END, 1, 3, 3), (1, 9, 1, 6)],
)
def test_minlen_and_min_ends(search, start_id, minlen, min_ends, length):
    class Ends(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps()
        def predict(self, inputs, output_ids, states):
            return np.tile([1.0, 0.0], (len(output_ids), 1))

    decoder = Ends(start_id, END, maxlen=5, minlen=minlen, compat="bert4keras" if search == "compat" else None)
    if search == "sample":
        found = decoder.random_sample([], 3, min_ends=min_ends)
        assert [ids.tolist() for ids in found] == [found[0].tolist()] * 3
        found = found[0]
    else:
        found = decoder.beam_search([], 1, min_ends=min_ends)
    assert found.tolist() == [*([] if start_id is None else [start_id]), *[END] * (length - (start_id is not None))]
    assert found.dtype == np.int64


def test_without_an_end_id_only_maxlen_ends():
    decoder = Markov(TOY, end_id=None, maxlen=4)
    assert len(decoder.beam_search([], 2)) == 5
    assert [len(ids) for ids in decoder.random_sample([], 3, seed=0)] == [5, 5, 5]


# States.

Pair = namedtuple("Pair", ["sums", "steps"])


class Stateful(AutoRegressiveDecoder):
    """The next distribution depends on the whole past, which it sees in states alone."""

    kind = "nested"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.tables = np.random.default_rng(5).dirichlet(np.full(4, 0.5), 97)

    def pack(self, history):
        if self.kind == "list":
            return [hash_of(row) for row in history]
        hashes = np.array([hash_of(row) for row in history])
        return {"past": [Pair((hashes, None), 3), (history.T[:1].T, "text")], "free": 7}

    def unpack(self, states):
        if self.kind == "list":
            return np.array(states)
        assert states["free"] == 7 and states["past"][0].steps == 3 and states["past"][1][1] == "text"
        assert isinstance(states["past"], list) and isinstance(states["past"][0], Pair)
        return states["past"][0].sums[0]

    @AutoRegressiveDecoder.wraps(default_rtype="probas", use_states=True)
    def predict(self, inputs, output_ids, states):
        if output_ids.shape[1] > 1:
            # What the states say that the past was, before the last id, must be this row's past.
            hashes = self.unpack(states)
            np.testing.assert_array_equal(hashes, [hash_of(row) for row in output_ids[:, :-1]])
            hashes = (hashes * 31 + output_ids[:, -1]) % 97
        else:
            assert states == "first"
            hashes = np.array([hash_of(row) for row in output_ids])
        np.testing.assert_array_equal(inputs[0], np.tile([3, 4], (len(output_ids), 1)))
        return self.tables[hashes], self.pack(output_ids)


def hash_of(ids):
    value = 0
    for token in ids:
        value = (value * 31 + int(token)) % 97
    return value


@pytest.mark.parametrize("kind", ["nested", "list"])
@pytest.mark.parametrize("compat", [None, "bert4keras"])
def test_states_follow_their_beams(kind, compat):
    decoder = Stateful(1, END, maxlen=8, compat=compat)
    decoder.kind = kind
    for topk in (1, 2, 3, 7):
        decoder.beam_search([[3, 4]], topk, states="first")


@pytest.mark.parametrize("kind", ["nested", "list"])
def test_states_follow_their_samples(kind):
    decoder = Stateful(1, END, maxlen=8)
    decoder.kind = kind
    assert len({len(ids) for ids in decoder.random_sample([[3, 4]], 20, states="first", seed=1)}) > 2


def test_states_of_tensors_follow_too():
    tf = pytest.importorskip("tensorflow")

    class Tensors(Markov):
        @AutoRegressiveDecoder.wraps(use_states=True)
        def predict(self, inputs, output_ids, states):
            if states is not None:
                np.testing.assert_array_equal(states["last"][:, 0], output_ids[:, -2])
            return tf.constant(self.table[output_ids[:, -1]]), {"last": tf.constant(output_ids[:, -1:])}

    decoder = Tensors(random_table(3, 5))
    decoder.beam_search([], 3)
    decoder.random_sample([], 5, seed=0)


def test_beams_of_one_parent_share_no_state():
    class Mutating(Markov):
        @AutoRegressiveDecoder.wraps(use_states=True)
        def predict(self, inputs, output_ids, states):
            states = states or [{*()} for _ in output_ids]
            for seen, row in zip(states, output_ids, strict=True):
                seen.add(int(row[-1]))
                assert seen == set(row.tolist())
            return self.table[output_ids[:, -1]], states

    Mutating(random_table(8)).beam_search([], 4)


# Sampling.


@pytest.mark.parametrize("temperature", [1, 0.7])
def test_frequencies_are_the_probabilities(temperature):
    decoder = Markov(random_table(11), maxlen=3)
    sharpened = Markov(decoder.table ** (1 / temperature), maxlen=3)
    sharpened.table /= sharpened.table.sum(axis=1, keepdims=True)
    count = 20000
    found = Counter(map(tuple, decoder.random_sample([], count, temperature=temperature, seed=42)))
    expected = {ids: count * np.exp(score) for ids, score in outputs(sharpened).items()}
    assert sum(expected.values()) == pytest.approx(count, abs=1e-3)
    assert set(found) <= set(expected)
    seen = {ids: number for ids, number in expected.items() if number >= 5}
    chi_square = sum((found[ids] - number) ** 2 / number for ids, number in seen.items())
    freedom = len(seen) - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


WIDE = np.array([0.1, 0.35, 0.05, 0.3, 0.2])


@pytest.mark.parametrize(
    ("topk", "topp", "support"),
    [
        (None, None, {0, 1, 2, 3, 4}),
        (1, None, {1}),
        (3, None, {1, 3, 4}),
        (9, None, {0, 1, 2, 3, 4}),
        (None, 0.34, {1}),
        (None, 0.36, {1, 3}),  # the id that crosses is kept
        (None, 0.9, {0, 1, 3, 4}),
        (None, 1, {0, 1, 2, 3, 4}),
        (None, 1e-9, {1}),
        (3, 0.75, {1, 3}),  # of the topk's .85, where .65 are .765; topp alone would need three
        (3, 0.78, {1, 3, 4}),
        (2, 0.5, {1}),
    ],
)
def test_the_supports_of_topk_and_topp(topk, topp, support):
    decoder = Markov(np.tile(WIDE, (5, 1)), end_id=None, maxlen=1)
    count = 6000
    found = Counter(int(ids[-1]) for ids in decoder.random_sample([], count, topk=topk, topp=topp, seed=7))
    assert set(found) == support
    share = WIDE[list(support)].sum()
    for token, number in found.items():
        p = WIDE[token] / share
        assert abs(number - count * p) <= 4 * np.sqrt(count * p * (1 - p)) + 1e-9


def test_topk_keeps_exactly_k_of_equals():
    decoder = Markov(np.full((5, 5), 0.2), end_id=None, maxlen=1)
    assert {int(ids[-1]) for ids in decoder.random_sample([], 200, topk=2, seed=0)} == {0, 1}


def test_samples_come_in_the_order_in_which_they_finish():
    decoder = Markov(random_table(11), maxlen=4)
    found = decoder.random_sample([], 50, seed=3)
    lengths = [len(ids) for ids in found]
    assert len(found) == 50 and lengths == sorted(lengths) and len(set(lengths)) > 2
    is_cut = [ids[-1] != END for ids in found]
    assert is_cut == sorted(is_cut) and any(is_cut)
    still_open = [sum(length > 1 + step for length in lengths) for step in range(1, 4)]
    assert decoder.rows == [1, *still_open], "finished rows are fed to predict"


def test_seed():
    decoder = Markov(random_table(11))

    def sample(seed=None):
        return [ids.tolist() for ids in decoder.random_sample([], 30, seed=seed)]

    assert sample(1) == sample(1) != sample(2)
    np.random.seed(0)
    first = sample()
    assert first != sample()
    np.random.seed(0)
    assert sample() == first, "NumPy's global generator is not the default"


# Types, errors.


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.floats(0.05, 20))
def test_logits_and_probas_are_two_ways_to_say_the_same(logits, temperature):
    class Logits(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps(default_rtype="logits")
        def predict(self, inputs, output_ids, states):
            return np.array([logits])

    class Probas(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps(default_rtype="probas")
        def predict(self, inputs, output_ids, states):
            return np.exp([logits]) / np.exp(logits).sum()

    no_ids = np.zeros((1, 0), dtype=int)
    both = [kind(None, END, 3) for kind in (Logits, Probas)]
    found = [decoder.predict([], no_ids, None, temperature, "probas")[0] for decoder in both]
    expected = np.exp((np.array(logits) - max(logits)) / temperature)
    np.testing.assert_allclose(found, [[expected / expected.sum()]] * 2, rtol=1e-9, atol=1e-12)
    for decoder, probas in zip(both, found, strict=True):
        logged, _ = decoder.predict([], no_ids, None, temperature, "logits")
        np.testing.assert_array_equal(logged, np.log(probas + 1e-12))
    # Without an rtype, it is the type of what predict returns.
    (logged, _), (probas, _) = (decoder.predict([], no_ids) for decoder in both)
    np.testing.assert_allclose(logged, np.log(probas + 1e-12), atol=1e-9)


def test_banned_ids_are_never_drawn():
    class Banned(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps(default_rtype="logits")
        def predict(self, inputs, output_ids, states):
            return np.tile([-np.inf, 1, 2], (len(output_ids), 1))

    decoder = Banned(None, END, maxlen=4)
    assert decoder.beam_search([], 2).tolist() == [2, 2, 2, 2]
    assert not any(END in ids for ids in decoder.random_sample([], 50, temperature=3, seed=0))


def returning(value, from_step=0, **wrapped):
    class Faulty(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps(**wrapped)
        def predict(self, inputs, output_ids, states):
            good = np.full((len(output_ids), 4), 0.25)
            return good if output_ids.shape[1] - 1 < from_step else value(good)

    return Faulty(1, END, maxlen=4, minlen=9)


def nan_in_one_place(good):
    good[-1, 2] = np.nan
    return good


@pytest.mark.parametrize("search", [lambda d: d.beam_search([], 2), lambda d: d.random_sample([], 2, seed=0)])
@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (returning(lambda good: good[:, None], 2), r"shape \(2, 1, 4\) at step 2, expected \[2, vocab\].*last_token"),
        (returning(lambda good: good[:1], 1), r"shape \(1, 4\) at step 1, expected \[2, vocab\]"),
        (returning(lambda good: good[:, :0]), r"shape \(1, 0\) at step 0"),
        (returning(lambda good: 1.0), r"shape \(\) at step 0"),
        (returning(nan_in_one_place, 3), r"NaN.*at step 3"),
        (returning(nan_in_one_place, 1, default_rtype="logits"), r"NaN.*at step 1"),
        (returning(lambda good: good - np.inf, default_rtype="logits"), r"no probabilities.*'logits'.*at step 0"),
        (returning(lambda good: good - 1, 1), r"no probabilities.*'probas'.*at step 1"),
        (returning(lambda good: good * 0), r"no probabilities.*at step 0"),
        (returning(lambda good: (good, None)), r"a tuple with use_states=False"),
        (returning(lambda good: good, use_states=True), r"a ndarray with use_states=True"),
        (returning(lambda good: (good, np.zeros(9)), use_states=True), r"states with 9 rows, expected output_ids' 1"),
        (returning(lambda good: (good, [[0, 0]]), use_states=True), r"states with 2 rows"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_faulty_predict_is_named(search, decoder, message):
    with pytest.raises(ConfigError, match=message):
        search(decoder)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Markov(TOY, maxlen=0), "maxlen is 0"),
        (lambda: Markov(TOY, maxlen=2.5), r"maxlen: expected int, found float 2\.5"),
        (lambda: Markov(TOY, compat="keras"), "compat is 'keras'"),
        (lambda: Markov(TOY).beam_search([], 0), "topk is 0"),
        (lambda: Markov(TOY).beam_search([], 2, temperature=0), "temperature is 0"),
        (lambda: Markov(TOY).random_sample([], 0), "n is 0"),
        (lambda: Markov(TOY).random_sample([], 1, topk=0), "topk is 0"),
        (lambda: Markov(TOY).random_sample([], 1, topp=0), "topp is 0"),
        (lambda: Markov(TOY).random_sample([], 1, topp=1.01), r"topp is 1\.01"),
        (lambda: Markov(TOY).random_sample([], 1, topp=np.nan), "topp is nan"),
        (lambda: Markov(TOY).random_sample([], 1, temperature=-1), "temperature is -1"),
        (lambda: Markov(TOY, maxlen=True), "maxlen is True"),
        (lambda: Markov(TOY, minlen="1"), "minlen: expected int, found str '1'"),
        (lambda: AutoRegressiveDecoder("1", 2, 3), "start_id: expected int or None, found str '1'"),
        (lambda: AutoRegressiveDecoder(1, 2.5, 3), r"end_id: expected int or None, found float 2\.5"),
        (lambda: Markov(TOY).beam_search([], "2"), "topk is '2'"),
        (lambda: Markov(TOY).beam_search([], 2, temperature="1"), "temperature is '1'"),
        (lambda: Markov(TOY).beam_search([], 2, min_ends=None), "min_ends is None"),
        (lambda: Markov(TOY).random_sample([], 1, topp="1"), "topp is '1'"),
        (lambda: Markov(TOY).random_sample([], 1, seed=-1), "seed is -1"),
        (lambda: Markov(TOY).random_sample([], 1, min_ends=0), "min_ends is 0"),
        (lambda: Markov(TOY).predict([], np.array([[1]]), None, 1, "scores"), "rtype is 'scores'"),
        (lambda: AutoRegressiveDecoder.wraps("scores"), "default_rtype is 'scores'"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises((ConfigError, ArgumentError), match=message):
        call()


def test_the_import_needs_numpy_alone():
    script = "import sys, tfloader.generation.autoregressive; print({'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


# As bert4keras' users write it.


@pytest.mark.parametrize(("default_rtype", "options"), [("logits", {}), ("probas", {"final_activation": "softmax"})])
def test_a_script_of_bert4keras_gives_the_golden(capfd, default_rtype, options):
    folder = CHECKPOINTS / "hf_gpt2"
    model = tfloader.load(folder, **options)
    prompts, goldens = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")

    class ArticleCompletion(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps(default_rtype=default_rtype)
        def predict(self, inputs, output_ids, states):
            token_ids = np.concatenate([inputs[0], output_ids], 1)
            return self.last_token(model).predict(token_ids)

        def generate(self, token_ids, topk):
            return self.beam_search([token_ids], topk=topk)

    completion = ArticleCompletion(start_id=None, end_id=296, maxlen=12)
    for name in ("0", "1"):
        prompt, golden = prompts[f"prompt_{name}"][0], goldens[f"greedy_{name}"][0]
        assert [*prompt, *completion.generate(prompt.tolist(), topk=1)] == golden.tolist()
    for sample in completion.random_sample([prompt], 2, topk=1):
        assert [*prompt, *sample] == golden.tolist()
    assert completion.last_token(model) is completion.last_token(model)
    out, _ = capfd.readouterr()
    assert out == "", "predict prints a progress bar at every step"
