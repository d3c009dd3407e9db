"""The public releases that have a name here: where their authors publish them, and under which terms.

Facts only, from the authors' own pages. A checksum stands here where the authors publish one, or, for small files
pinned to a commit, where it was computed; hubs publish theirs with the list of files, which is asked for on download.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from tfloader.downloads.transfer import RemoteFile


@dataclass(frozen=True)
class Written:
    """A small text file that is written, from published facts, because the authors publish none."""

    path: str
    text: str


@dataclass(frozen=True)
class Cut:
    """A vocabulary that the models of its group can be cut to: the script's option for it, and the ids that remain."""

    option: str
    help: str
    keep_tokens: str


@dataclass(frozen=True)
class Publication:
    """What somebody published."""

    group: str  # the script in convert/ that it belongs to
    home: str  # the authors' page
    licence: str  # as stated there; "not stated" if it is not
    config: str  # the file that says how large the model is
    vocabulary: str  # the tokenizer's files
    parts: tuple[str | RemoteFile | Written, ...]  # of str: "hf:owner/name", "gs://bucket/folder", an address
    cut: Cut | None = None  # for a vocabulary without a model


APACHE = "Apache-2.0"
NOT_STATED = "not stated"
BERT = "https://storage.googleapis.com/bert_models"
GPT2 = "https://openaipublic.blob.core.windows.net/gpt-2/models"
GPT2_FILES = (
    "checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index", "vocab.bpe"
)  # fmt: skip
T5 = "gs://t5-data"
T5_HOME = "text-to-text-transfer-transformer"
T5_1_1_HOME = f"{T5_HOME}/blob/main/released_checkpoints.md"
FLAN = ("t5", "https://huggingface.co/google", APACHE, "spiece.model (32000 pieces)")
SIZES = ("small", "base", "large", "xl", "xxl")
GPT2_ML = "https://github.com/imcaspar/gpt2-ml"
GPT2_ML_RAW = "https://raw.githubusercontent.com/imcaspar/gpt2-ml/f6286b16cbbee6dddbe1ba557fffb47eaf998cd1"
MT5_CHINESE = "https://raw.githubusercontent.com/bojone/t5_in_bert4keras/e106f39754932759bda34d33809fc0ee2cbcb1ca"


def _gpt2_ml(step: int, tag: str, drive: str, sha256: str, vocab: str, vocab_sha256: str, size: int) -> Publication:
    config = {
        "vocab_size": size, "hidden_size": 1536, "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1,
        "hidden_act": "gelu", "initializer_range": 0.014142135623731, "intermediate_size": 6144,
        "max_position_embeddings": 1024, "num_attention_heads": 24, "num_hidden_layers": 48,
    }  # fmt: skip
    return Publication(
        "gpt2_ml", GPT2_ML, APACHE, f"configs/mega.json with vocab_size {size}", f"{vocab} ({size} tokens)",
        (
            RemoteFile(
                f"https://drive.usercontent.google.com/download?id={drive}&export=download&confirm=t",
                f"model.ckpt-{step}.data-00000-of-00001", None, f"sha256:{sha256}",
                f"https://drive.google.com/file/d/{drive}",
            ),
            f"{GPT2_ML}/releases/download/{tag}/model.ckpt-{step}.index",
            RemoteFile(f"{GPT2_ML_RAW}/tokenization/{vocab}", "vocab.txt", None, f"sha256:{vocab_sha256}"),
            Written("config.json", json.dumps(config, indent=2) + "\n"),
        ),
    )  # fmt: skip


def _t5(
    home: str, folder: str, vocabulary: str = "cc_all.32000", pieces: int = 32000, group: str = "t5"
) -> Publication:
    return Publication(
        group, f"https://github.com/google-research/{home}", APACHE, "operative_config.gin",
        f"sentencepiece.model ({pieces} pieces)",
        (f"{T5}/pretrained_models/{folder}", f"{T5}/vocabs/{vocabulary}/sentencepiece.model"),
    )  # fmt: skip


def _hugging_face(group: str, home: str, licence: str, vocabulary: str, repository: str) -> Publication:
    return Publication(group, home, licence, "config.json", vocabulary, (f"hf:{repository}",))


def _pegasus(size: str, page: str) -> Publication:
    archive = RemoteFile(None, f"chinese_t5_pegasus_{size}.zip", None, None, page)
    return Publication(
        "t5_pegasus", "https://github.com/ZhuiyiTechnology/t5-pegasus", NOT_STATED, "config.json, in the archive",
        "vocab.txt, in the archive (WordPiece with Chinese words, about 50000 tokens)", (archive,),
    )  # fmt: skip


WWM = (
    "chinese_bert_wwm", "https://github.com/ymcui/Chinese-BERT-wwm", APACHE,
    "vocab.txt (WordPiece, 21128 tokens, that of Google's Chinese BERT)",
)  # fmt: skip
CDIAL = ("cdial_gpt", "https://github.com/thu-coai/CDial-GPT", "MIT", "vocab.txt (WordPiece of Chinese characters)")

