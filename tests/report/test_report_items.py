"""Items of a job: their keys, their order, and which of them a person should look at."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
from reports import BEGIN, picture, section, stream_job

from ci_live_audit import AuditJob, JobState, LiveAuditClient, Snapshot, Verdict
from ci_live_audit.report.items import items
from ci_live_audit.testing import Emulator, frame, sound


@pytest.mark.live_audit_virtual_time
async def test_the_key_is_that_of_the_finding(
    live_audit_emulator: Emulator, live_audit_client: LiveAuditClient
) -> None:
    """What a reviewer marked is found again among the findings of `watch`."""
    job_id = live_audit_emulator.add_job(
        duration=30, script=[frame(1), frame(2, "Porn"), frame(2, "Porn"), sound(3, "Ads")]
    )
    async with live_audit_client.watch(job_id, interval=60) as findings:
        keys = [finding.key async for finding in findings if finding.url]
    job = await live_audit_client.query(job_id)
    assert {item.key for item, _ in items(job)} == set(keys)
    assert len(keys) == 4


def test_items_of_a_stream() -> None:
    """Pictures and sections are in the order of the stream, with times and scores."""
    found = [item for item, _ in items(stream_job())]
    assert [item.time for item in found] == sorted(item.time or 0 for item in found)
    (sensitive, worst) = [item for item in found if item.judgement.word == "Sensitive"]
    assert (sensitive.at, sensitive.score, sensitive.kind) == (
        BEGIN + timedelta(seconds=200),
        91,
        "picture",
    )
    assert sensitive.hits[0].words == ("SexBehavior",)
    assert (worst.label, worst.score, worst.until) == ("Porn", 98, worst.time)
    sounds = [item for item in found if item.kind == "sound"]
    assert [item.listed for item in sounds] == [False, True]
    assert sounds[1].until == (sounds[1].time or 0) + 3000


@pytest.mark.parametrize(
    ("snapshot", "listed"),
    [
        (picture(1), False),
        (picture(1, "Porn"), True),
        (picture(1, "Ads", result=2), True),
        (Snapshot(), False),
        (Snapshot(result=Verdict(7)), True),
        (attrs.evolve(picture(1, "Porn"), result=Verdict.NORMAL), True),
        (attrs.evolve(picture(1, "Porn"), result=None), True),
    ],
)
def test_what_a_person_should_look_at(snapshot: Snapshot, listed: bool) -> None:
    """Whatever is flagged by verdict or scene, and verdicts that nobody knows."""
    job = AuditJob(job_id="av1", state=JobState.SUCCESS, snapshots=(snapshot,))
    ((item, found),) = items(job)
    assert (item.listed, found) == (listed, snapshot)


@pytest.mark.parametrize(("duration", "length"), [(None, 0), (-5, 0), (10**15, 86_400_000)])
def test_an_impossible_duration(duration: int | None, length: int) -> None:
    """A section lasts a day at most, and never less than nothing."""
    sections = (
        attrs.evolve(section(1), duration=duration),
        attrs.evolve(section(1), offset_time=None),
    )
    job = AuditJob(job_id="av1", state=JobState.SUCCESS, audio_sections=sections)
    (first, last) = [item for item, _ in items(job)]
    assert (first.until or 0) - (first.time or 0) == length
    assert (last.time, last.until, last.at) == (None, None, None)
