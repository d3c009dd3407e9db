"""Other files that `fuzz.py` damages: configs, tokenizers and archives, each with who else can read it."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import random
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz import CHECKPOINTS, TOKENIZERS, Target, damaged_bytes, damaged_json

TEXTS = ["Hello world, it's 2026.", "我要在中国", "a b\tc\n  d", "ÀÉ ß Σίσυφος", "", "unaffable [MASK] walking"]


# ---- configs


def changed(name: str, files: dict[str, bytes]) -> Callable[[str, Any], bool | None]:
    """For a JSON file that no one else reads: another document may mean another value, the same one must not."""
    whole = json.loads(files[name])
    return lambda folder, value: json.loads(Path(folder, name).read_bytes()) != whole or None


def config(folder: str) -> Target:
    from tfloader.checkpoints import open_checkpoint
    from tfloader.naming.reading import NOT_MODEL_CONFIGS, detect_release

    source = CHECKPOINTS / folder
    keep = (".safetensors", ".index", ".data-00000-of-00001", ".h5")
    names = [path.name for path in source.glob("*config.json") if path.name not in NOT_MODEL_CONFIGS]
    names += [path.name for path in source.iterdir() if path.name.endswith(keep) or path.name == "checkpoint"]
    with open_checkpoint(source) as checkpoint:
        release = detect_release(checkpoint)

    def opened() -> Callable[[str], Any]:
        from tfloader import load_config

        return lambda place: load_config(place)

    def right(place: str, value: Any) -> bool:
        """Each key of the file that is not declared harmless is in the config, or in the file that is written of it."""
        raw = json.loads(Path(place, names[0]).read_bytes())
        dialect = release.dialect_for(raw, place)
        found = [(name, key) for key in dialect.keys for name in key.names if raw.get(name) is not None]
        if all(key.read(raw[name]) == getattr(value, key.ours) for name, key in found):
            return True
        written = json.loads(json.dumps(dialect.write(value)))  # a tuple is a list there
        return all(written[name] == raw[name] for name, _ in found if name in written)

    files = {name: (source / name).read_bytes() for name in names}
    return Target(f"config of {folder}", files, opened, right, {".json": damaged_json})


def gin() -> Target:
    source = CHECKPOINTS / "mt5_mesh"
    name = "operative_config.gin"

    def opened() -> Callable[[str], Any]:
        from tfloader.files import read_text
        from tfloader.naming.gin import parse_gin

        return lambda place: parse_gin(read_text(os.path.join(place, name)), name)

    return Target("gin", {name: (source / name).read_bytes()}, opened, lambda *_: True)


def generation_config() -> Target:
    files = {"generation_config.json": (CHECKPOINTS / "hf_openai_gpt" / "generation_config.json").read_bytes()}

    def opened() -> Callable[[str], Any]:
        from tfloader import load_generation_config

        return load_generation_config

    right = changed("generation_config.json", files)
    return Target("generation_config", files, opened, right, {".json": damaged_json})


# ---- tokenizers


def ids(path: str, kind: str = "load_tokenizer", **options: Any) -> Callable[[], Callable[[str], Any]]:
    def opened() -> Callable[[str], Any]:
        import tfloader

        def read(folder: str) -> Any:
            tokenizer = getattr(tfloader, kind)(os.path.join(folder, path), **options)
            return getattr(tokenizer, "do_lower_case", None), [list(tokenizer.encode(text)[0]) for text in TEXTS]

        return read

    return opened


def wordpiece() -> Target:
    def right(folder: str, value: Any) -> bool:
        from tokenizers import BertWordPieceTokenizer

        other = BertWordPieceTokenizer(os.path.join(folder, "vocab.txt"), lowercase=value[0])
        return value[1][:-1] == [other.encode(text).ids for text in TEXTS[:-1]]  # it knows [MASK] in texts

    files = {"vocab.txt": (CHECKPOINTS / "hf_bert" / "vocab.txt").read_bytes()}
    return Target("wordpiece", files, ids("vocab.txt"), right)


def bytepair() -> Target:
    def right(folder: str, value: Any) -> bool:
        from tokenizers import ByteLevelBPETokenizer

        names = (os.path.join(folder, name) for name in ("encoder.json", "vocab.bpe"))
        other = ByteLevelBPETokenizer.from_file(*names)
        return value[1] == [other.encode(text).ids for text in TEXTS]

    files = {name: (TOKENIZERS / "gpt2_openai" / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    return Target("bytepair", files, ids(""), right, {".json": damaged_json}, damaged=2)


def sentencepiece() -> Target:
    def right(folder: str, value: Any) -> bool:
        from sentencepiece import SentencePieceProcessor

        other = SentencePieceProcessor(model_file=os.path.join(folder, "spiece.model"))
        return value[1] == [other.encode(text) for text in TEXTS]

    content = gzip.decompress((TOKENIZERS / "test_model.model.gz").read_bytes())
    return Target("sentencepiece", {"spiece.model": content}, ids("spiece.model", "SpTokenizer", token_end=None), right)


def tokenizer_json() -> Target:
    def right(folder: str, value: Any) -> bool:
        from tokenizers import Tokenizer

        other = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        other.no_padding()  # calls decide these
        other.no_truncation()
        return value[1] == [other.encode(text).ids for text in TEXTS]

    files = {"tokenizer.json": (TOKENIZERS / "tiny_bert_random" / "tokenizer.json").read_bytes()}
    return Target("tokenizer.json", files, ids("tokenizer.json"), right, {".json": damaged_json})


def tokenizer_config() -> Target:
    names = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    files = {name: (TOKENIZERS / "tiny_bert_random" / name).read_bytes() for name in names}
    rights = [changed(name, files) for name in names[:2]]

    def right(folder: str, value: Any) -> bool | None:
        return any(item(folder, value) for item in rights) or None

    return Target("tokenizer_config", files, ids(""), right, {".json": damaged_json}, damaged=2)


# ---- archives

INSIDE = {"model/config.json": b'{"a": 1}', "model/vocab.txt": b"a\nb\n" * 50, "model/more/x.bin": bytes(range(256))}


def unpacked(name: str) -> Callable[[], Callable[[str], Any]]:
    def opened() -> Callable[[str], Any]:
        from tfloader.downloads.archives import unpack

        def read(folder: str) -> dict[str, bytes]:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                out = Path(place, "deep", "out")
                out.parent.mkdir()
                try:
                    unpack(os.path.join(folder, name), str(out))
                    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
                finally:
                    shutil.rmtree(out, ignore_errors=True)
                    if left := [str(path) for path in Path(place).rglob("*") if path.name != "deep"]:
                        raise AssertionError(f"left outside of the folder: {left}")

        return read

    return opened


def without_the_one_folder(found: dict[str, bytes]) -> dict[str, bytes]:
    found = {os.path.normpath(name): content for name, content in found.items()}
    tops = {name.partition("/")[0] for name in found}
    alone = len(tops) == 1 and all("/" in name for name in found)
    return {name.partition("/")[2]: content for name, content in found.items()} if alone else found


def archive_zip() -> Target:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in INSIDE.items():
            file.writestr(name, content)

    def right(folder: str, value: Any) -> bool:
        with zipfile.ZipFile(os.path.join(folder, "a.zip")) as file:
            found = {item.filename: file.read(item) for item in file.infolist() if not item.is_dir()}
        return value == without_the_one_folder(found)

    return Target("zip", {"a.zip": made.getvalue()}, unpacked("a.zip"), right)


def tar_header(draw: random.Random, content: bytes) -> bytes:
    """A header damaged under a checksum that is right."""
    data = bytearray(content)
    start = 512 * draw.choice([place for place in range(len(data) // 512) if data[512 * place + 257 :][:5] == b"ustar"])
    field, size = draw.choice(((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (345, 155)))
    data[start + field : start + field + size] = damaged_bytes(draw, bytes(data[start + field :][:size]))[:size].ljust(
        size, b"\0"
    )
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return bytes(data)


def archive_tar(name: str) -> Target:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz" if name.endswith("gz") else "w", format=tarfile.USTAR_FORMAT) as file:
        for inside, content in INSIDE.items():
            item = tarfile.TarInfo(inside)
            item.size = len(content)
            file.addfile(item, io.BytesIO(content))

    def right(folder: str, value: Any) -> bool:
        with tarfile.open(os.path.join(folder, name)) as file:
            found = {item.name: file.extractfile(item).read() for item in file if item.isreg()}
        return value == without_the_one_folder(found)

    return Target(name[2:], {name: made.getvalue()}, unpacked(name), right, {".tar": tar_header})


CONFIGS = ["hf_bert", "hf_gpt2", "hf_t5_v11", "bert_google", "hf_roberta", "albert_google", "gau_alpha", "gpt2_ml"]
TARGETS: dict[str, Callable[[], Target]] = {
    **{f"config-{folder}": functools.partial(config, folder) for folder in CONFIGS},
    "gin": gin,
    "generation_config": generation_config,
    "wordpiece": wordpiece,
    "bytepair": bytepair,
    "sentencepiece": sentencepiece,
    "tokenizer.json": tokenizer_json,
    "tokenizer_config": tokenizer_config,
    "zip": archive_zip,
    "tar": functools.partial(archive_tar, "a.tar"),
    "tar.gz": functools.partial(archive_tar, "a.tar.gz"),
}
