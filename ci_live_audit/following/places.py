"""The places of streams that run at once, or may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import attrs

from ci_live_audit.errors import LiveAuditError
from ci_live_audit.following.streams import Stream
from ci_live_audit.following.submitting import Submission
from ci_live_audit.wire.requests import Request

__all__ = ["HELD", "Place", "Places"]

#: Seconds for which a place is kept for a job that may run, but whose id is not known.
HELD = 12 * 3600.0


@attrs.define(eq=False)
class Place:
    """The place of a stream, from before it is submitted until its job does not run any more.

    Attributes:
        stream: The stream.
        key: What it is known by.
        job_id: Its job; empty as long as that is not known.
        error: Why its job may run on, although nobody follows it.
        lost_at: When the answer to the submission was lost, in seconds.
        is_aside: Whether it is laid aside, as its job was given up and cannot be stopped for now.
        dropped: Whether another process may have taken it while it was being submitted.
        request: What submits it, if that is known.
        submission: Its submission, if it is of this run.
        task: Submits it.
    """

    stream: Stream
    key: str
    job_id: str = ""
    error: LiveAuditError | None = None
    lost_at: float | None = None
    is_over: bool = False
    is_aside: bool = False
    dropped: bool = False
    request: Request | None = None
    submission: Submission | None = None
    task: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a submission has left, and its result is not known."""
        return self.submission is not None and self.submission.under_way


class Places:
    """Those that are taken, of a number.

    Attributes:
        freed: How many have been given back.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._taken: list[Place] = []
        self.freed: int = 0

    def __iter__(self) -> Iterator[Place]:
        return iter(tuple(self._taken))

    def has_room(self, now: float) -> bool:
        """Return whether one is free.

        Jobs whose ids are lost cannot be seen to end. They do not take the last place, or nothing
        would ever go on.
        """
        lost = [place.lost_at for place in self._taken if place.lost_at is not None]
        held = sum(now < since + HELD for since in lost)
        busy = len(self._taken) - len(lost)
        return busy + min(held, self._number - 1) < self._number

    def take(self, place: Place) -> None:
        """Take a place."""
        self._taken.append(place)

    def free(self, place: Place) -> None:
        """Give a place back."""
        self._taken.remove(place)
        self.freed += 1

    def of_key(self, key: str) -> list[Place]:
        """Return the places of a stream: one, or none."""
        return [place for place in self._taken if place.key == key]

    def of_job(self, job_id: str) -> list[Place]:
        """Return the places of a job: one, or none."""
        return [place for place in self._taken if place.job_id == job_id]
