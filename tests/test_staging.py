"""Files appear all at once or not at all: whatever fails, kills, stands in the way, or writes at the same time."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tfloader import staging
from tfloader.errors import CheckpointError
from tfloader.filesystem import locked
from tfloader.staging import COMMIT, JOURNAL, finish, names_in, only_new, staged

ROOT = Path(__file__).parents[1]
OLD = {"config": "old", "weights": "old", "shard-2": "old", "mine": "kept"}
NEW = {"config": "new", "weights": "new", "tokens": "new", "mine": "kept"}


def stale(names):
    return [name for name in names if name.startswith("shard")]


def write(folder, content, replaces=stale):
    with staged(folder, CheckpointError, 10, replaces) as stage:
        for name, text in content.items():
            Path(stage, name).write_text(text)


def write_new(folder):
    write(folder, {name: text for name, text in NEW.items() if text == "new"})


def content(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(folder).iterdir() if path.is_file()}


def refuse_exchange(*_, **options):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.fixture
def folder(tmp_path):
    """A folder with an older save, alone in its parent."""
    (tmp_path / "parent" / "model").mkdir(parents=True)
    write(tmp_path / "parent" / "model", OLD)
    return tmp_path / "parent" / "model"


@pytest.fixture(params=["exchanged", "journaled"])
def way(request, monkeypatch):
    if request.param == "journaled":
        monkeypatch.setattr(staging, "exchange", refuse_exchange)
    return request.param


def alone(folder):
    """Whether nothing of a save is left, in the folder or beside it."""
    return os.listdir(folder.parent) == [folder.name] and names_in(folder) == sorted(os.listdir(folder))


# ---- what comes of it


def test_an_older_save_is_replaced_and_other_files_stay(folder, way):
    inode = (folder / "mine").stat().st_ino
    write_new(folder)
    assert content(folder) == NEW and alone(folder)
    assert (folder / "mine").stat().st_ino == inode


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is a call of Linux")
def test_this_system_exchanges_folders_in_one_step(folder, monkeypatch):
    """Else the tests of that way would pass by the other one."""
    monkeypatch.setattr(staging._Stage, "_write_journal", refuse_exchange)
    write_new(folder)
    assert content(folder) == NEW


def test_a_new_folder_appears_with_its_parents(tmp_path):
    write_new(tmp_path / "a" / "b")
    assert set(content(tmp_path / "a" / "b")) == {"config", "weights", "tokens"} and alone(tmp_path / "a" / "b")


def test_a_single_file_takes_its_place_by_one_rename(folder, monkeypatch):
    """Also in a folder with much in it, which nothing is linked or listed for."""
    monkeypatch.setattr(os, "link", refuse_exchange)
    monkeypatch.setattr(os, "rename", refuse_exchange)
    inode = folder.stat().st_ino
    write(folder, {"config": "new"}, staging.nothing)
    assert content(folder) == OLD | {"config": "new"} and folder.stat().st_ino == inode


def test_within_a_stage_another_one_is_the_same(folder):
    with staged(folder, CheckpointError) as stage:
        write(stage, {"config": "new"}, only_new)
        write(os.path.join(stage, "deep"), {"more": "new"})
        assert content(stage) == {"config": "new"} and content(folder) == OLD
    assert content(folder) == OLD | {"config": "new"} and content(folder / "deep") == {"more": "new"}


@pytest.mark.parametrize("kind", ["subfolders", "the current folder", "another owner", "no hard links"])
def test_a_folder_whose_users_would_notice_stays_the_same_folder(folder, kind, monkeypatch):
    if kind == "subfolders":
        (folder / "logs").mkdir()
        (folder / "logs" / "events").write_text("kept")
    elif kind == "the current folder":
        monkeypatch.chdir(folder)
    elif kind == "no hard links":
        monkeypatch.setattr(os, "link", refuse_exchange)
    elif os.geteuid() == 0:
        os.chown(folder, 65534, -1)
    else:
        pytest.skip("only root can give a folder to somebody else")
    inode = folder.stat().st_ino
    write_new(folder)
    assert content(folder) == NEW and alone(folder) and folder.stat().st_ino == inode
    assert kind != "subfolders" or content(folder / "logs") == {"events": "kept"}


def test_permissions_are_the_usual_ones(folder, way, tmp_path):
    old = os.umask(0o027)
    try:
        os.chmod(folder, 0o2770)
        write_new(folder)
        write_new(tmp_path / "new")
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2770
    assert stat.S_IMODE((folder / "config").stat().st_mode) == stat.S_IMODE((tmp_path / "new/config").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "new/config").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o750


def test_a_link_to_a_folder_is_followed_and_a_link_in_a_files_place_replaced(folder, way, tmp_path):
    os.symlink(folder, tmp_path / "link")
    (tmp_path / "secret").write_text("secret")
    (folder / "config").unlink()
    os.symlink(tmp_path / "secret", folder / "config")
    os.symlink("mine", folder / "alias")
    write_new(tmp_path / "link")
    assert os.path.islink(tmp_path / "link") and os.readlink(folder / "alias") == "mine"
    assert content(folder) == NEW | {"alias": "kept"} and not os.path.islink(folder / "config")
    assert (tmp_path / "secret").read_text() == "secret"


# ---- when something fails


FUNCTIONS = ("rename", "replace", "link", "fsync", "mkdir", "open", "remove", "listdir", "scandir", "lstat")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_whichever_call_fails_the_old_or_the_new_is_whole(function, folder, way, monkeypatch, tmp_path):
    original = getattr(os, function)
    for failing in itertools.count():
        calls = itertools.count()

        def full(*arguments, calls=calls, failing=failing, **options):
            if next(calls) == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **options)

        place = tmp_path / str(failing) / "model"
        shutil.copytree(folder, place)
        with monkeypatch.context() as patched:
            patched.setattr(os, function, full)
            try:
                write_new(place)
                expected = NEW
            except CheckpointError as error:
                assert "No space left on device" in str(error)
                expected = OLD if "Nothing there has changed" in str(error) else NEW
        finish(place, CheckpointError)
        assert content(place) == expected, failing
        write_new(place)
        assert content(place) == NEW and alone(place), failing
        if next(calls) <= failing:
            break
    assert failing or (way == "exchanged" and function in ("replace", "remove"))  # which it does without


def test_a_write_that_fails_leaves_the_old_one(folder, way):
    words = r"model: writing failed: No space left.*free space\. Nothing there"
    with pytest.raises(CheckpointError, match=words), staged(folder, CheckpointError) as stage:
        Path(stage, "config").write_text("new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(KeyboardInterrupt), staged(folder, CheckpointError):
        raise KeyboardInterrupt
    assert content(folder) == OLD and alone(folder)


def test_too_little_room_is_found_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 1, 9))
    with pytest.raises(CheckpointError, match="10 bytes are to be written, but only 9 are free"):
        write_new(folder)
    assert content(folder) == OLD and alone(folder)


def test_what_may_not_be_replaced_is_refused_before_anything_is_written(folder):
    (folder / "config").unlink()
    (folder / "config").mkdir()
    with pytest.raises(CheckpointError, match="config is a folder"):
        write_new(folder)
    with pytest.raises(CheckpointError, match="Directory not empty"), staged(folder, CheckpointError, 0, only_new):
        raise AssertionError
    with pytest.raises(CheckpointError, match="it is a file, not a folder"):
        write_new(folder / "mine")
    with pytest.raises(CheckpointError, match="File exists"):
        write_new(folder / "mine" / "deeper")
    assert content(folder) == {name: text for name, text in OLD.items() if name != "config"} and alone(folder)


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(CheckpointError, match="not the path of a folder"), staged(path, CheckpointError):
        raise AssertionError


def test_a_folder_that_may_not_be_written_stays_as_it_is(tmp_path):
    """As somebody who is not root, in a process of its own."""
    code = (
        "import os, sys; from pathlib import Path; from tests.test_staging import *\n"
        "os.setuid(65534) if os.geteuid() == 0 else None\n"
        "for place in (sys.argv[1], sys.argv[1] + '/new'):\n"
        "    try: write_new(place)\n"
        "    except CheckpointError as error: print(error)\n"
    )
    place = tmp_path / "shared" / "model"
    write(place, OLD)
    for path in (place, place.parent):
        os.chmod(path, 0o555)
    for path in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(path, stat.S_IMODE(path.stat().st_mode) | 0o011)
    done = subprocess.run([sys.executable, "-c", code, str(place)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("writing failed: Permission denied. Check permissions") == 2, done.stderr
    assert content(place) == OLD and alone(place)


# ---- kills


KILLED_AT_EVERY_STEP = """
import itertools, os, shutil, signal, sys
from tests.test_staging import *

