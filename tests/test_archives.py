"""What is uploaded to a package index is what git tracks, and says what it is."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import pytest
from archives import check, newest

import ci_live_audit

ROOT = Path(__file__).parent.parent
INFO = "ci_live_audit-1.2.3.dist-info"
WHEEL = {
    "ci_live_audit/__init__.py": "",
    "ci_live_audit/_version.py": '__version__ = "1.2.3"\n',
    "ci_live_audit/py.typed": "",
    "ci_live_audit/cli/__init__.py": "",
    "ci_live_audit/testing/pytest_plugin.py": "",
    f"{INFO}/METADATA": "Metadata-Version: 2.4\nVersion: 1.2.3\n\nText\n",
    f"{INFO}/WHEEL": "",
    f"{INFO}/RECORD": "",
    f"{INFO}/entry_points.txt": "[console_scripts]\nci-live-audit = ci_live_audit.cli:main\n"
    "[pytest11]\nci_live_audit = ci_live_audit.testing.pytest_plugin\n",
    f"{INFO}/licenses/LICENSE": "",
}
TRACKED = {
    **{name: text for name, text in WHEEL.items() if not name.startswith(INFO)},
    "CHANGELOG.md": "# Changes\n\n## 1.2.3 (2026-01-02)\n\n## 1.2.2\n",
    "LICENSE": "",
    "tests/test_one.py": "",
}


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that writes both archives and returns what is wrong with them."""

    def checked(
        *,
        wheel: dict[str, str | None] | None = None,
        source: dict[str, str | None] | None = None,
        links: Iterable[str] = (),
        tags: Iterable[str] = (),
        root: str = "ci_live_audit-1.2.3",
    ) -> list[str]:
        with zipfile.ZipFile(tmp_path / "ci_live_audit-1.2.3-py3-none-any.whl", "w") as zipped:
            for name, text in {**WHEEL, **(wheel or {})}.items():
                if text is not None:
                    zipped.writestr(name, text)
        with tarfile.open(tmp_path / f"{root}.tar.gz", "w:gz") as packed:
            for name, text in {**TRACKED, "PKG-INFO": "", **(source or {})}.items():
                member = tarfile.TarInfo(f"{root}/{name}")
                if text is not None:
                    member.size = len(text)
                    packed.addfile(member, BytesIO(text.encode()))
            for name in links:
                member = tarfile.TarInfo(f"{root}/{name}")
                member.type = tarfile.SYMTYPE
                packed.addfile(member)
        return [*check(tmp_path, {*TRACKED, *links}, {*tags})]

    return checked


@pytest.mark.parametrize("tags", [(), ("v1.2.3",), ("v1.2.3", "nightly")])
def test_what_is_right_passes(checked: Callable[..., list[str]], tags: tuple[str, ...]) -> None:
    """Everything that git tracks, the metadata, one version; with a tag and without."""
    assert checked(tags=tags) == []


@pytest.mark.parametrize(
    "name", ["ci_live_audit/py.typed", "ci_live_audit/__init__.py", f"{INFO}/licenses/LICENSE"]
)
def test_what_is_missing_in_a_wheel(checked: Callable[..., list[str]], name: str) -> None:
    """Types, modules and the licence are in it."""
    (found,) = checked(wheel={name: None})
    assert found.endswith(f".whl: {name} is missing")


@pytest.mark.parametrize(
    "name", ["ci_live_audit/notes.txt", "tests/test_one.py", "ci_live_audit/a.cpython-311.pyc"]
)
def test_a_stray_file_in_a_wheel(checked: Callable[..., list[str]], name: str) -> None:
    """Nothing is in it that git does not track, nor anything of the tests."""
    (found,) = checked(wheel={name: ""})
    assert found.endswith(f".whl: {name} does not belong there")


@pytest.mark.parametrize("name", ["tests/test_one.py", "LICENSE", "PKG-INFO"])
def test_what_is_missing_in_the_source(checked: Callable[..., list[str]], name: str) -> None:
    """It is all that git tracks, so that the tests run in it."""
    (found,) = checked(source={name: None})
    assert found.endswith(f".tar.gz: ci_live_audit-1.2.3/{name} is missing")


def test_a_stray_file_in_the_source(checked: Callable[..., list[str]]) -> None:
    """Nothing else is in it, and nothing that points elsewhere."""
    (found,) = checked(source={"ci_live_audit/key.pem": ""})
    assert found.endswith("key.pem does not belong there")
    (found,) = checked(links=["tests/link"])
    assert found.endswith("tests/link is no file")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "[console_scripts]\nci-live-audit = ci_live_audit.cli:main\n",
            "[pytest11] ci_live_audit is missing",
        ),
        (
            WHEEL[f"{INFO}/entry_points.txt"].replace("pytest_plugin", "plugin"),
            "there is no module ci_live_audit.testing.plugin",
        ),
    ],
)
def test_entry_points_exist(checked: Callable[..., list[str]], text: str, found: str) -> None:
    """The command and the pytest plugin are there, and so are the modules that they name."""
    assert checked(wheel={f"{INFO}/entry_points.txt": text}) == [f"entry points: {found}"]


@pytest.mark.parametrize(
    "wheel",
    [
        {f"{INFO}/METADATA": "Version: 1.2.4\n\n"},
        {"ci_live_audit/_version.py": '__version__ = "1.2.4"\n'},
    ],
)
def test_a_wheel_is_of_one_version(
    checked: Callable[..., list[str]], wheel: dict[str, str | None]
) -> None:
    """Its name, its metadata and its constant agree."""
    assert len(checked(wheel=wheel)) == 1


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](tests/README.md)", 1),
        ("![a picture](tests/a.svg) and [b](LICENSE)", 2),
        ("[![a](https://example.com/a.svg)](b.md)", 1),
        ("[a](https://example.com/) [b](#below) `c[d](e)`", 0),
        ("```python\nc[d](e)\n```\n", 0),
    ],
)
def test_links_that_a_package_index_has_not(
    checked: Callable[..., list[str]], text: str, wrong: int
) -> None:
    """A description links to the web and to itself; the index has no file of the project."""
    found = checked(wheel={f"{INFO}/METADATA": f"Version: 1.2.3\n\n{text}\n"})
    assert len(found) == wrong


def test_both_archives_are_of_one_version(checked: Callable[..., list[str]]) -> None:
    """A source archive of another version is told."""
    (found,) = checked(root="ci_live_audit-1.2.4")
    assert found.startswith("ci_live_audit-1.2.4.tar.gz is of another version than")


@pytest.mark.parametrize(
    ("changes", "tags", "wrong"),
    [
        ("## Unreleased\n\n## 1.2.2\n", (), 0),
        ("## [1.2.3] - 2026-01-02\n", ("v1.2.3",), 0),
        ("## 1.2.2\n", (), 1),
        ("# Changes\n", (), 1),
        ("## Unreleased\n", ("v1.2.3",), 1),
        ("## 1.2.3\n", ("v1.2.4",), 1),
        ("## 1.2.3\n", ("1.2.3",), 1),
    ],
)
def test_the_changelog_the_tag_and_the_version_agree(
    checked: Callable[..., list[str]], changes: str, tags: tuple[str, ...], wrong: int
) -> None:
    """What is tagged has a section of its own; what is not may be "Unreleased"."""
    assert len(checked(source={"CHANGELOG.md": changes}, tags=tags)) == wrong


def test_the_changelog_is_of_this_version() -> None:
    """Its newest section is this version's, or what is not released yet."""
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert newest(changes) in {ci_live_audit.__version__, "Unreleased"}
