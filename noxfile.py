"""Everything that is run on this project: ``nox`` for all of it, ``nox -l`` for a list."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.error_on_missing_interpreters = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
# The tests see the installed wheel, not the folder they are started in.
INSTALLED = {"PYTHONSAFEPATH": "1"}
#: One process more than there are cores, as some tests wait. Whatever is given after ``--`` runs in
#: a single process, which starts and fails sooner.
PARALLEL = ["-n", str((os.cpu_count() or 1) + 1), "--maxprocesses", "9", "--dist", "worksteal"]
#: What is run where a wheel is installed alone, and where it is with an extra.
INSTALLED_ALONE: dict[str, list[tuple[str, ...]]] = {
    "": [("python", "-I", "-W", "error", "tests/alone.py")],
    "[cli]": [("ci-live-audit", "--version"), ("ci-live-audit", "demo")],
}
#: Tests that a source archive runs; that all others can be loaded there is enough.
OF_THE_SOURCE = ["tests/test_archives.py", "tests/test_layers.py", *PARALLEL]
#: Packages that bots and services are made of.
NEIGHBOURS = [
    "aiogram",
    "aiohttp",
    "celery",
    "discord.py",
    "fastapi",
    "nonebot2",
    "openai",
    "python-telegram-bot[all]",
    "taskiq",
]


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def examples(folder: Path) -> list[str]:
    """Write the README's Python examples to files in a folder and return their paths.

    Each has the lines that it has in the README; the bot, which its tests import, is ``bot.py``.
    """
    text = Path("README.md").read_text("utf-8")
    paths = []
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, block.start(1))
        name = "bot" if "async def moderate(" in block[1] else f"readme_{line + 1}"
        path = folder / f"{name}.py"
        path.write_text("# pyright: strict" + "\n" * line + block[1], "utf-8")
        paths.append(str(path))
    return paths


def git(session: nox.Session, *command: str) -> str:
    """Return what git prints."""
    return str(session.run("git", *command, silent=True, external=True)).strip()


def build(session: nox.Session, clone: Path) -> tuple[Path, Path]:
    """Build a wheel, by way of a source archive, from a new clone of the last commit."""
    git(session, "clone", "--quiet", ".", str(clone))
    session.run("python", "-m", "build", "--installer", "uv", str(clone), silent=True)
    (wheel,), (source,) = clone.glob("dist/*.whl"), clone.glob("dist/*.tar.gz")
    return wheel, source


def tests(session: nox.Session) -> None:
    """Run the tests against the built wheel; ``-- path::test`` runs only that."""
    session.install(".[all]", *group("test"))
    session.run("pytest", *(session.posargs or PARALLEL), env=INSTALLED)


# "tests" is on the Python that runs nox, "tests-3.12" on that one.
nox.session(tests)
for version in PYTHONS:
    nox.session(name=f"tests-{version}", python=version)(tests)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests; all branches of the package must be covered, as far as there is a Redis."""
    session.install(".[all]", *group("test"))
    env = {**INSTALLED, "COVERAGE_FILE": f"{session.create_tmp()}/coverage"}
    session.run("coverage", "erase", env=env)
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or PARALLEL), env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    options: list[str] = []
    if shutil.which("redis-server") is None:
        session.warn("There is no redis-server: what needs one is not covered.")
        options = ["--fail-under", "95"]
    session.run("coverage", "report", *options, env=env)


@nox.session
def full(session: nox.Session) -> None:
    """Run the tests with the numbers that the README promises."""
    session.install(".[all]", *group("test"))
    env = {**INSTALLED, "CI_LIVE_AUDIT_TESTS": "full"}
    session.run("pytest", "--timeout", "300", *(session.posargs or PARALLEL), env=env)


@nox.session
def real(session: nox.Session) -> None:
    """Run what needs nginx, squid, tinyproxy, several redis-servers or Chromium.

    What the system lacks is skipped.
    """
    session.install(".[all]", *group("test"))
    session.run("pytest", "-m", "real", *(session.posargs or PARALLEL), env=INSTALLED)


