"""`tfloader.download` and its command: a folder that is whole or not there, from every kind of source."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.downloads.conftest import answer, file, json_page
from tfloader import cli, downloads
from tfloader.downloads import CATALOGUE, downloading
from tfloader.downloads.archives import name_problem
from tfloader.downloads.catalogue import Publication, Written
from tfloader.downloads.transfer import RemoteFile
from tfloader.errors import DownloadError
from tfloader.naming import gpt2_ml, read_config

ROOT = Path(__file__).parents[2]
BERT = CHECKPOINTS / "bert_google"
NAMES = ("bert_config.json", "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "vocab.txt")
COMMIT = "ab" * 20


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != downloading.RECORD}


def archive(folder: Path, top: str = "bert/") -> bytes:
    with zipfile.ZipFile(folder.parent / "a.zip", "w") as file:
        for name in NAMES:
            file.write(BERT / name, top + name)
    return (folder.parent / "a.zip").read_bytes()


def publish_bert(site, folder) -> str:
    site.pages["/models/bert.zip"] = file(archive(folder))
    return f"{site.address}/models/bert.zip"


def publish_repository(site, source: Path, names, owner: str = "owner/name") -> None:
    """As Hugging Face does it, with the checksums of the real content."""
    siblings = []
    for name in names:
        data = (source / name).read_bytes()
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        large = {"lfs": lfs} if len(data) > 10_000 else {}
        siblings.append({"rfilename": name, "size": len(data), "blobId": git, **large})
        site.pages[f"/{owner}/resolve/{COMMIT}/{name}"] = file(data)
    site.pages[f"/api/models/{owner}/revision/main"] = json_page({"sha": COMMIT, "siblings": siblings})


def refused(*words: str, **arguments) -> str:
    with pytest.raises(DownloadError) as caught:
        tfloader.download(**arguments)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value
    return str(caught.value)


# ---- what comes of it


def test_an_archive_becomes_a_folder_that_loads(site, folder):
    path = tfloader.download(publish_bert(site, folder))
    assert path == "bert"
    assert content("bert") == {name: (BERT / name).read_bytes() for name in NAMES}
    assert sorted(os.listdir()) == ["bert"]
    assert tfloader.load_config(path).hidden_size == 48


def test_a_file_goes_into_the_current_folder_or_another(site):
    site.pages["/vocab%20x.txt"] = file(b"[PAD]\n")
    assert tfloader.download(f"{site.address}/vocab%20x.txt") == os.path.join(".", "vocab x.txt")
    assert tfloader.download(f"{site.address}/vocab%20x.txt", "deep/er") == os.path.join("deep/er", "vocab x.txt")
    assert sorted(os.listdir()) == [".vocab x.txt.download.json", "deep", "vocab x.txt"]


def test_a_repository_becomes_a_folder_that_loads(site):
    source = CHECKPOINTS / "hf_bert"
    publish_repository(site, source, ("config.json", "model.safetensors", "vocab.txt"))
    path = tfloader.download("hf:owner/name", mirror=f"{site.address}/")
    assert path == "name"
    assert content(path) == {
        name: (source / name).read_bytes() for name in ("config.json", "model.safetensors", "vocab.txt")
    }
    assert tfloader.load_config(path).family == "bert"


def test_the_mirror_of_hugging_face_users_is_used(site, monkeypatch):
    publish_repository(site, CHECKPOINTS / "hf_bert", ("config.json", "model.safetensors"))
    monkeypatch.setenv("HF_ENDPOINT", site.address + "/")
    assert tfloader.download("hf:owner/name", "mirrored") == "mirrored"


def test_a_folder_of_google_storage_becomes_a_folder_that_loads(site):
    source = CHECKPOINTS / "t5_mesh_v10"
    names = ("operative_config.gin", "model.ckpt-1000000.index", "model.ckpt-1000000.data-00000-of-00001")
    items = []
    for name in names:
        data = (source / name).read_bytes()
        items.append({"name": f"models/small/{name}", "size": str(len(data)), "generation": "3"})
        site.pages[f"/t5-data/models/small/{name}"] = file(data)
    site.pages["/storage/v1/b/t5-data/o"] = json_page({"items": items})
    path = tfloader.download("gs://t5-data/models/small", mirror=site.address)
    assert path == "small"
    assert content(path) == {name: (source / name).read_bytes() for name in names}


def test_a_named_release_is_all_its_parts(site, folder, monkeypatch):
    vocabulary = (BERT / "vocab.txt").read_bytes()
    site.pages["/v"], site.pages["/weights"] = file(vocabulary), file(b"weights")
    sha256 = f"sha256:{hashlib.sha256(vocabulary).hexdigest()}"
    parts = (
        RemoteFile(f"{site.address}/v", "vocab.txt", None, sha256),
        f"{site.address}/weights",
        Written("config.json", "{}\n"),
    )
    monkeypatch.setitem(CATALOGUE, "some-model", Publication("", "", "", "", "", parts))
    assert tfloader.download("some-model") == "some-model"
    assert content("some-model") == {"vocab.txt": vocabulary, "weights": b"weights", "config.json": b"{}\n"}


def test_a_release_to_be_had_by_hand_is_taken_up_once_it_is_there(site, folder, monkeypatch):
    parts = (RemoteFile(None, "chinese.zip", None, None, "https://pan.example/s/1 (code abcd)"),)
    monkeypatch.setitem(CATALOGUE, "by-hand", Publication("", "", "", "", "", parts))
    place = os.path.join("by-hand.partial", "chinese.zip")
    refused("https://pan.example/s/1 (code abcd)", place, source="by-hand")
    Path(place).write_bytes(archive(folder))
    assert tfloader.download("by-hand") == "by-hand"
    assert set(content("by-hand")) == set(NAMES)
    assert os.listdir() == ["by-hand"]


# ---- whole or not at all


def test_what_is_there_is_not_asked_for_again(site, folder):
    url = publish_bert(site, folder)
    tfloader.download(url)
    site.requests.clear()
    assert tfloader.download(url) == "bert"
    assert site.requests == []


def test_an_interrupted_folder_has_another_name_and_is_continued(site, pauses):
    names = ("config.json", "model.safetensors", "vocab.txt")
    source = CHECKPOINTS / "hf_bert"
    publish_repository(site, source, names)
    weights = site.pages[f"/owner/name/resolve/{COMMIT}/model.safetensors"]
    site.pages[f"/owner/name/resolve/{COMMIT}/model.safetensors"] = answer(500)
    refused("HTTP 500", source="hf:owner/name", mirror=site.address, sleep=pauses.append)
    assert os.listdir() == ["name.partial"]
    site.pages[f"/owner/name/resolve/{COMMIT}/model.safetensors"] = weights
    site.requests.clear()
    assert tfloader.download("hf:owner/name", mirror=site.address) == "name"
    assert [path.rpartition("/")[2] for path, _ in site.requests] == ["main?blobs=true", "model.safetensors"]
    assert os.listdir() == ["name"]


def test_what_an_earlier_run_fetched_of_another_version_is_not_mixed_in(site, pauses):
    source = CHECKPOINTS / "hf_bert"
    publish_repository(site, source, ("config.json", "vocab.txt", "model.safetensors"), owner="old/name")
    site.pages[f"/old/name/resolve/{COMMIT}/model.safetensors"] = answer(404)
    refused("HTTP 404", source="hf:old/name", mirror=site.address)
    assert "config.json" in os.listdir("name.partial")
    new = CHECKPOINTS / "hf_gpt2"
    publish_repository(site, new, ("config.json", "model.safetensors"), owner="new/name")
    tfloader.download("hf:new/name", mirror=site.address)
    assert content("name") == {name: (new / name).read_bytes() for name in ("config.json", "model.safetensors")}


def test_a_page_in_place_of_a_file_says_where_to_put_the_file_got_by_hand(site, folder, monkeypatch):
    """As Google Drive does with large files at times."""
    site.pages["/download"] = answer(200, b"<html>Too many users", Content_Type="text/html")
    checksum = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    parts = (
        RemoteFile(f"{site.address}/download", "weights", None, checksum, "https://drive.example/1"),
        Written("a", ""),
    )
    monkeypatch.setitem(CATALOGUE, "on-drive", Publication("", "", "", "", "", parts))
    place = os.path.join("on-drive.partial", "weights")
    refused("web page", "https://drive.example/1", place, source="on-drive")
    Path(place).write_bytes(b"weights")
    assert tfloader.download("on-drive") == "on-drive"
    assert len(site.requests) == 1


def test_a_hostile_archive_leaves_no_folder(site, folder):
    site.pages["/bert.zip"] = file(archive(folder, "../"))
    refused("leads out of the folder", source=f"{site.address}/bert.zip")
    assert os.listdir() == ["bert.partial"]


def test_a_wrong_sha256_leaves_nothing(site, folder):
    url = publish_bert(site, folder)
    refused("not what was published", source=url, sha256="0" * 64)
    assert not os.path.exists("bert")
    right = hashlib.sha256((folder.parent / "a.zip").read_bytes()).hexdigest()
    assert tfloader.download(url, sha256=right.upper()) == "bert"
    assert tfloader.download(url, sha256=right) == tfloader.download(url) == "bert"
    refused("not downloaded with this sha256", source=url, sha256="0" * 64)


@pytest.mark.parametrize("source", ["hf:a/b", "gs://bucket/x", "gpt2-124M"])
def test_a_sha256_of_many_files_is_refused(source):
    refused("one file only", source=source, sha256="0" * 64)


def test_a_folder_that_was_not_downloaded_is_left_alone(site, folder):
    Path("bert").mkdir()
    Path("bert/mine").write_text("mine")
    refused("was not downloaded by tfloader", "--output", source=publish_bert(site, folder))
    assert os.listdir("bert") == ["mine"]


def test_a_folder_of_another_source_is_left_alone(site, folder):
    url = publish_bert(site, folder)
    tfloader.download(f"{url}?key=secret-one")
    message = refused("it holds", source=f"{url}?key=secret-two")
    assert "secret" not in message + Path("bert", downloading.RECORD).read_text()


def test_a_folder_that_was_changed_is_not_taken_for_whole(site, folder):
    url = publish_bert(site, folder)
    tfloader.download(url)
    os.truncate("bert/vocab.txt", 5)
    os.remove("bert/bert_model.ckpt.index")
    refused("no longer as downloaded: bert_model.ckpt.index, vocab.txt", source=url)


def flip_last_byte(path: str, keep_time: bool) -> None:
    before = os.stat(path)
    data = bytearray(Path(path).read_bytes())
    data[-1] ^= 1
    Path(path).write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if keep_time else 10**9)))


def test_a_file_changed_in_place_is_not_taken_for_whole_although_its_size_is_the_same(site, folder):
    url = publish_bert(site, folder)
    tfloader.download(url)
    os.utime("bert/vocab.txt", ns=(0, 0))
    assert tfloader.download(url) == "bert", "a copy has another time, and the same content"
    flip_last_byte("bert/bert_model.ckpt.index", keep_time=False)
    refused("no longer as downloaded: bert_model.ckpt.index", source=url)


def test_with_a_sha256_every_byte_is_compared(site, folder):
    url = publish_bert(site, folder)
    sha256 = hashlib.sha256((folder.parent / "a.zip").read_bytes()).hexdigest()
    assert tfloader.download(url, sha256=sha256) == "bert"
    flip_last_byte("bert/bert_model.ckpt.data-00000-of-00001", keep_time=True)
    refused("no longer as downloaded: bert_model.ckpt.data", source=url, sha256=sha256)


def test_a_file_of_the_same_name_from_elsewhere_is_not_taken_for_the_download(site):
    site.pages["/bert/vocab.txt"], site.pages["/gpt2/vocab.txt"] = file(b"[PAD]\n"), file(b"[UNK]\n")
    path = tfloader.download(f"{site.address}/bert/vocab.txt")
    assert tfloader.download(f"{site.address}/bert/vocab.txt", offline=True) == path
    for offline in (False, True):
        refused("it holds", "/bert/vocab.txt", source=f"{site.address}/gpt2/vocab.txt", offline=offline)
    Path("config.json").write_text("{}")
    refused("was not downloaded", source=f"{site.address}/a/config.json")
    flip_last_byte(path, keep_time=False)
    refused("no longer as downloaded", source=f"{site.address}/bert/vocab.txt")
    os.remove(path)
    assert Path(tfloader.download(f"{site.address}/gpt2/vocab.txt")).read_bytes() == b"[UNK]\n"


def test_a_file_got_by_hand_is_taken_if_it_has_the_sha256(site):
    Path("weights.h5").write_bytes(b"weights")
    source = f"{site.address}/weights.h5"
    assert tfloader.download(source, sha256=hashlib.sha256(b"weights").hexdigest()) == os.path.join(".", "weights.h5")
    refused("its sha256 is", source=source, sha256="0" * 64)
    assert site.requests == []


@pytest.mark.parametrize("sha256", ["", "0" * 63, "g" * 64, "0" * 64 + "\n"])
def test_a_sha256_that_is_none_is_refused_and_not_left_out(sha256):
    refused("sha256: expected 64 hexadecimal digits", source="https://example.org/a.zip", sha256=sha256)


def test_a_revision_without_a_name_is_refused_and_not_main(site):
    refused("hf:owner/name@revision", source="hf:owner/name@", mirror=site.address)
    assert site.requests == []


def test_what_is_there_is_used_without_writing_beside_it(site, folder, monkeypatch):
    """As by somebody who may only read a shared folder."""
    url, vocab = publish_bert(site, folder), f"{site.address}/vocab.txt"
    site.pages["/vocab.txt"] = file(b"[PAD]\n")
    paths = tfloader.download(url), tfloader.download(vocab)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    for name in ("locked", "write_json"):
        monkeypatch.setattr(downloading, name, forbidden)
    monkeypatch.setattr(os, "makedirs", forbidden)
    for offline in (False, True):
        assert (tfloader.download(url, offline=offline), tfloader.download(vocab, offline=offline)) == paths


@pytest.mark.parametrize(
    "content", ['{"files": [1]}', '{"files": {"vocab.txt": 5}}', '{"files": {"../x": [1, 2, "a"]}}']
)
def test_a_record_of_another_form_is_an_error(content, site, folder):
    url = publish_bert(site, folder)
    tfloader.download(url)
    record = Path("bert", downloading.RECORD)
    record.write_text(json.dumps(json.loads(record.read_text()) | json.loads(content)))
    refused("bert", "Remove", source=url)


def test_a_record_of_a_partial_download_of_another_form_is_started_anew(site, folder):
    Path("bert.partial").mkdir()
    Path("bert.partial", downloading.RECORD).write_text('{"wanted": [1]}')
    assert tfloader.download(publish_bert(site, folder)) == "bert"


def test_offline_gives_what_is_there_and_makes_no_request(site, folder, monkeypatch):
    url = publish_bert(site, folder)
    refused("offline", source=url, offline=True)
    refused("offline", source=f"{site.address}/vocab.txt", offline=True)
    assert site.requests == []
    tfloader.download(url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    site.requests.clear()
    assert tfloader.download(url) == "bert"
    refused("HF_HUB_OFFLINE", source="hf:owner/name")
    assert site.requests == []
    assert tfloader.download(url, "again", offline=False) == "again"


# ---- several processes


WAITING = """
import fcntl, sys, tfloader

