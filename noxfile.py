"""Everything that is run on this project: ``nox`` for all of it, ``nox -l`` for a list."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.error_on_missing_interpreters = False

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
# The tests see the installed wheel, not the folder they are started in.
INSTALLED = {"PYTHONSAFEPATH": "1"}


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests against the built wheel; all branches of the package must be covered."""
    session.install(".[all]", *group("test"))
    data = {**INSTALLED, "COVERAGE_FILE": f"{session.create_tmp()}/coverage"}
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=data)
    if not session.posargs:
        session.run("coverage", "report", env=data)


@nox.session(python=PYTHONS[0], venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that are said to do."""
    session.install("--resolution", "lowest-direct", ".[all]", *group("test"))
    session.run("pytest", *session.posargs, env=INSTALLED)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and form; ``nox -s lint -- --fix`` mends what can be mended."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]))


@nox.session(python=PYTHONS[0])
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright, both strict, and that nothing public is untyped."""
    session.install(".[all]", "nox", *group("type"), *group("test"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "ci_live_audit", env=INSTALLED)


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
def demo(session: nox.Session) -> None:
    """See three dozen live streams moderated; no account needed."""
    session.install(".[cli,emulator]")
    session.run("ci-live-audit", "demo")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the vendor's SDK and against the limits, in one run."""
    session.install(".[all]", *group("bench"))
    session.run("python", "benchmarks/run.py", *session.posargs)