@nox.session(python=PYTHONS[0], venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions of the dependencies, on the oldest Python."""
    session.install("--resolution", "lowest-direct", ".[all]", *group("test"))
    session.run("pytest", *(session.posargs or PARALLEL), env=INSTALLED)


@nox.session
def beside(session: nox.Session) -> None:
    """Resolve the package together with the newest releases of other packages."""
    session.install("uv")
    pin = Path(session.create_tmp(), "pin.txt")
    for python, name in itertools.product((PYTHONS[0], PYTHONS[-1]), NEIGHBOURS):
        resolve = ["uv", "pip", "compile", "--quiet", "--no-header", "--python-version", python]
        pin.write_text(name, "utf-8")
        newest = session.run(*resolve, "--no-deps", "--no-strip-extras", str(pin), silent=True)
        pin.write_text(str(newest), "utf-8")
        session.run(*resolve, "--all-extras", "pyproject.toml", str(pin), silent=True)
        session.log(f"Python {python}: {str(newest).split()[0]}")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and form; ``nox -s lint -- --fix`` mends what can be mended."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]))


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright, both strict, also of the README's examples.

    Nothing public may be untyped.
    """
    session.install(".[all]", "nox", *group("type"), *group("test"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "ci_live_audit", env=INSTALLED)
    with TemporaryDirectory() as folder:
        paths = examples(Path(folder))
        session.run("mypy", *paths)
        with session.chdir(folder):  # where its examples find each other
            session.run("pyright", *paths)


@nox.session(python="3.11")
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads answers for ten minutes, or as libFuzzer's options after ``--`` say."""
    session.install(".", *group("fuzz"))
    session.run(
        "python",
        "tests/fuzz/fuzz_decode.py",
        session.create_tmp(),  # what it grows; tests/fuzz/corpus is where it begins
        "tests/fuzz/corpus",
        "-dict=tests/fuzz/words.dict",
        "-artifact_prefix=tests/fuzz/findings/",
        *(session.posargs or ["-max_total_time=600"]),
    )


@nox.session
def release(session: nox.Session) -> None:
    """Build what is uploaded from the last commit, check it, and use it on every Python found.

    It is left in ``dist``. After ``--`` come the tests that the source archive runs.
    """
    if not Path(".git").exists():
        session.skip("This is no checkout.")
    session.install(*group("release"))
    if git(session, "status", "--porcelain"):
        session.warn("What is not committed is not in it.")
    work = Path(session.create_tmp()).resolve()
    shutil.rmtree(work)
    session.env["SOURCE_DATE_EPOCH"] = git(session, "log", "-1", "--format=%ct")
    wheel, source = (build(session, work / "once"), build(session, work / "again"))[0]
    for path in (wheel, source):
        if path.read_bytes() != (work / "again" / "dist" / path.name).read_bytes():
            session.error(f"{path.name} is another file each time that it is built.")
    session.run("twine", "check", "--strict", str(wheel), str(source))
    session.run("python", "tests/archives.py", str(wheel.parent))

    uv = ("uv", "--no-python-downloads")
    for version in PYTHONS:
        find = (*uv, "python", "find", version)
        found = session.run(*find, silent=True, success_codes=[0, 2], stderr=DEVNULL)
        if not (found := str(found).strip()):
            session.warn(f"NOT TESTED: there is no Python {version}.")
            continue
        for extras, commands in INSTALLED_ALONE.items():
            bare = work / f"python{version}{extras}"
            session.run(*uv, "venv", "--quiet", "--python", found, str(bare))
            session.run(*uv, "pip", "install", "-q", "--python", str(bare), f"{wheel}{extras}")
            for program, *arguments in commands:
                script = bare / ("Scripts" if os.name == "nt" else "bin") / program
                session.run(str(script), *arguments, external=True, silent=True)

    shutil.unpack_archive(source, work, filter="data")
    session.install(f"{source}[all]", *group("test"))
    with session.chdir(work / source.name.removesuffix(".tar.gz")):
        session.run("pytest", "-q", "--collect-only", env=INSTALLED, silent=True)
        session.run("pytest", *(session.posargs or OF_THE_SOURCE), env=INSTALLED)
    shutil.rmtree("dist", ignore_errors=True)
    shutil.copytree(wheel.parent, "dist")


@nox.session
def demo(session: nox.Session) -> None:
    """See three dozen live streams moderated; no account needed."""
    session.install(".[cli]")
    session.run("ci-live-audit", "demo")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the vendor's SDK and against the limits, in one run."""
    session.install(".[all]", *group("bench"))
    session.run("python", "benchmarks/run.py", *session.posargs)
