"""Archives of strangers: good ones come out as they are, bad ones leave nothing behind and nothing elsewhere."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfloader.downloads import archives
from tfloader.downloads.archives import is_archive, name_problem, stem, unpack
from tfloader.errors import DownloadError

GOOD = {"model/bert_config.json": b'{"a": 1}', "model/vocab.txt": b"[PAD]\n", "model/bert_model.ckpt.index": bytes(500)}


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **fields) -> tuple:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(path: Path, members, compressed: bool = True) -> Path:
    with tarfile.open(path, "w:gz" if compressed else "w", format=tarfile.PAX_FORMAT) as file:
        for info, data in members:
            file.addfile(info, io.BytesIO(data))
    return path


def entry(name: str, kind: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = kind << 16
    return info


def zipped(path: Path, entries) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for info, data in entries:
            file.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


MAKERS = {
    "a.zip": lambda path, content: zipped(path, [(entry(name), data) for name, data in content.items()]),
    "a.tar": lambda path, content: tar(path, [member(name, data) for name, data in content.items()], False),
    "a.tar.gz": lambda path, content: tar(path, [member(name, data) for name, data in content.items()]),
}
each_format = pytest.mark.parametrize("name", MAKERS)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, *words: str, **options) -> str:
    """It is refused in these words, and nothing is left of it, here or above."""
    before = files_in(archive.parent.parent)
    with pytest.raises(DownloadError) as caught:
        unpack(str(archive), str(archive.parent / "out"), **options)
    assert files_in(archive.parent.parent) == before
    assert sorted(os.listdir(archive.parent)) == [archive.name]
    assert [word for word in words if word not in str(caught.value)] == [], caught.value
    assert len(str(caught.value)) < 5000
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


# ---- good


@each_format
def test_a_good_archive_comes_out_without_its_outer_folder(name, folder):
    archive = MAKERS[name](folder / name, GOOD)
    assert unpack(str(archive), str(folder / "out")) == str(folder / "out")
    assert files_in(folder / "out") == {path.removeprefix("model/"): data for path, data in GOOD.items()}
    assert sorted(os.listdir(folder)) == sorted([name, "out"])
    assert stat.S_IMODE(os.stat(folder / "out").st_mode) == stat.S_IMODE(os.stat(folder).st_mode)


@each_format
def test_without_an_outer_folder_everything_comes_out_as_it_lies(name, folder):
    content = {"vocab.txt": b"a", "deep/er/config.json": b"{}"}
    unpack(str(MAKERS[name](folder / name, content)), str(folder / "out"))
    assert files_in(folder / "out") == content


def test_folders_and_what_macos_adds_do_no_harm(folder):
    entries = [
        (entry("model/", stat.S_IFDIR | 0o755), b""), (entry("model/vocab.txt"), b"a"),
        (entry("__MACOSX/model/._vocab.txt"), b"b"), (entry("model/.DS_Store"), b"c"),
    ]  # fmt: skip
    unpack(str(zipped(folder / "a.zip", entries)), str(folder / "out"))
    assert files_in(folder / "out") == {"vocab.txt": b"a"}


def test_permissions_of_the_archive_are_not_taken_over(folder):
    entries = [(entry("run", stat.S_IFREG | 0o6777), b"a")]
    unpack(str(zipped(folder / "a.zip", entries)), str(folder / "out"))
    assert not stat.S_IMODE(os.stat(folder / "out" / "run").st_mode) & 0o7111


def test_an_empty_folder_in_the_way_is_filled_and_a_full_one_left_alone(folder):
    archive = MAKERS["a.zip"](folder / "a.zip", GOOD)
    (folder / "out").mkdir()
    unpack(str(archive), str(folder / "out"))
    with pytest.raises(DownloadError, match="out: writing failed: Directory not empty"):
        unpack(str(archive), str(folder / "out"))
    assert len(files_in(folder / "out")) == 3


@pytest.mark.parametrize(
    ("path", "name"),
    {"a/b.zip": "b", "b.TAR.GZ": "b", "b.tgz": "b", "b.tar": "b", "b.c.zip": "b.c", "b.gz": None, "zip": None}.items(),
)
def test_what_an_archive_is_called(path, name):
    assert is_archive(path) == (name is not None)
    assert name is None or stem(path) == name


# ---- names

NAMES = [
    "../evil", "a/../../evil", "/evil", "//evil", "a//b", "./a", "a/./b", "a/..", "..", "C:/evil", "C:evil",
    "a\\..\\evil", "\\\\host\\evil", "a\nb", "a\x1b[2Jb", "evil ", "evil.", "a:stream", "x" * 256, "a\u202eb",
]  # fmt: skip


@each_format
@pytest.mark.parametrize("bad", NAMES)
def test_names_that_could_leave_the_folder_or_deceive_are_refused(bad, name, folder):
    if name == "a.zip" and "\\" in bad and os.sep == "\\":
        pytest.skip("zipfile itself replaces backslashes on Windows")
    refused(MAKERS[name](folder / name, {"good": b"a", bad: b"b"}), "not safe", "name")


@given(st.text(max_size=30))
def test_a_name_without_problem_stays_in_the_folder(name):
    if not name_problem(name):
        path = os.path.normpath(os.path.join("/folder", *name.split("/")))
        assert path.startswith("/folder/")
        assert path == f"/folder/{name}"


@pytest.mark.parametrize("name", ["vocab.txt", "a/b.json", "中文.txt", "model.ckpt-1.data-00000-of-00001", "a b", ".x"])
def test_ordinary_names_have_no_problem(name):
    assert name_problem(name) == ""


@each_format
@pytest.mark.parametrize("second", ["a/x", "A/X"])
def test_two_entries_of_one_name_are_refused(second, name, folder):
    make = {"a.zip": lambda n: (entry(n), b"1")}.get(name, lambda n: member(n, b"1"))
    write = zipped if name == "a.zip" else lambda path, items: tar(path, items, name.endswith("gz"))
    with pytest.warns(UserWarning) if name == "a.zip" and second == "a/x" else open(os.devnull):
        archive = write(folder / name, [make("a/x"), make(second)])
    refused(archive, "comes twice")


def test_a_name_with_nul_is_refused(folder):
    archive = zipped(folder / "a.zip", [(entry("goodXname"), b"a")])
    archive.write_bytes(archive.read_bytes().replace(b"goodXname", b"good\0name"))
    refused(archive, "NUL")


@each_format
def test_a_file_that_another_entry_needs_as_folder_is_refused(name, folder):
    refused(MAKERS[name](folder / name, {"a": b"1", "a/b": b"2"}), "cannot be unpacked")


# ---- kinds


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_damage_that_tarfile_takes_for_the_end_or_does_not_see_is_refused(name, folder):
    """A checksum of each header, and gzip's of everything, are all the checks that these formats have."""
    path = tar(folder / name, [member("first", b"1" * 512), member("second", b"2" * 512)], name.endswith("gz"))
    if name == "a.tar":
        content = bytearray(path.read_bytes())
        damaged = [content[: 2 * 512], content[: 4 * 512]]
        content[2 * 512] ^= 1
        damaged.append(content)
    else:
        content = gzip.decompress(path.read_bytes()).replace(b"2222", b"2223", 1)
        damaged = [gzip.compress(content)[:-8] + path.read_bytes()[-8:]]
    for content in damaged:
        path.write_bytes(content)
        refused(path, "cannot be unpacked")