way, place = sys.argv[1], Path(sys.argv[2])
if way == "journaled":
    staging.exchange = refuse_exchange

def dies(steps):
    def step():
        if next(steps) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def stepping(function):
        return lambda *arguments, **options: (step(), function(*arguments, **options), step())[1]
    for name in ("rename", "replace", "link", "fsync", "mkdir", "remove", "rmdir", "unlink", "chmod"):
        setattr(os, name, stepping(getattr(os, name)))
    if way == "exchanged":
        staging.exchange = stepping(staging.exchange)

for at in itertools.count():
    shutil.rmtree(place.parent, ignore_errors=True)
    write(place, OLD)
    child = os.fork()
    if child == 0:
        dies(itertools.count(-at))
        write_new(place)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    while_reading = content(place)
    finish(place, CheckpointError)
    found = "old" if content(place) == OLD else "new" if content(place) == NEW else f"MIXTURE {content(place)}"
    if way == "exchanged" and while_reading not in (OLD, NEW):
        found = f"SEEN {while_reading}"
    write_new(place)
    print(at, found if content(place) == NEW and alone(place) else f"LEFT {os.listdir(place.parent)}")
"""


@pytest.mark.parametrize("way", ["exchanged", "journaled"])
def test_killed_at_any_step_the_old_or_the_new_is_there(tmp_path, way):
    """The next save leaves nothing of the killed one; and by exchange not even other programs see a mixture."""
    pytest.importorskip("fcntl", reason="Windows neither kills nor locks like this")
    place = tmp_path / "parent" / "model"
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, way, str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert len(found) > 30 and set(found) == {"old", "new"}
    assert found == sorted(found, reverse=True)  # once it is the new one, it stays that


def test_a_reader_may_be_the_one_who_finishes(folder):
    (folder / COMMIT).mkdir()
    (folder / COMMIT / JOURNAL).write_text(json.dumps({"put": ["config", "gone"], "remove": ["shard-2", "absent"]}))
    (folder / COMMIT / "config").write_text("new")
    finish(folder, CheckpointError)
    assert content(folder) == {"config": "new", "weights": "old", "mine": "kept"} and alone(folder)


@pytest.mark.parametrize(
    "journal",
    [
        {"put": [], "remove": ["../outside"]},
        {"put": ["/etc/passwd"], "remove": []},
        {"put": [".."], "remove": []},
        {"put": [1], "remove": []},
        {"put": []},
        [],
        "{",
        None,
    ],
    ids=repr,
)
def test_a_strangers_journal_reaches_nothing_outside_of_its_folder(folder, journal):
    (folder.parent / "outside").write_text("precious")
    (folder / COMMIT).mkdir()
    if journal is not None:
        (folder / COMMIT / JOURNAL).write_text(journal if isinstance(journal, str) else json.dumps(journal))
    for use in (finish, lambda place, _: write_new(place)):
        with pytest.raises(CheckpointError, match=r"\.tfloader\.json is damaged; get the folder again"):
            use(folder, CheckpointError)
    assert content(folder) == OLD and (folder.parent / "outside").read_text() == "precious"


def test_a_link_in_a_locks_place_is_not_followed(tmp_path):
    os.symlink(tmp_path / "elsewhere", tmp_path / "x.lock")
    with pytest.raises(OSError), locked(str(tmp_path / "x.lock"), create=True):
        pass
    assert os.listdir(tmp_path) == ["x.lock"]


def test_a_new_disk_counts_as_an_empty_folder(tmp_path):
    (tmp_path / "lost+found").mkdir()
    with staged(tmp_path, CheckpointError, replaces=only_new) as stage:
        for name in "ab":
            Path(stage, name).write_text(name)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "lost+found"]


def test_a_link_in_the_journals_place_is_not_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config").write_text("precious")
    (tmp_path / "elsewhere" / JOURNAL).write_text(json.dumps({"put": ["config"], "remove": []}))
    os.symlink(tmp_path / "elsewhere", folder / COMMIT)
    finish(folder, CheckpointError)
    assert content(folder) == OLD and (tmp_path / "elsewhere" / "config").read_text() == "precious"


# ---- several at once


TWO_AT_ONCE = """
import os, sys
from tests.test_staging import *

