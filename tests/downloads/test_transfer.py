"""One file arrives as it was published, or not at all, whatever the server and the network do."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tempfile
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.downloads.conftest import Site, answer, file, redirect
from tfloader.downloads import transfer, web
from tfloader.downloads.transfer import RemoteFile, digest, fetch
from tfloader.downloads.web import ATTEMPTS, Web
from tfloader.errors import DownloadError

DATA = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture(autouse=True, scope="module")
def small_pieces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "PIECE", 1000)
        yield


@pytest.fixture
def get(site, tmp_path, pauses):
    """Fetches /file into the folder with what is known of it, and gives its content."""

    def get(**known):
        target = fetch(RemoteFile(f"{site.address}/file", "file", **known), str(tmp_path), Web(sleep=pauses.append))
        with open(target, "rb") as found:
            return found.read()

    return get


def left(folder) -> set[str]:
    return set(os.listdir(folder))


def refused(get, *words: str, **known) -> str:
    with pytest.raises(DownloadError) as caught:
        get(**known)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value
    return str(caught.value)


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"size": len(DATA)},
        {"checksum": SHA256},
        {"checksum": f"md5:{hashlib.md5(DATA).hexdigest()}"},
        {"checksum": f"git:{hashlib.sha1(b'blob %d' % len(DATA) + bytes(1) + DATA).hexdigest()}"},
    ],
)
def test_a_good_file_arrives_and_nothing_else_is_left(known, site, get, tmp_path, pauses):
    site.pages["/file"] = file(DATA)
    assert get(**known) == DATA
    assert left(tmp_path) == {"file"}
    assert pauses == []
    assert get(**known) == DATA
    assert len(site.requests) == 1, "what is there is not fetched again"


def test_the_checksum_that_git_gives_a_file_is_gits(tmp_path):
    (tmp_path / "hello").write_bytes(b"hello world\n")
    assert digest(str(tmp_path / "hello"), "git") == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"  # git hash-object


# ---- interrupted


@pytest.mark.parametrize("cut", [1000, 100_000, 299_000])
def test_a_connection_that_breaks_is_taken_up_where_it_broke(cut, site, get, pauses):
    site.pages["/file"] = [file(DATA, cut=cut), file(DATA)]
    assert get() == DATA
    assert site.asked("Range") == [None, f"bytes={cut}-"]
    assert site.asked("If-Range") == [None, '"one"']
    assert len(pauses) == 1


def test_many_breaks_end_well_if_each_brings_something(site, get, monkeypatch, pauses):
    monkeypatch.setattr(web, "PROGRESS", 10_000)
    site.pages["/file"] = file(DATA, cut=20_000)
    assert get() == DATA
    assert len(site.requests) == 15
    assert len(pauses) == 14 and max(pauses) <= 1


def test_a_later_run_goes_on_where_an_earlier_one_stopped(site, get, tmp_path):
    site.pages["/file"] = [*[file(DATA, cut=5_000)] * ATTEMPTS, file(DATA)]
    refused(get, f"given up after {ATTEMPTS} attempts", "Try again later", "is kept")
    assert left(tmp_path) == {"file.partial", "file.partial.json"}
    site.requests.clear()
    assert get() == DATA
    assert site.asked("Range") == [f"bytes={5_000 * ATTEMPTS}-"]


def test_a_run_that_was_killed_between_the_last_byte_and_the_name_needs_no_request(site, get, tmp_path):
    site.pages["/file"] = file(DATA)
    (tmp_path / "file.partial").write_bytes(DATA)
    note = {"identity": RemoteFile(f"{site.address}/file", "file").identity, "etag": '"one"', "size": len(DATA)}
    (tmp_path / "file.partial.json").write_text(json.dumps(note))
    assert get() == DATA
    assert site.requests == []


def partial(tmp_path, url: str, data: bytes, etag: str = '"one"', **known) -> None:
    """What an interrupted run leaves."""
    note = {"identity": RemoteFile(url, "file", **known).identity, "etag": etag, "size": len(DATA)}
    (tmp_path / "file.partial").write_bytes(data)
    (tmp_path / "file.partial.json").write_text(json.dumps(note))


def test_a_file_that_changed_meanwhile_is_not_spliced(site, get, tmp_path):
    partial(tmp_path, f"{site.address}/file", DATA[:1000])
    site.pages["/file"] = file(OTHER, etag='"two"')
    assert get() == OTHER
    assert site.asked("If-Range") == ['"one"']


def test_a_file_that_changed_is_not_spliced_although_the_server_ignores_if_range(site, get, tmp_path):
    partial(tmp_path, f"{site.address}/file", DATA[:1000])
    part = answer(206, OTHER[1000:], ETag='"two"', Content_Range=f"bytes 1000-{len(OTHER) - 1}/{len(OTHER)}")
    site.pages["/file"] = [part, file(OTHER, etag='"two"')]
    assert get() == OTHER
    assert site.asked("Range") == ["bytes=1000-", None]


def test_a_spliced_file_is_found_by_its_checksum_and_fetched_anew(site, get, tmp_path):
    partial(tmp_path, f"{site.address}/file", OTHER[:1000], etag="", checksum=SHA256)
    site.pages["/file"] = file(DATA, etag="")
    assert get(checksum=SHA256) == DATA
    assert site.asked("Range") == ["bytes=1000-", None]
    assert site.asked("If-Range") == [None, None]


@pytest.mark.parametrize("etag", ["", 'W/"one"', '"one', "one", '"a"b"'])
def test_without_strong_etag_and_checksum_nothing_is_built_on(etag, site, get, tmp_path):
    partial(tmp_path, f"{site.address}/file", DATA[:1000], etag=etag)
    site.pages["/file"] = file(DATA, etag=etag)
    assert get() == DATA
    assert site.asked("Range") == [None]


@pytest.mark.parametrize("note", ["", "[]", "{", '{"etag": 5}', '{"identity": "of another file", "etag": "\\"one\\""}'])
def test_a_partial_file_of_unknown_origin_is_not_built_on(note, site, get, tmp_path):
    (tmp_path / "file.partial").write_bytes(OTHER[:1000])
    (tmp_path / "file.partial.json").write_text(note)
    site.pages["/file"] = file(DATA)
    assert get() == DATA
    assert site.asked("Range") == [None]


def test_a_server_that_ignores_ranges_sends_the_file_anew(site, get):
    site.pages["/file"] = [file(DATA, cut=1000), file(DATA, ranges=False)]
    assert get() == DATA
    assert site.asked("Range") == [None, "bytes=1000-"]


@pytest.mark.parametrize(
    "said", ["bytes 0-{end}/{total}", "bytes 999-{end}/{total}", "bytes {start}-{end}/5", "nonsense", ""]
)
def test_another_range_than_asked_for_is_not_used(said, site, get, pauses):
    site.pages["/file"] = [file(DATA, cut=1000), file(DATA, content_range=said), file(DATA)]
    assert get() == DATA
    assert site.asked("Range") == [None, "bytes=1000-", None]


def test_a_partial_file_longer_than_the_whole_is_dropped(site, get, tmp_path):
    partial(tmp_path, f"{site.address}/file", DATA + b"more")
    site.pages["/file"] = file(DATA)
    assert get() == DATA


def test_a_range_beyond_the_end_starts_anew(site, get, tmp_path):
    partial(tmp_path, f"{site.address}/file", OTHER[:250_000])
    site.pages["/file"] = file(DATA[:200_000])
    assert get() == DATA[:200_000]


SMALL = tuple(random.Random(seed).randbytes(5_000) for seed in (2, 3))
answers = st.builds(
    lambda version, etag, **page: file(SMALL[version], etag=etag.format(version), **page),
    version=st.sampled_from((0, 1)),
    etag=st.sampled_from(('"{}"', 'W/"{}"', "")),
    ranges=st.booleans(),
    cut=st.sampled_from((None, 0, 1_000, 2_000, 4_000)),
    content_range=st.sampled_from(("bytes {start}-{end}/{total}", "bytes 1000-{end}/{total}", "")),
)


@given(st.lists(answers, max_size=8), st.sampled_from((None, 0, 1)))
def test_whatever_comes_in_whatever_pieces_the_file_is_one_version_as_a_whole(pages, published):
    """The server changes its mind between two files of one size, breaks off, and repeats what it was not asked for."""
    server, pauses = Site(), []
    known = {} if published is None else {"checksum": f"sha256:{hashlib.sha256(SMALL[published]).hexdigest()}"}
    wanted = RemoteFile(f"{server.address}/file", "file", **known)
    server.pages["/file"] = [*pages, file(SMALL[published or 0])]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(len(pages) + 2):
            try:
                fetch(wanted, folder, Web(sleep=pauses.append))
                break
            except DownloadError:
                assert not os.path.exists(os.path.join(folder, "file"))
        with open(os.path.join(folder, "file"), "rb") as found:
            assert found.read() in (SMALL if published is None else (SMALL[published],))
        assert os.listdir(folder) == ["file"]
    server.close()


# ---- wrong


@pytest.mark.parametrize("page", [file(OTHER), file(DATA[:-1]), file(DATA + b"\0"), file(bytes(len(DATA)))])
def test_what_is_not_as_published_is_refused_and_not_kept(page, site, get, tmp_path):
    site.pages["/file"] = page
    refused(get, "not what was published", SHA256[7:], checksum=SHA256)
    assert left(tmp_path) == set()


def test_a_server_that_announces_another_size_than_published_is_refused(site, get, tmp_path):
    site.pages["/file"] = file(DATA)
    refused(get, "announces 300000 bytes, but 300001 were published", size=300_001)
    assert left(tmp_path) == set()


def test_a_length_that_is_too_long_is_not_believed(site, get, tmp_path):
    site.pages["/file"] = file(DATA, announced=len(DATA) + 1, etag="")
    assert "is kept" not in refused(get, "the connection broke")
    assert not (tmp_path / "file").exists()


def test_a_length_that_is_too_short_is_found_where_the_checksum_or_size_is_known(site, get, tmp_path):
    site.pages["/file"] = file(DATA, announced=1000)
    refused(get, "not what was published", checksum=SHA256)
    refused(get, "announces 1000 bytes", size=len(DATA))
    assert left(tmp_path) == set()


def stream(request, chunked: bool, whole: bool = True) -> None:
    """A file without Content-Length: in chunks, which end visibly, or until the connection is closed."""
    request.send_response(200)
    request.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
    request.end_headers()
    request.wfile.write(b"%x\r\n%b\r\n" % (len(DATA), DATA) if chunked else DATA)
    if chunked and whole:
        request.wfile.write(b"0\r\n\r\n")
    request.close_connection = True


def test_chunks_tell_their_end(site, get, pauses):
    site.pages["/file"] = [lambda r: stream(r, True, whole=False), lambda r: stream(r, True)]
    assert get() == DATA
    assert len(pauses) == 1


def test_a_file_without_a_visible_end_needs_a_checksum(site, get, tmp_path):
    site.pages["/file"] = lambda request: stream(request, False)
    refused(get, "does not say how long", "checksum")
    assert get(checksum=SHA256) == DATA


@pytest.mark.parametrize(
    ("page", "name", "words"),
    [
        (answer(200, b"<html>Log in</html>", Content_Type="text/html; charset=utf-8"), "a.h5", ["web page", "browser"]),
        (answer(200, b"\n <!DOCTYPE html><p>", Content_Type="application/octet-stream"), "a.h5", ["web page"]),
        (answer(200, b'{"error": "quota"}', Content_Type="application/json"), "a.safetensors", ["JSON", "error"]),
        (answer(200, b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n"), "a.bin", ["Git LFS"]),
        (answer(200, b""), "vocab.txt", ["empty"]),
    ],
)
def test_an_impostor_is_refused(page, name, words, site, tmp_path, pauses):
    site.pages["/x"] = page
    with pytest.raises(DownloadError) as caught:
        fetch(RemoteFile(f"{site.address}/x", name), str(tmp_path), Web(sleep=pauses.append))
    assert [word for word in words if word not in str(caught.value)] == []
    assert left(tmp_path) == set()
    assert pauses == [], "it would not be better next time"


def test_a_page_and_json_are_fine_where_they_are_wanted(site, tmp_path):
    site.pages["/x"] = answer(200, b'{"a": 1}', Content_Type="application/json")
    assert os.path.getsize(fetch(RemoteFile(f"{site.address}/x", "config.json"), str(tmp_path), Web())) == 8
    site.pages["/x"] = answer(200, b"<html>", Content_Type="text/html")
    assert os.path.getsize(fetch(RemoteFile(f"{site.address}/x", "page.html"), str(tmp_path), Web())) == 6


def test_an_answer_that_is_compressed_against_the_request_is_refused(site, get):
    site.pages["/file"] = answer(200, DATA, Content_Encoding="gzip")
    refused(get, "compresses")
    assert site.asked("Accept-Encoding") == ["identity"]


def test_a_wrong_file_in_the_way_is_not_overwritten(site, get, tmp_path):
    (tmp_path / "file").write_bytes(OTHER)
    refused(get, "sha256", "Remove it", checksum=SHA256)
    refused(get, "300000 bytes, but 5 were published", size=5)
    assert (tmp_path / "file").read_bytes() == OTHER
    assert site.requests == []


def test_a_file_to_be_had_by_hand_only_says_from_where_and_where_to(tmp_path):
    by_hand = RemoteFile(None, "weights.zip", None, SHA256, "https://pan.example/s/1")
    with pytest.raises(DownloadError) as caught:
        fetch(by_hand, str(tmp_path), Web())
    assert "https://pan.example/s/1" in str(caught.value)
    assert str(tmp_path / "weights.zip") in str(caught.value)
    (tmp_path / "weights.zip").write_bytes(OTHER)
    with pytest.raises(DownloadError, match="was published"):
        fetch(by_hand, str(tmp_path), Web())
    (tmp_path / "weights.zip").write_bytes(DATA)
    assert fetch(by_hand, str(tmp_path), Web()) == str(tmp_path / "weights.zip")


# ---- the disk


def test_a_file_for_which_there_is_no_room_is_not_begun(site, get, tmp_path, monkeypatch):
    site.pages["/file"] = file(DATA)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=299_999))
    refused(get, "300000 more bytes are needed, but only 299999 are free")
    assert left(tmp_path) == set()


def test_a_disk_that_fills_up_keeps_what_has_come(site, get, tmp_path, monkeypatch):
    site.pages["/file"] = file(DATA)

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() >= 200_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    def opened(path, mode="r", **options):
        return Full(path, mode) if mode in ("wb", "ab") else open(path, mode, **options)

    monkeypatch.setattr(transfer, "open", opened, raising=False)
    refused(get, "No space left on device", "is kept")
    monkeypatch.undo()
    assert get() == DATA
    assert site.asked("Range") == [None, "bytes=200000-"]


def test_a_redirected_file_is_resumed_through_the_redirect(site, other_site, get):
    site.pages["/file"] = redirect(f"{other_site.address}/cdn")
    other_site.pages["/cdn"] = [file(DATA, cut=70_000), file(DATA)]
    assert get() == DATA
    assert other_site.asked("Range") == [None, "bytes=70000-"]
