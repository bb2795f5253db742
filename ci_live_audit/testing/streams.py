"""Live streams that follow a script, and their jobs, whose state depends on the time alone."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Literal, TypeAlias

import attrs

from ci_live_audit.models import (
    AudioSection,
    AuditJob,
    HitFlag,
    JobState,
    ReadOnly,
    Scene,
    Snapshot,
    UserInfo,
    Verdict,
)

__all__ = ["Item", "LiveJob", "Stream", "Summary", "frame", "sound"]

Item: TypeAlias = Snapshot | AudioSection

SHANGHAI = timezone(timedelta(hours=8))
NORMAL = "Normal"
# Scenes that are always moderated, whether or not a script mentions them.
ALWAYS = ("Porn", "Ads")


def frame(
    at: float,
    label: str = NORMAL,
    *,
    score: int = 99,
    result: Verdict | None = None,
    sub_label: str | None = None,
    text: str | None = None,
) -> Snapshot:
    """Return a snapshot for a script.

    Args:
        at: Seconds into the stream.
        label: What moderation finds in it: ``"Normal"``, ``"Porn"``, ``"Ads"``, ….
        score: Confidence, 0 to 100.
        result: The verdict; by default it follows from the label.
        sub_label: A finer label, such as ``"SexBehavior"``.
        text: Text recognized in the snapshot.
    """
    result = _result(label, result)
    return Snapshot(
        snapshot_time=round(at * 1000),
        label=label,
        result=result,
        text=text,
        scenes=_scenes(label, score, result, sub_label),
    )


def sound(
    at: float,
    label: str = NORMAL,
    *,
    duration: float = 3.0,
    score: int = 99,
    result: Verdict | None = None,
    text: str | None = None,
) -> AudioSection:
    """Return an audio section for a script; it is found when it has ended.

    Args:
        at: Seconds into the stream at which it begins.
        label: What moderation finds in it.
        duration: Seconds.
        score: Confidence, 0 to 100.
        result: The verdict; by default it follows from the label.
        text: Recognized speech.
    """
    result = _result(label, result)
    return AudioSection(
        offset_time=round(at * 1000),
        duration=round(duration * 1000),
        label=label,
        result=result,
        text=text,
        scenes=_scenes(label, score, result, None),
    )


def _result(label: str, result: Verdict | None) -> Verdict:
    if result is not None:
        return result
    return Verdict.NORMAL if label == NORMAL else Verdict.SENSITIVE


def _scenes(label: str, score: int, result: Verdict, sub_label: str | None) -> ReadOnly[Scene]:
    scenes = {name: Scene(hit_flag=HitFlag.MISS, score=0) for name in ALWAYS}
    if label != NORMAL:
        scenes[label] = Scene(hit_flag=HitFlag(int(result)), score=score, sub_label=sub_label)
    return ReadOnly(scenes)


@attrs.frozen(kw_only=True)
class Stream:
    """The course of a stream.

    ``duration`` is seconds; the script's times count from the stream's beginning; ``failure`` is
    the code and the message with which moderation fails at the end.
    """

    duration: float = 60.0
    script: tuple[Item, ...] = ()
    failure: tuple[str, str] | None = None

    @classmethod
    def scripted(
        cls,
        duration: float,
        script: Iterable[Item] | None,
        failure: tuple[str, str] | None,
    ) -> Stream:
        """Return a stream; without a script it has some snapshots and sections, all normal."""
        if script is None:
            steps = [min(duration, 3600.0) * step / 8 for step in range(1, 8)]
            script = [frame(at) for at in steps] + [sound(at, duration=0) for at in steps[::3]]
        return cls(duration=duration, script=tuple(sorted(script, key=_found)), failure=failure)


def _found(item: Item) -> float:
    """Return the milliseconds into the stream at which an item is found."""
    if isinstance(item, Snapshot):
        return item.snapshot_time or 0
    return (item.offset_time or 0) + (item.duration or 0)


@attrs.define(kw_only=True)
class LiveJob:
    """A job as the service keeps it.

    Attributes:
        job_id: Its id.
        stream: The course of its stream.
        url: URL of the stream.
        created: When it was submitted, in Unix seconds.
        started: When it was submitted, by the emulator's clock; None until that clock is known.
        cancelled: When it was cancelled, by the emulator's clock; None if it was not.
        queries: Number of queries so far.
        callback: URL that wants to be called back.
        callback_type: 1 to be called with everything, 2 with violations only.
        callback_version: The form of the callbacks.
    """

    job_id: str
    stream: Stream
    created: float
    url: str | None = None
    data_id: str | None = None
    user_info: UserInfo | None = None
    started: float | None = None
    cancelled: float | None = None
    queries: int = 0
    callback: str | None = None
    callback_type: int = 1
    callback_version: Literal["Simple", "Detail"] = "Simple"

    def elapsed(self, clock: float) -> float:
        """Return the seconds for which the job has run."""
        if self.started is None:
            self.started = clock
        end = clock if self.cancelled is None else self.cancelled
        return min(end - self.started, self.stream.duration)

    def state(self, clock: float) -> JobState:
        """Return the job's state."""
        elapsed = self.elapsed(clock)
        if elapsed >= self.stream.duration:
            return JobState.SUCCESS if self.stream.failure is None else JobState.FAILED
        if self.cancelled is not None:
            return JobState.CANCELLED
        return JobState.SUBMITTED if elapsed < self._pending() else JobState.AUDITING

    def _pending(self) -> float:
        return min(1.0, self.stream.duration / 10)

    def creation_time(self) -> datetime:
        """Return when the job was submitted, to the second and in the service's time zone."""
        return datetime.fromtimestamp(int(self.created), SHANGHAI)

    def found(self, clock: float, now: float, host: str) -> AuditJob:
        """Return the result of a query.

        Args:
            clock: Seconds by the emulator's clock.
            now: Unix seconds; each query signs the URLs of the findings anew.
            host: Host of these URLs.
        """
        self.queries += 1
        elapsed = self.elapsed(clock)
        # A job that is cancelled while Submitted has found nothing.
        script = self.stream.script if elapsed >= self._pending() else ()
        found, summary = [item for item in script if _found(item) <= elapsed * 1000], Summary()
        items = [self.signed(item, summary.add(item), now, host) for item in found]
        return self.result(self.state(clock), items, summary)

    def segments(self) -> list[tuple[float, tuple[Item, ...]]]:
        """Return what is found at the same time, with the seconds for which the job has run."""
        times = ((max(_found(item) / 1000, self._pending()), item) for item in self.stream.script)
        return [
            (seconds, tuple(item for _, item in found))
            for seconds, found in itertools.groupby(times, key=lambda pair: pair[0])
            if seconds <= self.stream.duration
        ]

    def signed(self, item: Item, number: int, now: float, host: str) -> Item:
        """Return a finding as the service sends it, the ``number``-th of its kind in the job."""
        since_1970 = int(self.created * 1000)
        place = f"https://{host}/{self.job_id}/{number}"
        if isinstance(item, Snapshot):
            url = _signed(f"{place}.jpg", now, self.queries)
            return attrs.evolve(item, url=url, snapshot_time=since_1970 + (item.snapshot_time or 0))
        url = _signed(f"{place}.mp3", now, self.queries)
        return attrs.evolve(item, url=url, offset_time=since_1970 + (item.offset_time or 0))

    def result(self, state: JobState, items: Iterable[Item], summary: Summary) -> AuditJob:
        """Return the result of the job: some of its findings, and a summary of all."""
        items = tuple(items)
        code, message = self.stream.failure or ("", "")
        failed = state == JobState.FAILED
        return AuditJob(
            job_id=self.job_id,
            state=state,
            label=None if summary.worst is None else summary.worst.label,
            result=None if summary.worst is None else summary.worst.result,
            data_id=self.data_id,
            creation_time=self.creation_time(),
            type="live_video",
            url=self.url,
            code=code if failed else None,
            message=message if failed else None,
            snapshot_count=None if summary.worst is None else summary.snapshots,
            scenes=ReadOnly(summary.scenes),
            snapshots=tuple(item for item in items if isinstance(item, Snapshot)),
            audio_sections=tuple(item for item in items if isinstance(item, AudioSection)),
            user_info=self.user_info,
        )