flock = fcntl.flock
fcntl.flock = lambda *arguments: print("wants the lock", flush=True) or flock(*arguments)
print(tfloader.download(sys.argv[1], "shared"))
"""


def process(code: str, url: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, url], env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_want_the_same_and_one_fetches_it(site, folder):
    """The server holds the first up until both want the lock."""
    pytest.importorskip("fcntl", reason="this system has no flock")
    data, go_on = archive(folder), threading.Event()
    site.pages["/bert.zip"] = lambda request: go_on.wait(60) and file(data)(request)
    processes = [process(WAITING, f"{site.address}/bert.zip") for _ in range(2)]
    assert [item.stdout.readline() for item in processes] == ["wants the lock\n"] * 2
    go_on.set()
    assert [item.communicate(timeout=60)[0].splitlines()[-1] for item in processes] == ["shared"] * 2
    assert len(site.requests) == 1
    assert sorted(os.listdir()) == ["shared"]


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_process_leaves_nothing_that_looks_whole_and_no_lock(attempt, site, folder):
    data = archive(folder)
    begun = threading.Event()

    def stuck(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.send_header("ETag", '"one"')
        request.end_headers()
        request.wfile.write(data[: 70_000 * (attempt + 1)])
        request.wfile.flush()
        begun.set()
        threading.Event().wait(60)

    site.pages["/bert.zip"] = [stuck, file(data)]
    child = process("import sys, tfloader; tfloader.download(sys.argv[1])", f"{site.address}/bert.zip")
    assert begun.wait(60)
    while child.poll() is None and not os.path.exists("bert.partial/bert.zip.partial"):
        time.sleep(0.01)
    child.kill()
    child.communicate(timeout=60)
    assert not os.path.exists("bert")
    assert tfloader.download(f"{site.address}/bert.zip") == "bert"
    assert content("bert") == {name: (BERT / name).read_bytes() for name in NAMES}
    assert os.listdir() == ["bert"]


# ---- tokens


def test_the_token_of_the_environment_goes_to_hugging_face_only(site, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_topsecret")
    publish_repository(site, CHECKPOINTS / "hf_bert", ("config.json", "model.safetensors"))
    tfloader.download("hf:owner/name", mirror=site.address)
    monkeypatch.setenv("HF_ENDPOINT", site.address)
    tfloader.download("hf:owner/name", "second")
    assert set(site.asked("Authorization")) == {None}
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.setattr(downloading, "HUGGING_FACE", site.address)
    tfloader.download("hf:owner/name", "third")
    assert site.asked("Authorization")[-3:] == ["Bearer hf_topsecret"] * 3


def test_a_token_that_is_given_goes_to_the_mirror_or_the_address(site, folder):
    publish_repository(site, CHECKPOINTS / "hf_bert", ("config.json", "model.safetensors"))
    tfloader.download("hf:owner/name", mirror=site.address, token="abc")
    tfloader.download(publish_bert(site, folder), token="abc")
    assert set(site.asked("Authorization")) == {"Bearer abc"}


def test_a_token_does_not_go_to_the_hosts_of_a_named_release(site, monkeypatch):
    site.pages["/a"] = site.pages["/b"] = file(b"a")
    parts = (RemoteFile(f"{site.address}/a", "a"), f"{site.address}/b")
    monkeypatch.setitem(CATALOGUE, "some-model", Publication("", "", "", "", "", parts))
    tfloader.download("some-model", token="abc")
    assert site.asked("Authorization") == [None, None]


# ---- names


@pytest.mark.parametrize(
    ("source", "words"),
    {
        "gpt2-124m": ["did you mean 'gpt2-124M'", "hf:owner/name"],
        "": ["not the name of a release"],
        "owner/name": ["hf:owner/name"],
        "https://example.org/": ["does not end in the name of a file"],
        "https://example.org/..": ["does not end in the name of a file"],
        "https://example.org/%2e%2e%2fevil.zip": ["does not end in the name of a file"],
        "https://me:secret@example.org/a.zip": ["user name or password"],
        "ftp://example.org/a.zip": ["not the name of a release"],
    }.items(),
)
def test_a_source_that_is_none_is_refused(source, words):
    assert "secret" not in refused(*words, source=source)
    assert os.listdir() == []


def test_a_release_is_known_by_its_name_with_other_dashes(monkeypatch):
    monkeypatch.setitem(CATALOGUE, "t5.1.1.tiny", Publication("", "", "", "", "", (Written("config.json", "{}"),)))
    assert tfloader.download("t5_1_1-tiny") == "t5.1.1.tiny"


@pytest.mark.parametrize("mirror", ["hf-mirror.com", "ftp://mirror", "https://me:secret@mirror"])
def test_a_mirror_that_is_no_address_is_refused(mirror):
    assert "secret" not in refused(source="hf:a/b", mirror=mirror)


def test_rows_of_the_catalogue_are_of_the_right_form():
    for name, row in CATALOGUE.items():
        assert name_problem(name) == ""
        assert all([row.group, row.home, row.licence, row.config, row.vocabulary])
        assert row.home.startswith("https://")
        files = [part for part in row.parts if isinstance(part, RemoteFile)]
        for part in files:
            assert name_problem(part.path) == ""
            assert part.checksum is None or len(part.checksum) == len("sha256:") + 64
            assert (part.url or part.page).startswith("https://")
        for part in row.parts:
            assert not isinstance(part, str) or part.startswith(("https://", "hf:", "gs://"))
            if isinstance(part, Written):
                json.loads(part.text)


def test_the_config_that_is_written_for_gpt2_ml_is_understood():
    for name, size in {"gpt2-ml-15g": 21128, "gpt2-ml-30g": 8021}.items():
        config = json.loads(CATALOGUE[name].parts[-1].text)
        known = json.loads((CHECKPOINTS / "gpt2_ml" / "config.json").read_text())
        assert set(config) == set(known)
        found = read_config(gpt2_ml.RELEASE, config)
        assert (found.vocab_size, found.num_hidden_layers, found.intermediate_size) == (size, 48, 6144)


# ---- the command


def test_the_command_prints_the_path(site, folder, capsys):
    url = publish_bert(site, folder)
    assert cli.main(["download", url, "-o", "there"]) == 0
    assert capsys.readouterr().out == "there\n"
    assert cli.main(["download", url, "-o", "there", "--json", "--offline"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": "there"}


def test_the_command_hands_everything_on(monkeypatch, capsys):
    Path("token").write_text("abc\n")
    given = {}
    monkeypatch.setattr(downloads, "download", lambda *arguments, **options: given.update(options, a=arguments) or "x")
    options = ["--sha256", "0" * 64, "--mirror", "https://m", "--token-file", "token", "--allow-pickle"]
    assert cli.main(["download", "hf:a/b", *options]) == 0
    assert given == {
        "a": ("hf:a/b", None), "sha256": "0" * 64, "mirror": "https://m", "token": "abc", "offline": None,
        "allow_pickle": True,
    }  # fmt: skip


def test_a_token_may_come_from_a_pipe_in_the_place_of_a_file(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(downloads, "download", lambda *_, **options: given.append(options["token"]) or "x")
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\n" + " " * 10_000))
    assert cli.main(["download", "hf:a/b", "--token-file", "-"]) == 0 and given == ["abc"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["download", "hf:a/b", "--token-file", "-"]) == 2
    os.mkfifo("pipe")  # which nobody writes: it is not waited for
    assert cli.main(["download", "hf:a/b", "--token-file", "pipe"]) == 2
    assert "... | tfloader download --token-file -" in capsys.readouterr().err


def test_the_command_without_source_lists_the_releases(capsys):
    assert cli.main(["download"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)


def test_an_error_of_the_command_is_one_line(site, capsys):
    assert cli.main(["download", f"{site.address}/a.zip"]) == 1
    error = capsys.readouterr().err
    assert error == f"tfloader: error: {site.address}/a.zip: the server has no such file or repository. " \
        "Check the name and its spelling (HTTP 404).\n"  # fmt: skip


def test_no_progress_bar_where_there_is_no_terminal(site, folder, capsys):
    tfloader.download(publish_bert(site, folder))
    assert capsys.readouterr() == ("", "")