place, who = Path(sys.argv[1]), sys.argv[2]
if who == "b" and sys.argv[3] == "journaled":
    staging.exchange = refuse_exchange
for turn in range(40):
    write(place, {"config": f"{who}{turn}", "weights": f"{who}{turn}", f"shard-{who}{turn}": f"{who}{turn}"})
"""


@pytest.mark.parametrize("way", ["exchanged", "journaled"])
def test_two_processes_that_save_to_one_folder_do_not_mix(folder, way):
    commands = [[sys.executable, "-c", TWO_AT_ONCE, str(folder), who, way] for who in "ab"]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert errors == ["", ""]
    found = content(folder)
    last = found["config"]
    assert found == {"config": last, "weights": last, f"shard-{last}": last, "mine": "kept"} and alone(folder)


def test_the_living_keep_their_stages_and_the_dead_do_not(folder):
    dead = folder / ".tfloader.1234.part", folder.parent / ".model.1234.part"
    for path in dead:
        path.mkdir()
        (path / "weights").write_text("half")
    with staged(folder, CheckpointError) as stage:
        Path(stage, "config").write_text("later")
        write_new(folder)
        assert os.path.isdir(stage) and content(folder) == NEW
        assert not any(path.exists() for path in dead)
    assert content(folder) == NEW | {"config": "later"} and alone(folder)


def test_a_file_that_comes_while_the_folders_change_places_is_brought_along(folder, monkeypatch):
    exchange = staging.exchange

    def slow(*paths):
        (folder / "late").write_text("late")
        (folder / "fresh").write_text("fresh")
        os.replace(folder / "fresh", folder / "mine")
        exchange(*paths)

    monkeypatch.setattr(staging, "exchange", slow)
    write_new(folder)
    assert content(folder) == NEW | {"late": "late", "mine": "fresh"} and alone(folder)