KINDS = {
    "symbolic link": member("link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "hard link": member("link", kind=tarfile.LNKTYPE, link="../secret"),
    "character device": member("device", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": member("device", kind=tarfile.BLKTYPE),
    "pipe": member("pipe", kind=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_in_tar_are_refused(kind, folder):
    refused(tar(folder / "a.tar.gz", [member("good", b"1"), KINDS[kind]]), "a link or a device")


def test_a_link_and_then_something_through_it_is_refused(folder):
    members = [member("d", kind=tarfile.SYMTYPE, link=".."), member("d/evil", b"1")]
    refused(tar(folder / "a.tar.gz", members), "a link or a device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_zip_are_refused(kind, folder):
    refused(zipped(folder / "a.zip", [(entry("link", kind | 0o777), b"/etc/passwd")]), "a link or a device")


def test_encryption_is_refused(folder):
    archive = zipped(folder / "a.zip", [(entry("a"), b"1")])
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    refused(archive, "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_take_the_memory_they_please_are_refused(method, folder):
    with zipfile.ZipFile(folder / "a.zip", "w", method) as file:
        file.writestr("a", b"1")
    refused(folder / "a.zip", "not used for models")


def test_all_problems_are_named_at_once(folder):
    message = refused(MAKERS["a.zip"](folder / "a.zip", {"../a": b"1", "b:": b"2", "good": b"3"}), "../a", "b:")
    assert "good" not in message


# ---- bombs


@each_format
def test_what_unpacks_to_more_than_it_may_is_refused(name, folder):
    refused(MAKERS[name](folder / name, {"a": bytes(3000)}), "more than 2999 bytes", max_bytes=2999)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_what_unpacks_to_hundreds_of_times_its_size_is_refused(name, folder):
    archive = MAKERS[name](folder / name, {"zeros": bytes(5_000_000)})
    assert archive.stat().st_size < 20_000
    refused(archive, "too much for its size")


@each_format
def test_too_many_entries_are_refused(name, folder, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ENTRIES", 5)
    refused(MAKERS[name](folder / name, {str(i): b"" for i in range(6)}), "more than 5 entries")


@pytest.mark.parametrize(
    ("announced", "words"), [(10, "cannot be unpacked"), (5000, "not as long as the archive says")]
)
def test_an_entry_of_another_length_than_announced_is_refused(announced, words, folder):
    archive = zipped(folder / "a.zip", [(entry("a"), bytes(1000))])
    data = bytearray(archive.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = announced.to_bytes(4, "little")
    archive.write_bytes(data)
    refused(archive, words)


def test_overlapping_entries_count_each(folder):
    """Many entries of the directory that share one compressed stream."""
    archive = zipped(folder / "a.zip", [(entry("aaaa"), bytes(1_000_000))])
    with zipfile.ZipFile(archive, "a") as file:
        for i in range(200):
            copy = entry(f"b{i:03}")
            first = file.getinfo("aaaa")
            for field in ("compress_type", "compress_size", "file_size", "CRC", "header_offset"):
                setattr(copy, field, getattr(first, field))
            file.filelist.append(copy)
        file._didModify = True
    refused(archive, "too much for its size")


def test_a_header_that_is_itself_a_bomb_is_not_read_into_memory(folder):
    """A PAX header that says it has 100 MB, in an archive of 100 kB."""
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, 100_000_000
    with gzip.open(folder / "a.tar.gz", "wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(100):
            file.write(bytes(1_000_000))
    refused(folder / "a.tar.gz", "absurd size")


def test_a_directory_that_is_itself_a_bomb_is_not_read_into_memory(folder, monkeypatch):
    monkeypatch.setattr("tfloader.files.MAX_HEADER_BYTES", 5000)
    refused(zipped(folder / "a.zip", [(entry(f"a{i}"), b"") for i in range(200)]), "absurd size")


def test_decompression_goes_no_further_than_allowed(folder):
    """Zeros without end between two members, which tarfile would skip."""
    info, _ = member("__MACOSX/zeros")
    info.size = 300_000_000
    with gzip.open(folder / "a.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(300):
            file.write(bytes(1_000_000))
    refused(folder / "a.tar.gz", "more than its size allows")


# ---- damage


@each_format
def test_a_truncated_archive_is_refused(name, folder):
    archive = MAKERS[name](folder / name, {"a": os.urandom(50_000), "b": os.urandom(50_000)})
    archive.write_bytes(archive.read_bytes()[:60_000])
    refused(archive, "again")


@each_format
@pytest.mark.parametrize("data", [b"", b"<html>", bytes(2000), b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(100)])
def test_what_is_no_archive_is_refused(data, name, folder):
    (folder / name).write_bytes(data)
    refused(folder / name)


def test_a_flipped_bit_is_found_by_the_checksum_of_the_entry(folder):
    archive = zipped(folder / "a.zip", [(entry("a"), os.urandom(1000))])
    data = bytearray(archive.read_bytes())
    data[500] ^= 1
    archive.write_bytes(data)
    refused(archive)


@each_format
def test_an_archive_without_a_file_is_refused(name, folder):
    archive = MAKERS[name](folder / name, {})
    refused(archive)


def test_an_entry_without_a_name_is_refused(folder):
    """Which zipfile does not write, and stumbles over."""
    archive = zipped(folder / "a.zip", [(entry("x"), b"1"), (entry("m/a.txt"), b"hello")])
    data = bytearray(archive.read_bytes())
    first, end = data.index(b"PK\1\2"), data.rindex(b"PK\5\6")
    directory_size = int.from_bytes(data[end + 12 : end + 16], "little")
    data[end + 12 : end + 16] = (directory_size - 1).to_bytes(4, "little")
    data[first + 28 : first + 30] = bytes(2)
    del data[first + 46]
    archive.write_bytes(data)
    refused(archive)
