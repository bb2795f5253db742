"""`decode` as properties: a rendered job comes back equal, and no bytes break it."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from proofs import IN_FULL

from ci_live_audit import decode
from ci_live_audit.errors import DecodeError, LiveAuditError, ServiceError
from ci_live_audit.models import (
    AuditJob,
    CancelledJob,
    HitFlag,
    JobState,
    ReadOnly,
    Result,
    Scene,
    SubmittedJob,
    Tag,
    UserInfo,
    Verdict,
    wire_name,
)
from ci_live_audit.testing import render
from ci_live_audit.wire import documents

SAMPLES = [path.read_bytes() for path in (Path(__file__).parents[1] / "samples").iterdir()]
SCENES = ["Porn", "Ads", "Terrorism", "Terrorist", "Politics", "Illegal", "Meaningless", "New新"]
# Attributes without a node of their own.
DERIVED = {"keywords_raw", "url_expires_at", "received_at", "extra", "scenes", "unreadable"}

slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


# Any job that the formats can carry


# XML 1.0 has no other control characters, and no surrogates.
characters = st.characters(
    exclude_categories=["Cs", "Cc"],
    include_characters="\t\n\r\x85",
    exclude_characters="\ufffe\uffff",
)
# A text of white space only is the service's null.
texts = st.text(characters, min_size=1, max_size=8).filter(str.strip)
words = texts.map(str.strip)
int64 = st.integers(-(2**63), 2**63 - 1)
zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001
    max_value=datetime(9990, 1, 1),  # noqa: DTZ001
    timezones=zones,
)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: int64,
    float: st.floats(allow_nan=False, allow_infinity=False),
    datetime: moments,
    JobState: st.sampled_from(JobState) | words.map(JobState),
    Verdict: st.sampled_from(Verdict) | int64.map(Verdict),
    HitFlag: st.sampled_from(HitFlag) | int64.map(HitFlag),
}
# A single keyword is split at its commas, several are not.
keywords = st.tuples(words.filter(lambda word: "," not in word)) | st.lists(
    texts, min_size=2, max_size=3
).map(tuple)
# Tags that no class has.
names = st.text("aZ9_-.新", max_size=3).map(lambda rest: f"New{rest}")
xml_extras = st.recursive(
    texts,
    lambda inner: (
        st.lists(
            inner.filter(lambda value: not isinstance(value, tuple)), min_size=2, max_size=3
        ).map(tuple)
        | st.dictionaries(names, st.none() | inner, min_size=1, max_size=2).map(ReadOnly)
    ),
    max_leaves=3,
)
json_extras = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2).map(ReadOnly)
    ),
    max_leaves=3,
)


@cache
def results(cls: Any, extras: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any result of a class with one to three attributes set; without any it would be null."""
    hints = get_type_hints(cls)
    strategies = {name: values(hints[name], extras) for name in hints if name not in DERIVED}
    if cls is not UserInfo:
        # White space around ids, labels and the like is not kept.
        strategies |= {
            name: words
            for name in strategies
            if get_origin(hints[name]) not in {tuple, Mapping}
            and SCALARS.get(optional(hints[name])) is texts
            and name not in {"text", "message"}
        }
    strategies["extra"] = st.dictionaries(names, extras, min_size=1, max_size=2).map(ReadOnly)
    if "scenes" in hints:
        strategies["scenes"] = st.dictionaries(
            st.sampled_from(SCENES), results(Scene, extras), min_size=1, max_size=2
        ).map(ReadOnly)
    must = {field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING}
    some = st.sets(st.sampled_from(sorted(strategies.keys() - must)), min_size=1, max_size=3)
    return some.flatmap(
        lambda chosen: st.builds(cls, **{name: strategies[name] for name in sorted(must | chosen)})
    )


