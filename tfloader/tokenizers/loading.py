"""`load_tokenizer`: from a folder, or one of its files, to the right tokenizer with the right options.

The options stand in tokenizer_config.json. Every key there is honoured, or harmless, or refused by name.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import Callable, Collection, Iterable

from tfloader.border import public
from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.opening import missing
from tfloader.errors import CheckpointError, SegmentationError, TokenizerError, listing
from tfloader.files import MAX_TEXT_BYTES, read_json
from tfloader.naming.reading import detect_release
from tfloader.naming.release import NOTHING_AROUND, TextFormat
from tfloader.naming.releases import text_format
from tfloader.staging import finish
from tfloader.tokenizers.added import Declared, added_token, check_beyond, check_ids, declared
from tfloader.tokenizers.agreement import check_agreement
from tfloader.tokenizers.base import BaseTokenizer
from tfloader.tokenizers.bounds import MOST, WORD
from tfloader.tokenizers.bytepair import END_OF_TEXT, BytePairTokenizer
from tfloader.tokenizers.fast import JsonTokenizer
from tfloader.tokenizers.sentencepiece import MAX_EXTRA_IDS, SpTokenizer, sentinel_number
from tfloader.tokenizers.settings import (
    GENERIC_CLASSES,
    ROLES,
    Settings,
    around,
    check,
    class_name,
    flag,
    number,
    read_settings,
    special,
    specials,
)
from tfloader.tokenizers.vocabulary import load_vocab
from tfloader.tokenizers.wordpiece import Tokenizer

ACCEPTED = (
    "vocab.txt or another *vocab*.txt (WordPiece)",
    "encoder.json with vocab.bpe, or vocab.json with merges.txt (byte-level BPE)",
    "spiece.model or another *.model (SentencePiece)",
    "tokenizer.json",
)
# Files, and keys of config.json, that transformers writes. It keeps special tokens in a text whole, while the programs
# that published the others take them for text.
HUGGING_FACE = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"}
HUGGING_FACE |= {"architectures", "model_type", "transformers_version"}
CASED = re.compile(r"(##)?[A-Za-z]*[A-Z][A-Za-z]*")
CHINESE_WORD = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]{2,}")


@public
def load_tokenizer(
    path: str | os.PathLike[str],
    family: str | None = None,
    pre_tokenize: Callable[[str], Iterable[str]] | None = None,
) -> BaseTokenizer:
    """Opens the tokenizer of a checkpoint.

    Args:
        path: the checkpoint's folder, or one of its files: a vocabulary, a tokenizer file, or a checkpoint beside which
            the vocabulary lies.
        family: what kind of model it is for ("bert", "gpt2_ml", "t5", ...), where the folder's config.json does not
            say. For "gpt", "gpt2" and "gpt2_ml" WordPiece puts nothing around a text.
        pre_tokenize: splits a text into words, for a WordPiece vocabulary of Chinese words such as RoFormer's or
            WoBERT's; theirs was `lambda text: jieba.cut(text, HMM=False)`. Such a vocabulary is refused without it,
            because character by character other tokens come out than in the training.

    WordPiece lowercases if tokenizer_config.json, or else tokenizer.json, says so. Where neither does, the vocabulary
    decides: it is cased if one of its tokens is a word, or part of one, of ASCII letters with a capital among them.
    """
    folder, name = _place(os.fspath(path))
    finish(folder, TokenizerError)
    names = sorted(os.listdir(folder))
    config = read_settings(folder, names)
    of_model = read_json(os.path.join(folder, "config.json"), TokenizerError) if "config.json" in names else {}
    if family is None:
        family = of_model.get("model_type")
    if family is None and any(item.endswith(".index") for item in names):
        # GPT2_ML's config file does not say it, but the names in its checkpoint do.
        with contextlib.suppress(CheckpointError), open_checkpoint(folder) as checkpoint:
            family = detect_release(checkpoint).family
    if family is not None and not isinstance(family, str):
        raise TokenizerError(f"{folder}: the model family must be a string, found {family!r:.80}.")
    kind, files = _choose(folder, names, name, config)
    options = {} if pre_tokenize is None else {"pre_tokenize": pre_tokenize}
    if options and kind is not _wordpiece:
        raise TokenizerError(f"{folder}: pre_tokenize is for WordPiece vocabularies; here is {' + '.join(files)}.")
    if "token_start" not in config and (HUGGING_FACE.intersection(names) or HUGGING_FACE.intersection(of_model)):
        config.setdefault("split_special_tokens", False)
    added = declared(folder, names, config)
    tokenizer = kind(*(os.path.join(folder, file) for file in files), config, family, added, **options)
    check_beyond(folder, added, tokenizer._beyond, of_model.get("vocab_size"))
    check_ids(folder, added.ids, tokenizer._find)
    if "tokenizer.json" in names and name not in files and not options:
        check_agreement(tokenizer, folder, names, flag(config, "split_special_tokens", False))
    for side in ("padding_side", "truncation_side"):
        if (value := config.get(side, "right")) not in ("right", "left"):
            raise TokenizerError(f"{folder}: {side} must be 'right' or 'left', found {value!r}.")
        setattr(tokenizer, side, value)
    return tokenizer


def _place(path: str) -> tuple[str, str | None]:
    if os.path.isdir(path):
        return path, None
    folder, name = os.path.split(os.path.abspath(path))
    beside = os.listdir(folder) if os.path.isdir(folder) else []
    if not os.path.isfile(path) and not any(other.startswith(name + ".") for other in beside):
        raise TokenizerError(missing(path))
    return folder, name


# Which files


def _choose(folder: str, names: list[str], name: str | None, config: Settings) -> tuple[Callable, list[str]]:
    asked = _asked(name, names) if name is not None else None
    if asked:
        return asked
    present = kinds_of_tokenizer(names)
    if not present:
        raise TokenizerError(
            f"{folder}: no tokenizer here. The folder holds: {_shown(names)}. Accepted are:\n{listing(ACCEPTED)}"
        )
    if class_name(config) in GENERIC_CLASSES - {None} and WORD not in config and present[-1][0] is _json:
        return present[-1]  # such a class means tokenizer.json; only our own folders say everything otherwise
    named = [(kind, files) for kind, files in present if class_name(config) in CLASSES[kind]]
    usable = named or [(kind, files) for kind, files in present if kind is not _json] or present
    if len(usable) > 1:
        several = ", ".join(" + ".join(files) for _, files in usable)
        raise TokenizerError(f"{folder}: holds several tokenizers: {several}. Give the path of the model's own file.")
    return usable[0]


def kinds_of_tokenizer(names: list[str]) -> list[tuple[Callable, list[str]]]:
    """The tokenizers whose files a folder holds, given its file names: (how to open, files)."""
    found: list[tuple[Callable, list[str]]] = []
    usual = ((_wordpiece, "vocab.txt", "*vocab*.txt"), (_sentencepiece, "spiece.model", "*.model"))
    for kind, first, pattern in usual:
        found += [(kind, [name]) for name in ([first] if first in names else fnmatch.filter(names, pattern))]
    found += [(_bytepair, [*pair]) for pair in _BPE_PAIRS if set(pair) <= set(names)][:1]
    found += [(_json, ["tokenizer.json"])] if "tokenizer.json" in names else []
    return found


_BPE_PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


def _asked(name: str, names: list[str]) -> tuple[Callable, list[str]] | None:
    for pair in _BPE_PAIRS:
        if name in pair:
            if set(pair) <= set(names):
                return _bytepair, [*pair]
            raise TokenizerError(f"{name}: byte-level BPE needs {pair[0]} and {pair[1]} in one folder.")
    if name == "tokenizer.json":
        return _json, [name]
    if name.endswith((".model", ".spm")):
        return _sentencepiece, [name]
    return (_wordpiece, [name]) if name.endswith(".txt") else None


def _shown(names: Collection[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(sorted(names)[:20]) + more if names else "nothing"


# The kinds


def _wordpiece(
    path: str,
    config: Settings,
    family: str | None,
    added: Declared,
    pre_tokenize: Callable[[str], Iterable[str]] | None = None,
) -> Tokenizer:
    honoured = {"do_lower_case", "strip_accents", "tokenize_chinese_chars", WORD}
    check(config, path, honoured, CLASSES[_wordpiece])
    vocab = load_vocab(path)
    beside = _normalizer_beside(path)
    by_character = flag(config, "tokenize_chinese_chars", beside.get("handle_chinese_chars", True))
    # Such a token could never come out of WordPiece, which takes Chinese characters one by one.
    words = sum(map(bool, map(CHINESE_WORD.fullmatch, vocab)))
    if by_character and pre_tokenize is None and words * 10 >= len(vocab):
        raise SegmentationError(
            f"{path}: the vocabulary holds Chinese words, into which texts were split before WordPiece (RoFormer, "
            "WoBERT). Pass the function that splits, pre_tokenize=lambda text: jieba.cut(text, HMM=False) for the "
            "published models, to load_tokenizer or Tokenizer. To go character by character all the same, use "
            "Tokenizer(path)."
        )
    lower = flag(config, "do_lower_case", beside.get("lowercase"))
    bare = text_format(family) == NOTHING_AROUND
    usual = (None, None) if bare else (special(config, "cls", "[CLS]"), special(config, "sep", "[SEP]"))
    tokenizer = Tokenizer(
        vocab,
        not any(map(CASED.fullmatch, vocab)) if lower is None else lower,
        *around(config, *usual),
        token_unk=special(config, "unk", "[UNK]") or "[UNK]",
        token_pad=special(config, "pad", "[PAD]"),
        token_mask=special(config, "mask", "[MASK]"),
        pre_tokenize=pre_tokenize,
        word_maxlen=number(config, WORD, 200, MOST),
        strip_accents=flag(config, "strip_accents", beside.get("strip_accents")),
        tokenize_chinese_chars=by_character,
        special_tokens=not flag(config, "split_special_tokens", True),
        added_tokens=added.tokens.values(),
    )
    for role in ("bos", "eos"):
        if (token := special(config, role, None)) is not None and tokenizer._find(token) is None:
            raise TokenizerError(f"{path}: {role}_token={token!r} of the config is not in the vocabulary.")
        tokenizer.special_tokens |= {role: token} if token is not None else {}
    tokenizer._add(added.tokens.values())
    return tokenizer


def _normalizer_beside(path: str) -> dict:
    """What a tokenizer.json in the same folder says about lowercasing, for a config that does not."""
    beside = os.path.join(os.path.dirname(path), "tokenizer.json")
    content = read_json(beside, TokenizerError, MAX_TEXT_BYTES) if os.path.isfile(beside) else {}
    normalizer = content.get("normalizer")
    return normalizer if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer" else {}


def _bytepair(vocab: str, merges: str, config: Settings, family: str | None, added: Declared) -> BytePairTokenizer:
    check(config, vocab, (), CLASSES[_bytepair])
    known = read_json(vocab, TokenizerError, MAX_TEXT_BYTES)
    formats = (text_format(family), text_format(class_name(config)))
    own = next((item for item in formats if item.tokens), TextFormat(None, None))
    tokens = own.tokens or {"bos": END_OF_TEXT, "eos": END_OF_TEXT}
    known = {*known, *added.tokens}
    tokens = {role: token for role, token in tokens.items() if token in known and f"{role}_token" not in config}
    tokens |= specials(config)
    usual = (None if role is None else tokens.get(role, own.tokens[role]) for role in (own.start, own.end))
    kept = dict(added.tokens)
    if (
        own.start and "mask" in tokens and "token_start" not in config
    ):  # RoBERTa's own program takes the space before its mask away
        kept.setdefault(tokens["mask"], added_token({"content": tokens["mask"], "lstrip": True, "normalized": False}))
    return BytePairTokenizer(
        vocab,
        merges,
        *around(config, *usual),
        tokens=tokens,
        special_tokens=not flag(config, "split_special_tokens", True),
        added_tokens=kept.values(),
    )


def _sentencepiece(path: str, config: Settings, family: str | None, added: Declared) -> SpTokenizer:
    check(config, path, {"extra_ids"}, CLASSES[_sentencepiece])
    plain = SpTokenizer(path, token_end=None)
    if not {"token_start", "token_end"} <= config.keys() and (
        not plain.has_t5_layout or (family is not None and text_format(family).end != "eos")
    ):
        raise TokenizerError(
            f"{path}: a SentencePiece model for {family or 'an unknown family'} does not say which tokens stand around "
            "a text, nor how the text is prepared; only T5's way is known here. Say it yourself with SpTokenizer(path, "
            "token_start=..., token_end=...), or give the path of tokenizer.json if there is one."
        )
    for role, token in specials(config).items():
        known = plain._find(token) is not None or token in added.tokens
        if plain.special_tokens.get(role, token) != token or not known:
            raise TokenizerError(
                f"{path}: tokenizer_config.json says {role}_token={token!r}; the model has none such. Correct one."
            )
    extra = number(config, "extra_ids", 0 if plain.holds_sentinels or not plain.has_t5_layout else 100, MAX_EXTRA_IDS)
    others = [token for content, token in added.tokens.items() if sentinel_number(content) not in range(extra)]
    return SpTokenizer(
        path,
        *around(config, None, plain.special_tokens.get("eos")),
        extra_ids=extra,
        special_tokens=not flag(config, "split_special_tokens", True),
        added_tokens=others,
    )


def _json(path: str, config: Settings, family: str | None, added: Declared) -> JsonTokenizer:
    has_roles = any(f"{role}_token" in config for role in ROLES)
    tokenizer = JsonTokenizer(
        path,
        specials(config) if has_roles else None,
        special_tokens=not flag(config, "split_special_tokens", False),
    )
    own = {token["content"] for token in tokenizer.content.get("added_tokens") or ()}
    tokenizer._add(token for content, token in added.tokens.items() if content not in added.bare & own)
    problems = [
        f"tokenizer_config.json has {key}={config[key]!r}, tokenizer.json has {part}.{name}={there[name]!r}"
        for key, part, name in (
            ("do_lower_case", "normalizer", "lowercase"),
            ("strip_accents", "normalizer", "strip_accents"),
            ("tokenize_chinese_chars", "normalizer", "handle_chinese_chars"),
            ("add_prefix_space", "pre_tokenizer", "add_prefix_space"),
        )
        if config.get(key) is not None
        and isinstance(there := tokenizer.content.get(part), dict)
        and name in there
        and there[name] != config[key]
    ]
    own_ends = (next(iter(tokenizer._start), None), next(iter(tokenizer._end), None))
    if around(config, *own_ends) != own_ends:
        problems.append(
            f"tokenizer_config.json puts {around(config, *own_ends)} around a text, tokenizer.json {own_ends}"
        )
    if problems:
        raise TokenizerError(f"{path}: the two files disagree:\n{listing(problems)}\nCorrect the wrong one.")
    return tokenizer


CLASSES: dict[Callable, set[str]] = {
    _wordpiece: {
        "BertTokenizer",
        "ElectraTokenizer",
        "DistilBertTokenizer",
        "MobileBertTokenizer",
        "NezhaTokenizer",
        "RoFormerTokenizer",
    },
    _bytepair: {"GPT2Tokenizer", "RobertaTokenizer"},
    _sentencepiece: {"T5Tokenizer", "SpTokenizer"},
    _json: {"OpenAIGPTTokenizer"},  # not byte-level
}
