"""Hubs: the files that tfloader reads, of one version, with the hub's checksums, and no name that leads elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from tests.downloads.conftest import json_page
from tfloader.downloads.hubs import google_storage, hugging_face
from tfloader.downloads.web import Web
from tfloader.errors import DownloadError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def repository(*names: str, **changes) -> dict:
    """What Hugging Face lists; large files are in LFS."""
    siblings = []
    for name in names:
        size = 500 if name.endswith((".json", ".txt")) else 10**6
        item = {"rfilename": name, "size": size, "blobId": hashlib.sha1(name.encode()).hexdigest()}
        if size > 500:
            item["lfs"] = {"sha256": hashlib.sha256(name.encode()).hexdigest(), "size": size, "pointerSize": 130}
        siblings.append(item)
    return {"id": "owner/name", "sha": COMMIT, "siblings": siblings} | changes


@pytest.fixture
def hub(site):
    """Lists a repository and gives the names that would be fetched."""

    def hub(*names, **options):
        site.pages["/api/models/owner/name/revision/main"] = json_page(repository(*names))
        return [file.path for file in hugging_face("owner/name", Web(), site.address, **options)]

    return hub


WEIGHTS = {
    # what is there: what is taken
    ("model.safetensors", "tf_model.h5", "pytorch_model.bin"): ["model.safetensors"],
    ("tf_model.h5", "pytorch_model.bin", "flax_model.msgpack"): ["tf_model.h5"],
    ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
     "model.fp16.safetensors"): ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                 "model.safetensors.index.json"],
    ("model.safetensors", "onnx/model.safetensors", "training_args.bin", "optimizer.pt"): ["model.safetensors"],
}  # fmt: skip


@pytest.mark.parametrize(("there", "taken"), WEIGHTS.items())
def test_one_container_of_weights_is_taken_in_the_order_of_load(there, taken, hub):
    assert hub("README.md", "config.json", *there) == ["config.json", *taken]


def test_tokenizer_files_come_along_and_code_does_not(hub):
    tokenizer = ["vocab.txt", "merges.txt", "vocab.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"]
    others = ["modeling.py", "run.sh", ".gitattributes", "runs/events.tfevents", "model.onnx", "config.json.bak"]
    assert hub("config.json", "generation_config.json", *tokenizer, *others, "model.safetensors") == [
        "config.json", "generation_config.json", *tokenizer, "model.safetensors"
    ]  # fmt: skip


def test_a_pickle_is_taken_with_consent_only(hub):
    with pytest.raises(DownloadError, match=r"Python pickles.*--allow-pickle"):
        hub("config.json", "pytorch_model.bin")
    assert hub("config.json", "pytorch_model.bin", allow_pickle=True) == ["config.json", "pytorch_model.bin"]
    assert "pytorch_model.bin" not in hub("pytorch_model.bin", "model.safetensors", allow_pickle=True)


def test_a_repository_without_weights_is_refused(hub):
    with pytest.raises(DownloadError, match="no weights that tfloader reads"):
        hub("config.json", "model.gguf")


def test_every_file_is_of_the_listed_commit_and_has_the_hubs_checksum(site):
    site.pages["/api/models/owner/name/revision/a%2Fb"] = json_page(repository("config.json", "model.safetensors"))
    small, large = hugging_face("owner/name@a/b", Web(), site.address)
    assert small.url == f"{site.address}/owner/name/resolve/{COMMIT}/config.json"
    assert (small.size, small.checksum) == (500, f"git:{hashlib.sha1(b'config.json').hexdigest()}")
    assert large.url == f"{site.address}/owner/name/resolve/{COMMIT}/model.safetensors"
    assert (large.size, large.checksum) == (10**6, f"sha256:{hashlib.sha256(b'model.safetensors').hexdigest()}")
    assert site.requests[0][0].endswith("?blobs=true")


def test_a_file_in_lfs_without_sha256_gets_no_checksum_of_its_pointer(site):
    listed = repository("config.json", "model.safetensors")
    del listed["siblings"][1]["lfs"]["sha256"]
    site.pages["/api/models/owner/name/revision/main"] = json_page(listed)
    assert hugging_face("owner/name", Web(), site.address)[1].checksum is None


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a/..", "a b", "a/b?c", "a/b#c", "/a", "a/", "a" * 101, "a/b\n"])
def test_what_is_no_repository_is_refused_before_a_request(name, site):
    with pytest.raises(DownloadError, match=r"expected hf:owner/name"):
        hugging_face(name, Web(), site.address)
    assert site.requests == []


@pytest.mark.parametrize(
    "changes",
    [{"sha": None}, {"sha": "main"}, {"sha": "../../x"}, {"siblings": None}, {"siblings": {}}, {"siblings": ["a"]}],
)
def test_a_listing_of_another_form_is_refused(changes, site):
    site.pages["/api/models/owner/name/revision/main"] = json_page(repository("model.safetensors", **changes))
    with pytest.raises(DownloadError, match="not as Hugging Face gives it"):
        hugging_face("owner/name", Web(), site.address)


HOSTILE = [
    {"rfilename": None},
    {"size": "x"},
    {"size": -1},
    {"size": 1e300},
    {"lfs": "a"},
    {"blobId": ["a"]},
    {"lfs": []},
]


@pytest.mark.parametrize("fields", HOSTILE)
def test_values_of_another_kind_are_as_if_they_were_not_there(fields, site):
    listed = repository("config.json", "model.safetensors")
    listed["siblings"][0] |= fields
    site.pages["/api/models/owner/name/revision/main"] = json_page(listed)
    files = {file.path: file for file in hugging_face("owner/name", Web(), site.address)}
    assert files["model.safetensors"].size == 10**6
    assert all(isinstance(file.size, (int, type(None))) for file in files.values())


@pytest.mark.parametrize("name", ["../config.json", "a/../../vocab.txt", "/config.json", "..\\spiece.model"])
def test_names_that_lead_elsewhere_are_not_taken(name, hub):
    assert hub(name, "model.safetensors") == ["model.safetensors"]


# ---- Google Cloud Storage


def bucket(*names: str) -> list[dict]:
    md5 = base64.b64encode(hashlib.md5(b"x").digest()).decode()
    return [{"name": name, "size": "7", "md5Hash": md5, "generation": "15"} for name in names]


FOLDER = "pretrained_models/mt5/small"
LISTING = "/storage/v1/b/t5-data/o"


def test_the_newest_checkpoint_of_a_folder_is_taken_with_what_lies_beside_it(site):
    shards = [f"model.ckpt-{step}.{end}" for step in (9, 10) for end in ("data-00000-of-00001", "index", "meta")]
    others = ["operative_config.gin", "checkpoint", "graph.pbtxt", "events.out", "eval/x.gin"]
    names = [f"{FOLDER}/{name}" for name in [*others, *shards]] + [f"{FOLDER}_other/model.ckpt-99.index", f"{FOLDER}/"]
    site.pages[LISTING] = json_page({"items": bucket(*names)})
    files = google_storage(f"gs://t5-data/{FOLDER}/", Web(), site.address)
    assert [file.path for file in files] == [
        "operative_config.gin", "checkpoint", "model.ckpt-10.data-00000-of-00001", "model.ckpt-10.index"
    ]  # fmt: skip
    assert files[0].url == f"{site.address}/t5-data/{FOLDER}/operative_config.gin?generation=15"
    assert (files[0].size, files[0].checksum) == (7, f"md5:{hashlib.md5(b'x').hexdigest()}")
    assert "prefix=pretrained_models%2Fmt5%2Fsmall&" in site.requests[0][0]


def test_a_long_list_is_read_page_by_page(site):
    site.pages[LISTING] = [
        json_page({"items": bucket(f"{FOLDER}/model.ckpt-1.index"), "nextPageToken": "a/b="}),
        json_page({"items": bucket(f"{FOLDER}/model.ckpt-1.data-00000-of-00001")}),
    ]
    assert len(google_storage(f"gs://t5-data/{FOLDER}", Web(), site.address)) == 2
    assert site.requests[1][0].endswith("&pageToken=a%2Fb%3D")


def test_one_file_is_taken_alone(site):
    site.pages[LISTING] = json_page({"items": bucket("vocabs/x/sentencepiece.model")})
    (file,) = google_storage("gs://t5-data/vocabs/x/sentencepiece.model", Web(), site.address)
    assert file.path == "sentencepiece.model"
    assert file.url == f"{site.address}/t5-data/vocabs/x/sentencepiece.model?generation=15"


def test_an_object_without_md5_has_its_size_only(site):
    listed = bucket(f"{FOLDER}/model.ckpt-1.index")
    listed[0]["md5Hash"] = "no base64"
    site.pages[LISTING] = json_page({"items": listed})
    (file,) = google_storage(f"gs://t5-data/{FOLDER}", Web(), site.address)
    assert (file.size, file.checksum) == (7, None)


@pytest.mark.parametrize("items", [{}, {"items": []}, {"items": bucket(f"{FOLDER}/x.gin", f"{FOLDER}/y")}])
def test_a_folder_without_checkpoint_is_refused(items, site):
    site.pages[LISTING] = json_page(items)
    with pytest.raises(DownloadError, match="no TensorFlow checkpoint"):
        google_storage(f"gs://t5-data/{FOLDER}", Web(), site.address)


def test_another_form_of_list_is_refused(site):
    site.pages[LISTING] = json_page({"items": json.loads('["a"]')})
    with pytest.raises(DownloadError, match="not as Google"):
        google_storage(f"gs://t5-data/{FOLDER}", Web(), site.address)


@pytest.mark.parametrize(
    "address", ["gs://", "gs://bucket", "gs://bucket/../x", "gs://UP/x", "gs://b?c/x", "gs://a@b/x"]
)
def test_what_is_no_folder_of_a_bucket_is_refused(address, site):
    with pytest.raises(DownloadError, match="expected gs://bucket/folder"):
        google_storage(address, Web(), site.address)
    assert site.requests == []