def values(hint: Any, extras: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any value of an attribute, by its annotation."""
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        if kind is str:
            return keywords
        return st.lists(results(kind, extras), min_size=1, max_size=2).map(tuple)
    if get_origin(hint) is Mapping:
        return st.dictionaries(names, extras, min_size=1, max_size=2).map(ReadOnly)
    kind = optional(hint)
    return SCALARS[kind] if kind in SCALARS else results(kind, extras)


def optional(hint: Any) -> Any:
    """Return the type of an attribute when it is not None."""
    return next((kind for kind in get_args(hint) if kind is not NoneType), hint)


@st.composite
def jobs(draw: st.DrawFn, extras: st.SearchStrategy[Any]) -> AuditJob:
    """Any job, received at some time or at an unknown one."""
    job: AuditJob = draw(results(AuditJob, extras))
    received_at = draw(st.none() | moments)
    expires_at = received_at and received_at + timedelta(hours=2)
    return attrs.evolve(
        job,
        received_at=received_at,
        snapshots=tuple(attrs.evolve(one, url_expires_at=expires_at) for one in job.snapshots),
        audio_sections=tuple(
            attrs.evolve(one, url_expires_at=expires_at) for one in job.audio_sections
        ),
    )


def as_json(value: Any) -> Any:
    """Return a value as a Detail callback would send it."""
    if isinstance(value, Result):
        return dict(members(value))
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value


def members(result: Any) -> list[tuple[str, Any]]:
    """Return the tags and the values of a result's attributes."""
    hints = get_type_hints(type(result), include_extras=True)
    found: list[tuple[str, Any]] = []
    for field in attrs.fields(type(result)):
        value = getattr(result, field.name)
        if field.name not in DERIVED and value != field.default:
            tags = [mark for mark in get_args(hints[field.name]) if isinstance(mark, Tag)]
            tag = tags[0] if tags else Tag(wire_name(field.name))
            sent = as_json(value)
            found.append((tag.name, sent if tag.item is None else {tag.item: sent}))
    scenes: Mapping[str, Scene] = getattr(result, "scenes", {})
    found += [(f"{name}Info", as_json(scene)) for name, scene in scenes.items()]
    return found + [(name, as_json(value)) for name, value in result.extra.items()]


@slow
@given(jobs(xml_extras))
def test_xml_gives_the_job_back(job: AuditJob) -> None:
    """Rendering and decoding lose nothing, and the result hashes, pickles and becomes JSON."""
    again = decode.job(render.render(job), received_at=job.received_at)
    assert again == job
    assert hash(again) == hash(job)
    assert pickle.loads(pickle.dumps(again)) == job
    assert json.loads(json.dumps(again.to_dict())) == job.to_dict()


@contextlib.contextmanager
def in_slices(size: int) -> Iterator[list[None]]:
    """Treat all bodies as large and read them in slices of ``size`` bytes; yield the pauses."""
    pauses: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LARGE_BODY", -1)
        patch.setattr(documents, "SLICE", size)
        read = partial(decode.job, pause=lambda: pauses.append(None))
        patch.setattr(decode, "job", read)
        yield pauses


@slow
@given(jobs(xml_extras), st.integers(1, 300))
def test_a_large_body_reads_the_same_in_slices(job: AuditJob, size: int) -> None:
    """The result is the same wherever a body is cut, and there is a pause after each slice."""
    body = render.render(job)
    with in_slices(size) as pauses:
        assert decode.job(body, received_at=job.received_at) == job
    assert len(pauses) >= (body.rfind(b"</JobsDetail>") - body.find(b"<JobsDetail>")) / size


SNIPPETS = [
    *(b"<JobsDetail>", b"</JobsDetail>", b"<!-- ", b" -->", b"<![CDATA[", b"]]>", b"&lt;", b"<a>"),
    *(b"</a>", b"<Snapshot>", b"</Snapshot>", b"<Snapshot/>", b"</Response>", b"\x00", b"\xff"),
    *(b"<Response>", b"text", b"<!DOCTYPE r [<!ENTITY e 'x'>]>", b"<?xml version='1.0'?>"),
    *(b"<RequestId>r</RequestId>", b"<Result>x</Result>", b"<Error><Code>c</Code></Error>"),
]


def outcome(read: Callable[[], AuditJob]) -> tuple[object, ...]:
    """Return the result, or the kind and the text of the error."""
    try:
        return (read(),)
    except LiveAuditError as error:
        return type(error), str(error)


@given(jobs(xml_extras), st.data())
def test_a_damaged_body_reads_the_same_in_slices(job: AuditJob, data: st.DataObject) -> None:
    """A damaged body gives the same result or error whole and in slices."""
    body = render.render(job)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body)))
        until = place + data.draw(st.sampled_from([0, 0, 0, 1, 20]))
        body = body[:place] + data.draw(st.sampled_from(SNIPPETS)) + body[until:]
    whole = outcome(lambda: decode.job(body))
    with in_slices(data.draw(st.integers(1, 300))):
        assert outcome(lambda: decode.job(body)) == whole


