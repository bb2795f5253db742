"""The body of a callback → a frozen `Callback`. Pure.

A Detail callback has the nodes of a query; a Simple one has names and a structure of its own, and
does not tell the state of the job. Callbacks are not signed, so anybody who knows the URL can send
one: query the job before acting on it.

Source: https://www.tencentcloud.com/document/product/1045/49343
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Literal

import attrs

from ci_live_audit.errors import DecodeError
from ci_live_audit.models import (
    EMPTY,
    AuditJob,
    JobState,
    ReadOnly,
    Scene,
    Scenes,
    Tag,
    Verdict,
    wire_name,
)
from ci_live_audit.wire import documents, nodes, results
from ci_live_audit.wire.context import Context
from ci_live_audit.wire.scalars import Unreadable, Value

__all__ = ["Callback", "decode"]

# What the service sends when a callback URL is set.
PROBE_ID, PROBE_MESSAGE = "test_trace_id", "Test request when setting callback url"


@attrs.frozen(kw_only=True)
class Callback(Scenes):
    """What the service says of a job without being asked.

    What is not listed is as in `AuditJob`.

    Attributes:
        form: The version of the callback.
        key: A digest of the body: the same callback sent again has the same one.
        size: Bytes of the body.
        probe: Whether it only tests the URL, and is about no job.
        job_id: The job; None only in a probe, or where nothing but ``code`` and ``message`` was
            sent.
        state: The state of the job; None in a Simple callback, which does not tell it.
        result: The verdict until now.
        forbid_state: Whether the service has banned the stream (1) or not (0).
        job: All that a Detail callback says; its lists hold what is new. None in a Simple one.
        code: "0" or "Success" if all is well, else why not, which ``message`` explains.
        extra: What is not known; of a Simple callback with the names of its own: ``data.event``.
    """

    form: Literal["Simple", "Detail"]
    key: str
    size: int = attrs.field(default=0, eq=False)
    probe: bool = False
    job_id: str | None = None
    data_id: str | None = None
    state: JobState | None = None
    result: Verdict | None = None
    label: str | None = None
    scenes: Mapping[str, Scene] = EMPTY
    url: str | None = None
    forbid_state: int | None = None
    cos_headers: Mapping[str, Any] = EMPTY
    job: AuditJob | None = None
    code: str | None = None
    message: str | None = None
    unreadable: tuple[str, ...] = ()
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class _Outside(Scenes):
    """What a Simple callback has outside ``data``."""

    code: str | None = None
    message: str | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class _Data(Scenes):
    """``data`` of a Simple callback, its names in CamelCase."""

    job_id: Annotated[str | None, Tag("TraceId")] = None
    data_id: str | None = None
    result: Verdict | None = None
    label: str | None = None
    scenes: Mapping[str, Scene] = EMPTY
    url: str | None = None
    forbid_state: Annotated[int | None, Tag("ForbiddenStatus")] = None
    cos_headers: Mapping[str, Any] = EMPTY
    extra: Mapping[str, Any] = EMPTY


def decode(
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    received_at: datetime | None = None,
) -> Callback:
    """Decode the body of a callback.

    Args:
        body: What was sent.
        headers: Those of the request; ``X-Ci-Content-Version`` decides if the body does not.
        received_at: When it arrived; it decides ``url_expires_at`` of snapshots and sections.

    Raises:
        DecodeError: It is no callback.
    """
    document = documents.read(body)
    version = {str(name).lower(): str(value) for name, value in (headers or {}).items()}
    says_simple = version.get("x-ci-content-version", "").strip().lower() == "simple"
    try:
        if isinstance(document.get("JobsDetail"), dict):
            callback = _detail(document["JobsDetail"], body, received_at)
        elif isinstance(document.get("data"), dict) or (says_simple and "code" in document):
            callback = _simple(document)
        else:
            raise Unreadable("expected a callback, with JobsDetail or data", fatal=True)
    except Unreadable as problem:
        excerpt = problem.excerpt or documents.beginning(body)
        raise DecodeError(str(problem), path=problem.path, excerpt=excerpt) from None
    probe = callback.job_id == PROBE_ID or callback.message == PROBE_MESSAGE
    key = sha256(body).hexdigest()
    return attrs.evolve(callback, key=key, size=len(body), probe=probe)


def _detail(details: dict[str, Value], body: bytes, received_at: datetime | None) -> Callback:
    try:
        job = results.job(body, received_at=received_at)
    except DecodeError as error:
        # Who tests a URL may name no state, and a job without one can be asked for.
        if error.path != "JobsDetail.State":
            raise
        context = Context()
        known = nodes.values(nodes.reader(AuditJob), details, context)
        known["unreadable"] = tuple(f"JobsDetail.{path}" for path in context.unreadable)
        job = None
    else:
        known = {name: getattr(job, name) for name in attrs.fields_dict(AuditJob)}
    shared = {name: known[name] for name in attrs.fields_dict(Callback) if name in known}
    return Callback(form="Detail", key="", job=job, **shared)


def _simple(document: dict[str, Value]) -> Callback:
    around = {name: value for name, value in document.items() if name != "data"}
    known, unreadable = _values(_Outside, around, "")
    data: Value = document.get("data")
    if isinstance(data, dict):
        inside, more = _values(_Data, data, "data.")
        # Of several ids, none is sure to be meant.
        if "job_id" not in inside or isinstance(data.get("trace_id"), list):
            raise Unreadable("expected one id", fatal=True).within("trace_id").within("data")
        extra = {**known.get("extra", EMPTY), **inside.get("extra", EMPTY)}
        known |= {**inside, "extra": ReadOnly(extra)}
        unreadable += more
    return Callback(form="Simple", key="", unreadable=tuple(unreadable), **known)


def _values(cls: Any, node: dict[str, Value], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of a class out of a node, and the paths of what cannot be read."""
    names = {_tag(name): name for name in node}
    context = Context()
    known = nodes.values(nodes.reader(cls), _in_camel_case(node), context)
    if "extra" in known:
        kept = {f"{prefix}{names[tag]}": value for tag, value in known["extra"].items()}
        known["extra"] = ReadOnly(kept)
    parts = (path.partition(".") for path in context.unreadable)
    return known, [f"{prefix}{names.get(tag, tag)}{dot}{rest}" for tag, dot, rest in parts]


def _in_camel_case(node: dict[str, Value]) -> dict[str, Value]:
    """Return a node with the names of a query: ``PornInfo.HitFlag`` for ``porn_info.hit_flag``."""
    return {
        _tag(name): _in_camel_case(value)
        if name.endswith("_info") and isinstance(value, dict)
        else value
        for name, value in node.items()
    }


def _tag(name: str) -> str:
    return wire_name(name) if name == name.lower() else name
