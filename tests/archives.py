"""What is uploaded to a package index; ``python tests/archives.py FOLDER`` checks what is built."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from configparser import ConfigParser
from email.parser import HeaderParser
from pathlib import Path

PACKAGE = "ci_live_audit"
#: What the packager writes into a wheel beside the package.
METADATA = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
#: What type checkers, pytest and shells look for.
ENTRIES = {("pytest11", PACKAGE), ("console_scripts", "ci-live-audit")}


def newest(changelog: str) -> str:
    """Return the name of the first section of a changelog: a version, or "Unreleased"."""
    found = re.search(r"^## \[?([^\]\s]+)", changelog, re.MULTILINE)
    return found[1] if found else ""


def relative_links(markdown: str) -> list[str]:
    """Return the targets of links and pictures that are neither on the web nor in the text."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return [
        link for link in re.findall(r"\]\(([^)\s]+)", text) if not re.match(r"https?://|#", link)
    ]


def check(dist: Path, tracked: Collection[str], tags: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with the only wheel and the only source archive of a folder.

    Args:
        dist: The folder.
        tracked: The files of the commit that they are built from.
        tags: Its tags. A commit with a tag ``v1.2.3`` is the release of that version.
    """
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        files = {name: opened.read(name).decode("utf-8", "replace") for name in opened.namelist()}
    version = wheel.name.split("-")[1]
    info = f"{PACKAGE}-{version}.dist-info"
    expected = {name for name in tracked if name.startswith(f"{PACKAGE}/")}
    expected |= {f"{PACKAGE}/py.typed", *(f"{info}/{name}" for name in METADATA)}
    yield from _compare(wheel.name, files, expected)
    yield from _entries(files.get(f"{info}/entry_points.txt", ""), files)
    metadata = HeaderParser().parsestr(files.get(f"{info}/METADATA", ""))
    for link in relative_links(str(metadata.get_payload())):
        yield f"{wheel.name}: its description has a link to {link}, which no package index has"
    stated = metadata["Version"]
    constant = f'__version__ = "{version}"\n'
    if stated != version or constant not in files.get(f"{PACKAGE}/_version.py", ""):
        yield f"{wheel.name}: its metadata say {stated}, or its _version.py is of another version"

    root = source.name.removesuffix(".tar.gz")
    with tarfile.open(source) as archive:
        members = archive.getmembers()
        changes = _text(archive, f"{root}/CHANGELOG.md")
    yield from _compare(
        source.name,
        {member.name for member in members},
        {f"{root}/{name}" for name in (*tracked, "PKG-INFO")},
    )
    for member in members:
        if not member.isfile():
            yield f"{source.name}: {member.name} is no file"
    if root != f"{PACKAGE}-{version}":
        yield f"{source.name} is of another version than {wheel.name}"

    releases = {tag for tag in tags if re.match(r"v?\d", tag)}
    if releases - {f"v{version}"}:
        yield f"the commit is tagged {', '.join(sorted(releases))}; its version is {version}"
    allowed = {version} if releases else {version, "Unreleased"}
    if newest(changes) not in allowed:
        yield f"CHANGELOG.md begins with {newest(changes)!r}; the version is {version}"


def _compare(archive: str, names: Collection[str], expected: Collection[str]) -> Iterator[str]:
    for name in sorted({*expected} - {*names}):
        yield f"{archive}: {name} is missing"
    for name in sorted({*names} - {*expected}):
        yield f"{archive}: {name} does not belong there"


def _entries(text: str, files: Collection[str]) -> Iterator[str]:
    parser = ConfigParser()
    parser.read_string(text)
    found = {(group, name): target for group in parser for name, target in parser[group].items()}
    for group, name in sorted(ENTRIES - {*found}):
        yield f"entry points: [{group}] {name} is missing"
    for target in found.values():
        module = target.partition(":")[0].replace(".", "/")
        if not {f"{module}.py", f"{module}/__init__.py"} & {*files}:
            yield f"entry points: there is no module {target}"


def _text(archive: tarfile.TarFile, name: str) -> str:
    try:
        opened = archive.extractfile(name)
    except KeyError:
        return ""
    return opened.read().decode("utf-8") if opened else ""


def _git(*command: str) -> list[str]:
    """Return the lines that git prints."""
    done = subprocess.run(["git", *command], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


if __name__ == "__main__":
    wrong = [
        *check(
            Path(sys.argv[1]),
            _git("-c", "core.quotePath=false", "ls-tree", "-r", "--name-only", "HEAD"),
            _git("tag", "--points-at", "HEAD"),
        )
    ]
    sys.exit("\n".join(wrong) or None)