@slow
@given(jobs(json_extras))
def test_json_gives_the_job_back(job: AuditJob) -> None:
    """The JSON of a callback gives the same job as the XML of a response."""
    body = json.dumps({"JobsDetail": as_json(job)}).encode()
    assert decode.job(body, received_at=job.received_at) == job


@slow
@given(jobs(xml_extras) | jobs(json_extras))
def test_plain_values_give_the_job_back(job: AuditJob) -> None:
    """What `to_dict` returned becomes the same job again, after a way through JSON."""
    again = decode.from_dict(json.loads(json.dumps(job.to_dict())))
    assert again == job
    assert again.to_dict() == job.to_dict()
    assert hash(again) == hash(job)


TAGS = st.sampled_from(
    [
        *(
            "Response",
            "JobsDetail",
            "RequestId",
            "JobId",
            "State",
            "Label",
            "Result",
            "Error",
            "Code",
        ),
        *("CreationTime", "CosHeaders", "Snapshot", "AudioSection", "UserInfo", "MaskInfo", "New"),
        *("ListInfo", "ListResults", "PornInfo", "NewInfo", "Info", "HitFlag", "OcrResults", "X"),
        *("Location", "HitInfos", "Keyword", "Keywords", "RecordInfo", "OcrHitInfos", "Positions"),
    ]
)
SPELLINGS = ["1", " ", "-1.5", "1e999", "nan", "2021-08-07T12:12:12+0800", "a,b", ",", "9" * 5000]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(SPELLINGS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TAGS | st.just("#text"), inner, max_size=4)
    ),
    max_leaves=12,
)


finite = json_values.map(lambda value: json.loads(json.dumps(value), parse_constant=str))


def places(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the place of every value in a tree but the two that a job cannot be without."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        if at or name not in {"JobId", "State"}:
            yield (*at, name)
            if isinstance(value, dict | list):
                yield from places(value, (*at, name))


def replaced(node: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a tree with another value in a place."""
    if not place:
        return value
    copy = node.copy()
    copy[place[0]] = replaced(node[place[0]], place[1:], value)
    return copy


def has_scenes(values: Mapping[str, Any]) -> bool:
    return all(isinstance(value, Scene) for value in values.values())


def differences(one: Any, other: Any) -> int:
    """Count the attributes that differ; ``extra`` holds what cannot be read."""
    if all(isinstance(scenes, ReadOnly) and has_scenes(scenes) for scenes in (one, other)):
        return sum(differences(one.get(name), other.get(name)) for name in one.keys() | other)
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return sum(map(differences, one, other))
    if not isinstance(one, Result) or type(one) is not type(other):
        return int(one != other)
    names = attrs.fields_dict(type(one)).keys() - {"extra", "unreadable", "keywords_raw"}  # type: ignore[arg-type]
    return sum(differences(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.timeout(900)
@settings(slow, max_examples=10_000 if IN_FULL else 200)
@given(jobs(json_extras), st.lists(st.integers(0, 10**6), max_size=5), st.data())
def test_an_odd_value_costs_no_other(job: AuditJob, chosen: list[int], data: st.DataObject) -> None:
    """Up to five values replaced by anything leave all others as they are."""
    damaged = without = as_json(job)
    for number in chosen:
        # A value within one that has been replaced may be gone.
        open_places = sorted(set(places(damaged)) & set(places(without)), key=str)
        if open_places:
            place = open_places[number % len(open_places)]
            damaged = replaced(damaged, place, data.draw(finite))
            without = replaced(without, place, None)
    found = decode.job(json.dumps({"JobsDetail": damaged}).encode())
    expected = decode.job(json.dumps({"JobsDetail": without}).encode())
    assert differences(found, expected) <= len(chosen)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert pickle.loads(pickle.dumps(found)) == found


# Halves of characters, controls, references: what makes a document not well-formed.
debris = st.binary(min_size=1, max_size=1) | st.sampled_from(
    [b"\0", b"\x1f", b"\xe9", b"\xbb", b"\xed\xa0\xbd", b"&#0;", b"&#xD83D;", b"&#xDE00;", b"&#x"]
)


@pytest.mark.timeout(900)
@settings(slow, max_examples=10_000 if IN_FULL else 300)
@given(
    jobs(xml_extras), st.lists(st.tuples(st.integers(0, 10**6), debris), min_size=1, max_size=20)
)
def test_damaged_bytes_cost_no_other_text(job: AuditJob, damage: list[tuple[int, bytes]]) -> None:
    """Bytes replaced in texts leave all others as they are, unless it is no document at all."""
    body = bytearray(render.render(job))
    texts = [found.span(1) for found in re.finditer(rb">([^<>]*[^<>\s][^<>]*)<", body)]
    places = [place for span in texts for place in range(*span)]
    damaged: set[tuple[int, int]] = set()
    for number, put in damage:
        start = places[number % len(places)]
        span = next(span for span in texts if start < span[1])
        end = min(start + len(put), span[1])
        body[start:end] = put[: end - start]
        damaged.add(span)
    try:
        found = decode.job(bytes(body), received_at=job.received_at)
    except DecodeError:
        return
    assert differences(found, job) <= len(damaged)
    json.dumps(found.to_dict(), ensure_ascii=False).encode()


@given(results(SubmittedJob, xml_extras) | results(CancelledJob, xml_extras))
def test_the_other_results_come_back(result: SubmittedJob | CancelledJob) -> None:
    """Rendering and decoding a submission or a cancellation loses nothing."""
    read = decode.submitted if isinstance(result, SubmittedJob) else decode.cancelled
    assert read(render.render(result)) == result


# Bodies that need not be a job


def read_in_every_way(body: bytes) -> None:
    """Read a body as each result; any error but the library's fails the test."""
    for read in (decode.job, decode.submitted, decode.cancelled):
        with suppress(LiveAuditError):
            read(body)


@given(st.binary())
@example(b"")
@example(b"{")
@example(b"\xff\xfe<\x00")
def test_any_bytes_are_a_result_or_an_error(body: bytes) -> None:
    """Any bytes are a result or an error of the library."""
    read_in_every_way(body)


edits = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 12), st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(SAMPLES), edits)
def test_any_damage_gives_a_result_or_an_error(
    body: bytes, damage: list[tuple[int, int, bytes]]
) -> None:
    """A valid document with bytes removed, changed or inserted is a result or an error."""
    for position, cut, put in damage:
        start = position % len(body)
        body = body[:start] + put + body[start + cut :]
    read_in_every_way(body)