CATALOGUE: dict[str, Publication] = {
    **{
        name: Publication(
            "bert", "https://github.com/google-research/bert", APACHE, "bert_config.json", "vocab.txt (WordPiece)",
            (f"{BERT}/{date}/{name}.zip",),
        )
        for date, name in (
            ("2018_10_18", "uncased_L-12_H-768_A-12"),
            ("2018_10_18", "uncased_L-24_H-1024_A-16"),
            ("2018_10_18", "cased_L-12_H-768_A-12"),
            ("2018_10_18", "cased_L-24_H-1024_A-16"),
            ("2019_05_30", "wwm_uncased_L-24_H-1024_A-16"),
            ("2019_05_30", "wwm_cased_L-24_H-1024_A-16"),
            ("2018_11_03", "chinese_L-12_H-768_A-12"),
            ("2018_11_23", "multi_cased_L-12_H-768_A-12"),
            ("2018_11_03", "multilingual_L-12_H-768_A-12"),
        )
    },
    **{
        f"chinese-{name}": _hugging_face(*WWM, f"hfl/chinese-{name}")
        for name in ("bert-wwm", "bert-wwm-ext", "roberta-wwm-ext", "roberta-wwm-ext-large")
    },
    **{
        f"gpt2-{size}": Publication(
            "gpt2", "https://github.com/openai/gpt-2", "Modified MIT", "hparams.json",
            "encoder.json and vocab.bpe (byte-level BPE, 50257 tokens)",
            tuple(f"{GPT2}/{size}/{file}" for file in GPT2_FILES),
        )
        for size in ("124M", "355M", "774M", "1558M")
    },
    "gpt2-ml-15g": _gpt2_ml(
        100000, "v0.5", "1IzWpQ6I2IgfV7CldZvFJnZ9byNDZdO4n",
        "4a6e5124df8db7ac2bdd902e6191b807a6983a7f5d09fb10ce011f9a073b183e", "bert-base-chinese-vocab.txt",
        "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c", 21128,
    ),
    "gpt2-ml-30g": _gpt2_ml(
        220000, "v1.0", "1mT_qCQg4AWnAXTwKfsyyRWCRpgPrBJS3",
        "e698cc97a7f5f706f84f58bb469d614e51d3c0ce5f9ab9bf77e01e3fcb41d482", "clue-vocab.txt",
        "a25692ff268cd5d2468a66601ad746c49251bcc0b5a330592708bbe89ef67d02", 8021,
    ),
    **{f"t5-{size}": _t5(T5_HOME, size) for size in ("small", "base", "large", "3B", "11B")},
    **{f"t5.1.1.{size}": _t5(T5_1_1_HOME, f"t5.1.1.{size}") for size in SIZES},
    **{f"flan-t5-{size}": _hugging_face(*FLAN, f"google/flan-t5-{size}") for size in SIZES},
    **{f"mt5-{size}": _t5("multilingual-t5", f"mt5/{size}", "mc4.250000.100extra", 250100, "mt5") for size in SIZES},
    # Made for bert4keras: mT5's vocabulary cut to Chinese, and the rows of the embeddings that belong to it.
    "mt5-chinese-vocabulary": Publication(
        "mt5", "https://github.com/bojone/t5_in_bert4keras", NOT_STATED, "none: goes with mt5-*",
        "sentencepiece_cn.model (32596 pieces)",
        (
            RemoteFile(
                f"{MT5_CHINESE}/tokenizer/sentencepiece_cn.model", "sentencepiece_cn.model", 680811,
                "sha256:c65feffa65ff0378759778193852083d23349cb1b40c906e9463a12f8076ff32",
            ),
            RemoteFile(
                f"{MT5_CHINESE}/tokenizer/sentencepiece_cn_keep_tokens.json", "sentencepiece_cn_keep_tokens.json",
                242822, "sha256:abc68d4544a63deba1afcdb8d9ace562bea090264f9dca53b6c8f16f71a2a138",
            ),
        ),
        Cut("--chinese", "keep only the tokens of the Chinese vocabulary", "sentencepiece_cn_keep_tokens.json"),
    ),
    "t5-pegasus-base": _pegasus("base", "https://pan.baidu.com/s/1lQ9Dt9wZDO3IgiCL9tP-Ug (code 3sfn)"),
    "t5-pegasus-small": _pegasus("small", "https://pan.baidu.com/s/1bXRVWnDyAck9VfSO9_1oJQ (code qguk)"),
    "cpm-generate": _hugging_face(
        "cpm", "https://github.com/TsinghuaAI/CPM-1-Generate", "MIT", "spiece.model", "TsinghuaAI/CPM-Generate"
    ),
    "cdial-gpt-lccc-base": _hugging_face(*CDIAL, "thu-coai/CDial-GPT_LCCC-base"),
    "cdial-gpt-lccc-large": _hugging_face(*CDIAL, "thu-coai/CDial-GPT_LCCC-large"),
    "cdial-gpt2-lccc-base": _hugging_face(*CDIAL, "thu-coai/CDial-GPT2_LCCC-base"),
}  # fmt: skip


def published(name: str) -> str | None:
    """The name of the catalogue that is written like this one, but for the kind of dashes; None if there is none."""
    return next((known for known in CATALOGUE if re.sub("[._]", "-", known) == re.sub("[._]", "-", name)), None)
