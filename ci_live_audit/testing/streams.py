"""Live streams that follow a script, and their jobs, whose state depends on the time alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

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

__all__ = ["LiveJob", "Stream", "frame", "sound"]

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
    script: tuple[Snapshot | AudioSection, ...] = ()
    failure: tuple[str, str] | None = None

    @classmethod
    def scripted(
        cls,
        duration: float,
        script: Iterable[Snapshot | AudioSection] | None,
        failure: tuple[str, str] | None,
    ) -> Stream:
        """Return a stream; without a script it has some snapshots and sections, all normal."""
        if script is None:
            steps = [min(duration, 3600.0) * step / 8 for step in range(1, 8)]
            script = [frame(at) for at in steps] + [sound(at, duration=0) for at in steps[::3]]
        return cls(duration=duration, script=tuple(sorted(script, key=_found)), failure=failure)


def _found(item: Snapshot | AudioSection) -> float:
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
        state = self.state(clock)
        elapsed = self.elapsed(clock)
        # A job that is cancelled while Submitted has found nothing.
        script = self.stream.script if elapsed >= self._pending() else ()
        found = [item for item in script if _found(item) <= elapsed * 1000]
        snapshots = tuple(
            attrs.evolve(
                item,
                url=_signed(f"https://{host}/{self.job_id}/{number}.jpg", now, self.queries),
                snapshot_time=self._epoch(item.snapshot_time),
            )
            for number, item in enumerate(i for i in found if isinstance(i, Snapshot))
        )
        sections = tuple(
            attrs.evolve(
                item,
                url=_signed(f"https://{host}/{self.job_id}/{number}.mp3", now, self.queries),
                offset_time=self._epoch(item.offset_time),
            )
            for number, item in enumerate(i for i in found if isinstance(i, AudioSection))
        )
        code, message = self.stream.failure or ("", "")
        failed = state == JobState.FAILED
        worst = max(found, key=_severity, default=None)
        return AuditJob(
            job_id=self.job_id,
            state=state,
            label=worst.label if worst is not None else None,
            result=worst.result if worst is not None else None,
            data_id=self.data_id,
            creation_time=self.creation_time(),
            type="live_video",
            url=self.url,
            code=code if failed else None,
            message=message if failed else None,
            snapshot_count=len(snapshots) if found else None,
            scenes=_summary(found),
            snapshots=snapshots,
            audio_sections=sections,
            user_info=self.user_info,
        )

    def _epoch(self, milliseconds: int | None) -> int:
        return int(self.created * 1000) + (milliseconds or 0)


def _severity(item: Snapshot | AudioSection) -> int:
    return (item.result or Verdict.NORMAL).severity


def _summary(found: list[Snapshot | AudioSection]) -> ReadOnly[Scene]:
    """Return the worst flag of each scene and the number of its snapshots with a hit."""
    summary: dict[str, Scene] = {}
    for item in found:
        for name, scene in item.scenes.items():
            so_far = summary.get(name, Scene(hit_flag=HitFlag.MISS, count=0))
            flags = (scene.hit_flag or HitFlag.MISS, so_far.hit_flag or HitFlag.MISS)
            hit = isinstance(item, Snapshot) and flags[0] != HitFlag.MISS
            summary[name] = Scene(
                hit_flag=max(flags, key=lambda flag: flag.severity),
                count=(so_far.count or 0) + hit,
            )
    return ReadOnly(summary)


def _signed(url: str, now: float, nonce: int) -> str:
    signature = hashlib.sha1(f"{url}{nonce}".encode()).hexdigest()  # noqa: S324 - for its looks
    return f"{url}?q-sign-time={int(now)};{int(now) + 7200}&q-signature={signature}"