elements: st.SearchStrategy[str] = st.recursive(
    st.sampled_from(SPELLINGS) | texts.map(lambda text: f"<![CDATA[{text.replace(']', '')}]]>"),
    lambda inner: st.lists(st.tuples(TAGS, inner), max_size=4).map(
        lambda nodes: "".join(f"<{tag}>{inside}</{tag}>" for tag, inside in nodes)
    ),
    max_leaves=12,
)


@slow
@given(elements, elements)
def test_any_elements_are_a_result_or_an_error(inside: str, around: str) -> None:
    """The service's own elements, in any place and number, are a result or an error."""
    must = "<JobId>j</JobId><State>x</State>"
    details = f"<JobsDetail>{must}{inside}</JobsDetail>"
    read_in_every_way(f"<Response>{details}{around}</Response>".encode())


@slow
@given(json_values)
def test_any_json_is_a_result_or_an_error(value: Any) -> None:
    """Any JSON value, alone or as the details of a job, is a result or an error."""
    read_in_every_way(json.dumps(value).encode())
    more = value if isinstance(value, dict) else {"Snapshot": value}
    read_in_every_way(json.dumps({"JobsDetail": {"JobId": "j", "State": "x", **more}}).encode())


headers = st.fixed_dictionaries(
    {},
    optional={
        "retry-after": st.text() | st.floats().map(str),
        "date": st.text() | st.just("Thu, 15 Jun 2017 12:37:29 GMT"),
        "location": st.text(),
        "x-ci-request-id": st.text(),
        "x-cos-trace-id": st.text(),
    },
)


@slow
@given(st.integers(), headers, st.binary() | st.sampled_from(SAMPLES) | elements.map(str.encode))
def test_any_refusal_is_an_error(status: int, headers: dict[str, str], body: bytes) -> None:
    """Any status with any headers and any body gives an error that can be shown and pickled."""
    error = decode.error(status, headers, body)
    assert isinstance(error, ServiceError)
    assert error.retry_after is None or error.retry_after >= 0
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