@attrs.define
class Summary:
    """What a job has found so far.

    Attributes:
        worst: The first finding with the worst verdict.
        snapshots: Number of snapshots.
        sections: Number of audio sections.
        scenes: The worst flag of each scene and the number of its snapshots with a hit.
    """

    worst: Item | None = None
    snapshots: int = 0
    sections: int = 0
    scenes: dict[str, Scene] = attrs.Factory(dict[str, Scene])

    def add(self, item: Item) -> int:
        """Add a finding; return how many of its kind were there before."""
        snapshot = isinstance(item, Snapshot)
        number = self.snapshots if snapshot else self.sections
        self.snapshots += snapshot
        self.sections += not snapshot
        if self.worst is None or _severity(item) > _severity(self.worst):
            self.worst = item
        for name, scene in item.scenes.items():
            so_far = self.scenes.get(name, Scene(hit_flag=HitFlag.MISS, count=0))
            flags = (scene.hit_flag or HitFlag.MISS, so_far.hit_flag or HitFlag.MISS)
            hit = snapshot and flags[0] != HitFlag.MISS
            self.scenes[name] = Scene(
                hit_flag=max(flags, key=lambda flag: flag.severity),
                count=(so_far.count or 0) + hit,
            )
        return number


def _severity(item: Item) -> int:
    return (item.result or Verdict.NORMAL).severity


def _signed(url: str, now: float, nonce: int) -> str:
    signature = hashlib.sha1(f"{url}{nonce}".encode()).hexdigest()  # noqa: S324 - for its looks
    return f"{url}?q-sign-time={int(now)};{int(now) + 7200}&q-signature={signature}"
