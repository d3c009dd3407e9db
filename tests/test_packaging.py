"""What is installed and uploaded is what it must be, and its version ranges are those that are tested."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from tests.test_documentation import rows

ROOT = Path(__file__).parents[1]
CONTENT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, TOOLS = CONTENT["project"], CONTENT["tool"]
OLDEST = dict(re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / ".ci/oldest.txt").read_text("utf-8"), re.MULTILINE))


def lower_ends(requirements: list[str]) -> dict[str, str]:
    return {name: bound for text in requirements for name, bound in re.findall(r"^([\w-]+)>=([\d.]+)", text)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A copy of the sources in which setuptools built the package and the archive of its sources."""
    pytest.importorskip("setuptools", reason="it builds the package")
    copy = tmp_path_factory.mktemp("built") / "tfloader"
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "scratch")
    shutil.copytree(ROOT, copy, ignore=hidden, symlinks=True)
    build = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build", "sdist"]
    subprocess.run(build, cwd=copy, check=True, capture_output=True, text=True)
    return copy


def files(folder: Path) -> set[str]:
    """What stands in a folder, but for what Python compiled there."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def test_every_file_of_the_package_is_installed_and_nothing_else(built):
    installed = files(built / "build/lib")
    assert installed == {f"tfloader/{name}" for name in files(ROOT / "tfloader")}
    assert {"tfloader/py.typed", "tfloader/__init__.pyi"} <= installed
    models = {name.removeprefix("tfloader/assets/") for name in installed if name.startswith("tfloader/assets/")}
    names = ("config.json", "generation_config.json", "model.safetensors", "vocab.txt", "README.md")
    assert {f"classical_poems/{name}" for name in (*names, "tokenizer.json", "tokenizer_config.json")} <= models


def test_the_archive_of_sources_has_the_package_its_licence_and_pages_but_no_fixtures(built):
    (archive,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {f"tfloader/{name}" for name in files(ROOT / "tfloader")} <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "pyproject.toml"} <= names
    assert not [name for name in names if re.match("(tests|benchmarks|examples|convert|docs)/", name)]


def test_the_oldest_set_has_the_lower_end_of_every_range():
    needed = lower_ends([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]])
    assert "tensorflow" in needed
    for package in set(needed) - {"ruff", "setuptools"}:  # tools, which are not compared with anything
        assert f"{OLDEST[package]}.".startswith(f"{needed[package]}."), package


def test_the_python_that_is_promised_is_the_same_everywhere():
    promised = PROJECT["requires-python"].removeprefix(">=")
    assert TOOLS["pyright"]["pythonVersion"] == promised
    assert TOOLS["ruff"]["target-version"] == f"py{promised.replace('.', '')}"
    for page in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        named = set(re.findall(r"Python (3\.\d+) (?:or later|以上)", (ROOT / page).read_text("utf-8")))
        assert named == {promised}, page


def test_the_table_of_versions_names_the_oldest_set():
    table = {row[0].lower(): row[1] for row in rows((ROOT / "docs/development.md").read_text("utf-8"))}
    tools = {"pytest", "pytest-xdist", "hypothesis"}
    assert {package: table[package] for package in set(OLDEST) - tools} == {
        package: version for package, version in OLDEST.items() if package not in tools
    }
    assert table["tf2onnx"].startswith(lower_ends(PROJECT["optional-dependencies"]["onnx"])["tf2onnx"])
