"""``report``: jobs, and what other commands wrote of jobs, as a page for people."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import attrs

from ci_live_audit._threads import Threads
from ci_live_audit.cli.filters import Filter
from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.cli.recorded import Recorded
from ci_live_audit.cli.session import Settings
from ci_live_audit.cli.words import count
from ci_live_audit.errors import ConfigurationError, CredentialsError, LiveAuditError
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import JobState
from ci_live_audit.report.page import render

__all__ = ["report"]

#: Lines of files that are named when they cannot be used.
NAMED = 10


@attrs.define
class _Tally:
    """Counts what goes into a report."""

    streams: int = 0
    flagged: int = 0
    failed: int = 0

    def counting(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Yield outcomes as they are."""
        for outcome in outcomes:
            job = outcome.job
            self.streams += 1
            self.flagged += job is not None and Filter().flags(job)
            self.failed += outcome.error is not None or job is None or job.state == JobState.FAILED
            yield outcome

    def __str__(self) -> str:
        streams = count(self.streams, "stream")
        return f"{streams}, {self.flagged:,} flagged, {self.failed:,} failed or not known"


async def report(
    settings: Settings, job_ids: Sequence[str], files: Sequence[Path], path: Path, title: str
) -> int:
    """Write a report of jobs; return the exit code."""
    output = settings.output
    _check(path, files)
    render(())  # says at once what must be installed
    recorded = Recorded()
    for file in files:
        # In a thread, so that Ctrl-C ends a command that waits for a pipe.
        await Threads(1).run(partial(recorded.read, file))
    _tell(output, recorded.problems)
    queried = await _query(settings, job_ids)
    tally = _Tally()
    outcomes = tally.counting(_together(queried, recorded))
    now = datetime.now(UTC)
    page = await Threads(1).run(partial(render, outcomes, title=title, now=now))
    if path == Path("-"):
        sys.stdout.buffer.write(page.encode())
        sys.stdout.buffer.flush()
    else:
        _write(path, page)
        output.say(f"wrote {path}: {tally}")
    if tally.flagged:
        return Exit.FLAGGED
    return Exit.ERROR if tally.failed or recorded.problems else Exit.OK


async def _query(settings: Settings, job_ids: Sequence[str]) -> dict[str, Outcome]:
    """Query jobs; an error takes the place of a job."""
    found: dict[str, Outcome] = {}
    if not job_ids:
        return found
    async with settings.client() as client:
        for job_id in dict.fromkeys(job_ids):
            try:
                found[job_id] = Outcome(job_id=job_id, job=await client.query(job_id))
            except CredentialsError:  # it would be the same for all
                raise
            except LiveAuditError as error:
                settings.output.say(f"error: {error}")
                found[job_id] = Outcome(job_id=job_id, error=error)
    return found


def _together(queried: dict[str, Outcome], recorded: Recorded) -> Iterator[Outcome]:
    """Yield each job once, as it was queried; as it was recorded, if it cannot be queried."""
    rest = dict(queried)
    for outcome in recorded.outcomes():
        fresh = rest.pop(outcome.job_id, None)
        if fresh is not None and fresh.job is None:
            fresh = attrs.evolve(fresh, job=outcome.job)
        yield fresh or outcome
    yield from rest.values()


def _tell(output: Output, problems: Sequence[str]) -> None:
    for problem in problems[:NAMED]:
        output.say(f"error: {problem}")
    if len(problems) > NAMED:
        output.say(f"error: {len(problems) - NAMED:,} more lines cannot be used")


def _check(path: Path, files: Sequence[Path]) -> None:
    """Raise before anything is read or sent if the report has nowhere to go.

    Raises:
        ConfigurationError: The path is something else than a file, or its folder does not exist,
            or what it has is to be read.
    """
    if path == Path("-"):
        return
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path}: this is not a regular file; - writes to standard output")
    if path.exists() and any(path.samefile(file) for file in files if file != Path("-")):
        raise ConfigurationError(f"{path}: the results in it would be lost; pass another file")
    if not path.resolve().parent.is_dir():
        raise ConfigurationError(f"{path}: its folder does not exist")


def _write(path: Path, page: str) -> None:
    """Write a page as a whole: whoever opens the file has the old one or the new one.

    It is for its owner alone (0600), unless the old one was for others, too.

    Raises:
        OSError: It cannot be written; the file is as it was.
    """
    path = path.resolve()  # of a link, what it points to
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(page.encode())
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileNotFoundError):
            Path(name).chmod(path.stat().st_mode)
        Path(name).replace(path)
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(path)) from None
    finally:
        Path(name).unlink(missing_ok=True)
