"""Bodies of callbacks, as the service sends them: for the emulator, and for tests of receivers.

Source: https://www.tencentcloud.com/document/product/1045/49343
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import attrs

from ci_live_audit.errors import InvalidInput
from ci_live_audit.models import AuditJob, JobState, Scene, Verdict, wire_name
from ci_live_audit.testing.render import tree
from ci_live_audit.testing.streams import Item, LiveJob, Stream, Summary
from ci_live_audit.wire.callbacks import PROBE_ID, PROBE_MESSAGE

__all__ = ["Form", "callback_body", "callback_headers", "callback_probe", "encode"]

Form: TypeAlias = Literal["Simple", "Detail"]

EVENT = "ReviewVideo"
BUCKET, REGION = "examplebucket-1250000000", "ap-beijing"
#: 2026-01-01 in UTC: the same arguments make the same body.
CREATED = 1_767_225_600.0


def callback_body(
    job_id: str,
    findings: Iterable[Item] = (),
    *,
    form: Form = "Detail",
    state: str = JobState.AUDITING,
    data_id: str | None = None,
    created: float = CREATED,
    **facts: Any,
) -> bytes:
    """Return the body of a callback; the same arguments make the same body.

    Args:
        job_id: The job.
        findings: What is new, from `frame` and `sound`; the verdict, the label and the scenes of
            the job follow from it.
        form: ``"Detail"``, or ``"Simple"``, which tells neither the state nor the findings.
        state: State of the job.
        data_id: The data id of the submission.
        created: When the job was submitted, in Unix seconds; the findings' times count from it.
        facts: Further attributes of the `AuditJob`, such as ``url``, or in place of what follows
            from the findings.

    Raises:
        InvalidInput: The form is neither of both.
    """
    job = LiveJob(job_id=job_id, stream=Stream(), created=created, data_id=data_id)
    summary = Summary()
    host = f"{BUCKET}.cos.{REGION}.myqcloud.com"
    items = [job.signed(item, summary.add(item), created, host) for item in findings]
    facts = {"bucket_id": BUCKET, "region": REGION, **facts}
    return encode(attrs.evolve(job.result(JobState(state), items, summary), **facts), form)


def callback_probe(form: Form = "Simple") -> bytes:
    """Return the body of the callback with which the service tests a URL that is set."""
    probe = AuditJob(job_id=PROBE_ID, state=JobState.SUCCESS, message=PROBE_MESSAGE)
    return encode(probe, form)


def callback_headers(form: Form = "Detail") -> dict[str, str]:
    """Return the headers of a callback."""
    return {"Content-Type": "application/json", "X-Ci-Content-Version": form}


def encode(job: AuditJob, form: Form) -> bytes:
    """Return what a callback says of a job.

    Raises:
        InvalidInput: The form is neither of both.
    """
    if form not in {"Simple", "Detail"}:
        raise InvalidInput(f"form: expected 'Simple' or 'Detail'; got {form!r}")
    message = job.message or "success"
    if form == "Detail":
        job = attrs.evolve(job, code=job.code or "Success", message=message)
        details = {"ForbidState": 0, "CosHeaders": {}} | tree(job)
        return json.dumps({"EventName": EVENT, "JobsDetail": details}).encode()
    code = job.code or "0"
    return json.dumps(
        {"code": int(code) if code.isdecimal() else code, "message": message, "data": _data(job)}
    ).encode()


def _data(job: AuditJob) -> dict[str, Any]:
    known = {
        "event": EVENT,
        "trace_id": job.job_id,
        "data_id": job.data_id,
        "url": job.url,
        "result": Verdict.NORMAL if job.result is None else job.result,
        "forbidden_status": job.forbid_state or 0,
        "cos_headers": job.cos_headers,
    }
    scenes = {_name(f"{name}Info"): _scene(scene) for name, scene in job.scenes.items()}
    return {name: tree(value) for name, value in known.items() if value is not None} | scenes


def _scene(scene: Scene) -> dict[str, Any]:
    return {
        "hit_flag": tree(scene.hit_flag or 0),
        "label": scene.label or "",
        "count": scene.count or 0,
    }


def _name(tag: str) -> str:
    """Return the name of a node in a Simple callback: ``porn_info`` for ``PornInfo``."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", tag).lower()
    return name if wire_name(name) == tag else tag
