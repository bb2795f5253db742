"""Results of the service as frozen, typed values.

Attributes have the service's own names (``HitFlag`` is ``hit_flag``). A value that was not sent is
None, a list that was not sent is an empty tuple, and a node that no document of the service names
is kept in the nearest ``extra``: a mapping of tags to texts, mappings and tuples.
A value that its attribute cannot hold is None (or left out of the tuple) and kept in ``extra``
too; ``unreadable`` of the job or the other result holds the paths of such values, the first
10,000, as ``JobsDetail.Snapshot[1].PornInfo.Score``.
``keywords_raw`` is the text as sent where several keywords came as one, joined by commas; a keyword
may contain a comma itself. A ``score`` is from 0 to 100.

Sources: https://www.tencentcloud.com/document/product/1045/49342 (query),
https://www.tencentcloud.com/document/product/1045/49341 (cancel),
https://www.tencentcloud.com/document/product/1045/49340 (submit).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum, StrEnum
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

import attrs

__all__ = [
    "AudioSection",
    "AuditJob",
    "CancelledJob",
    "HitFlag",
    "HitInfo",
    "JobState",
    "LibResult",
    "ListResult",
    "Location",
    "MaskInfo",
    "MaskLiveInfo",
    "MaskOutput",
    "MaskRecordInfo",
    "ObjectResult",
    "OcrHitInfo",
    "OcrResult",
    "Position",
    "ReadOnly",
    "Result",
    "Scene",
    "Snapshot",
    "SubmittedJob",
    "TimedLabel",
    "UserInfo",
    "Verdict",
]

V_co = TypeVar("V_co", covariant=True)


class ReadOnly(Mapping[str, V_co]):
    """An immutable mapping that can be pickled."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V_co] | None = None) -> None:
        self._items: dict[str, V_co] = dict(items or {})

    def __getitem__(self, key: str) -> V_co:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


EMPTY: ReadOnly[Any] = ReadOnly()


class JobState(StrEnum):
    """The state of a job; an unknown word of the service stays readable as ``.value``.

    Compare with ``==``: a word that is not listed here makes a new object each time.
    """

    SUBMITTED = "Submitted"
    SNAPSHOTING = "Snapshoting"
    AUDITING = "Auditing"
    SUCCESS = "Success"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @classmethod
    def _missing_(cls, value: object) -> JobState | None:
        if not isinstance(value, str):
            return None
        # No document spells the cancelled state; media jobs of the same service say "Cancel".
        if value.casefold() in {"cancel", "canceled", "cancelled"}:
            return cls.CANCELLED
        listed = (state for state in cls if state.value.casefold() == value.casefold())
        return next(listed, None) or _unlisted(str.__new__(cls, value), value)


class _Judgement(IntEnum):
    """A judgement of the service as a number, of which 1 is the worst; others may be added."""

    @classmethod
    def _missing_(cls, value: object) -> Any:
        return _unlisted(int.__new__(cls, value), value) if isinstance(value, int) else None

    @property
    def severity(self) -> int:
        """Severity for comparisons: 0 normal or unknown, 1 suspected, 2 sensitive or hit."""
        return {1: 2, 2: 1}.get(self.value, 0)


class Verdict(_Judgement):
    """The service's judgement; an unknown number stays readable as ``.value``."""

    NORMAL = 0
    SENSITIVE = 1
    SUSPECTED = 2


class HitFlag(_Judgement):
    """Whether a scene was hit; an unknown number stays readable as ``.value``."""

    MISS = 0
    HIT = 1
    SUSPECTED = 2


def _unlisted(member: Any, value: object) -> Any:
    member._name_ = "UNLISTED"
    member._value_ = value
    return member


@attrs.frozen
class Tag:
    """The tag of an attribute where it is not the attribute's name in CamelCase.

    ``also`` is another spelling of it; ``item`` is the tag inside, if it contains a list.
    """

    name: str
    also: str | None = None
    item: str | None = None


def wire_name(attribute: str) -> str:
    """Return the tag of an attribute: ``HitFlag`` for ``hit_flag``."""
    return "".join(word.capitalize() for word in attribute.split("_"))


@cache
def tags(cls: Any) -> Mapping[str, Tag]:
    """Return the tag of every attribute of a result class that has a node of its own."""
    derived = {"scenes", "extra", "keywords_raw", "url_expires_at", "received_at", "unreadable"}
    return {
        name: getattr(hint, "__metadata__", [Tag(wire_name(name))])[0]
        for name, hint in get_type_hints(cls, include_extras=True).items()
        if name not in derived
    }


class Result:
    """The base of all result classes."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, ready for ``json.dumps``.

        Keys are the names of the attributes; times become ISO 8601 texts, enums their values. Texts
        are as sent, control characters included: who shows them escapes them, as ``json.dumps``
        does unless it is given ``ensure_ascii=False``.
        """
        names = attrs.fields_dict(type(self))  # type: ignore[arg-type]
        return {name: plain(getattr(self, name)) for name in names}


def plain(value: Any) -> Any:
    """Return a value, with all results in it, as plain values ready for ``json.dumps``."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, tuple):
        return [plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value


@attrs.frozen(kw_only=True)
class Location(Result):
    """A rectangle in a snapshot.

    ``x`` and ``y`` are pixels from the top left corner, ``width`` and ``height`` are pixels,
    ``rotate`` is degrees from 0 to 360.
    """

    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    rotate: float | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class OcrResult(Result):
    """A text that was read in a snapshot, and the keywords that it hit."""

    text: str | None = None
    keywords: tuple[str, ...] = ()
    keywords_raw: str | None = None
    sub_label: str | None = None
    location: Location | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class ObjectResult(Result):
    """An object or a person recognized in a snapshot."""

    name: str | None = None
    sub_label: str | None = None
    keywords: tuple[str, ...] = ()
    keywords_raw: str | None = None
    location: Location | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class LibResult(Result):
    """A hit in a risk library: of an image (``image_id``, ``score``) or of words (the others).

    ``lib_type`` is 1 for a preset library, 2 for a custom one.
    """

    image_id: str | None = None
    score: int | None = None
    lib_type: int | None = None
    lib_name: str | None = None
    keywords: tuple[str, ...] = ()
    keywords_raw: str | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class TimedLabel(Result):
    """A label of a stretch of sound: a language, a speaker or a recognized sound.

    ``start_time`` and ``end_time`` are milliseconds within the section.
    """

    label: str | None = None
    score: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class Position(Result):
    """The position of a keyword in a text, in characters."""

    start: int | None = None
    end: int | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class HitInfo(Result):
    """A hit of keywords in a text."""

    type: str | None = None
    keywords: Annotated[tuple[str, ...], Tag("Keywords", also="Keyword")] = ()
    keywords_raw: str | None = None
    lib_name: Annotated[str | None, Tag("LibName", also="Libname")] = None
    positions: tuple[Position, ...] = ()
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class OcrHitInfo(Result):
    """A text read in a picture, and the hits in it."""

    text: str | None = None
    hit_infos: tuple[HitInfo, ...] = ()
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class Scene(Result):
    """The result for one kind of content (``PornInfo``, ``AdsInfo``, …).

    On a job, ``count`` is the number of snapshots with a hit; on a snapshot or a section,
    ``score`` is the confidence.
    """

    hit_flag: HitFlag | None = None
    count: int | None = None
    score: int | None = None
    label: str | None = None
    sub_label: str | None = None
    category: str | None = None
    code: str | None = None
    message: Annotated[str | None, Tag("Msg")] = None
    keywords: tuple[str, ...] = ()
    keywords_raw: str | None = None
    ocr_results: tuple[OcrResult, ...] = ()
    object_results: tuple[ObjectResult, ...] = ()
    lib_results: tuple[LibResult, ...] = ()
    speaker_results: tuple[TimedLabel, ...] = ()
    recognition_results: tuple[TimedLabel, ...] = ()
    hit_infos: tuple[HitInfo, ...] = ()
    extra: Mapping[str, Any] = EMPTY


class Scenes(Result):
    """The base of results with scenes, by their names: a job, a snapshot, an audio section."""

    __slots__ = ()
    scenes: Mapping[str, Scene]

    @property
    def porn(self) -> Scene | None:
        """``scenes.get("Porn")``."""
        return self.scenes.get("Porn")

    @property
    def ads(self) -> Scene | None:
        """``scenes.get("Ads")``."""
        return self.scenes.get("Ads")

    @property
    def hits(self) -> Mapping[str, Scene]:
        """The scenes that were hit or are suspected, by their names, the worst first.

        A hit comes before a suspicion, and among equals the higher score first.
        """
        hits = ((name, scene) for name, scene in self.scenes.items() if _severity(scene))
        return ReadOnly(dict(sorted(hits, key=_badness, reverse=True)))


def _severity(scene: Scene) -> int:
    return 0 if scene.hit_flag is None else scene.hit_flag.severity


def _badness(named: tuple[str, Scene]) -> tuple[int, int]:
    scene = named[1]
    return _severity(scene), -1 if scene.score is None else scene.score


# Milliseconds since 1970 that are a time from 1973 to 2286; others are no such number, but an
# offset in a recording, another unit, or an error.
MILLISECONDS = (10**11, 10**13)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _since_1970(milliseconds: int | None) -> datetime | None:
    if milliseconds is None or not MILLISECONDS[0] <= milliseconds < MILLISECONDS[1]:
        return None
    return EPOCH + timedelta(milliseconds=milliseconds)


@attrs.frozen(kw_only=True)
class Snapshot(Scenes):
    """A picture of the stream and what was found in it.

    ``snapshot_time`` is milliseconds, since 1970 for a live stream. ``text`` was read in it. The
    ``url`` works until ``url_expires_at`` (two hours after the query); query again for a new one.
    """

    url: str | None = None
    url_expires_at: datetime | None = None
    text: str | None = None
    label: str | None = None
    result: Verdict | None = None
    snapshot_time: int | None = None
    scenes: Mapping[str, Scene] = EMPTY
    ocr_hit_infos: tuple[OcrHitInfo, ...] = ()
    extra: Mapping[str, Any] = EMPTY

    @property
    def taken_at(self) -> datetime | None:
        """When it was taken; None if ``snapshot_time`` is not milliseconds since 1970."""
        return _since_1970(self.snapshot_time)


@attrs.frozen(kw_only=True)
class AudioSection(Scenes):
    """A stretch of sound of the stream and what was found in it.

    ``offset_time`` (since 1970 for a live stream) and ``duration`` are milliseconds. ``text`` was
    spoken in it. The ``url`` works as in `Snapshot`.
    """

    url: str | None = None
    url_expires_at: datetime | None = None
    text: str | None = None
    label: str | None = None
    sub_label: str | None = None
    result: Verdict | None = None
    offset_time: int | None = None
    duration: int | None = None
    scenes: Mapping[str, Scene] = EMPTY
    language_results: tuple[TimedLabel, ...] = ()
    extra: Mapping[str, Any] = EMPTY

    @property
    def began_at(self) -> datetime | None:
        """When it began; None if ``offset_time`` is not milliseconds since 1970."""
        return _since_1970(self.offset_time)


@attrs.frozen(kw_only=True)
class UserInfo(Result):
    """Fields of your own, given at submission and returned unchanged; 128 bytes each at most."""

    token_id: str | None = None
    nickname: str | None = None
    device_id: str | None = None
    app_id: str | None = None
    room: str | None = None
    ip: Annotated[str | None, Tag("IP")] = None
    type: str | None = None
    receive_token_id: str | None = None
    gender: str | None = None
    level: str | None = None
    role: str | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class ListResult(Result):
    """A hit in an account list; ``list_type`` is 0 for an allow list, 1 for a block list."""

    list_type: int | None = None
    list_name: str | None = None
    entity: str | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class MaskOutput(Result):
    """Where the masked recording was stored: a COS region, bucket and object key."""

    region: str | None = None
    bucket: str | None = None
    object: str | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class MaskRecordInfo(Result):
    """The outcome of masking the recording."""

    code: str | None = None
    message: str | None = None
    output: MaskOutput | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class MaskLiveInfo(Result):
    """The outcome of masking the live stream: times as sent, and the URL it was pushed to."""

    start_time: str | None = None
    end_time: str | None = None
    output: str | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class MaskInfo(Result):
    """The outcome of ``Conf.Mask`` of the submission."""

    record_info: MaskRecordInfo | None = None
    live_info: MaskLiveInfo | None = None
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class AuditJob(Scenes):
    """A live stream moderation job and what it has found so far.

    ``label`` and ``result`` are final only once ``ended``. ``code`` and ``message`` say why a job
    failed (otherwise the service may send "Success" in them). ``received_at`` is the time of the
    response by the service's clock as far as it is known; None if `decode.job` was not given it.
    """

    job_id: str
    state: JobState
    label: str | None = None
    sub_label: str | None = None
    result: Verdict | None = None
    data_id: str | None = None
    creation_time: datetime | None = None
    type: str | None = None
    url: str | None = None
    object: str | None = None
    code: str | None = None
    message: str | None = None
    snapshot_count: int | None = None
    forbid_state: int | None = None
    scenes: Mapping[str, Scene] = EMPTY
    snapshots: Annotated[tuple[Snapshot, ...], Tag("Snapshot")] = ()
    audio_sections: Annotated[tuple[AudioSection, ...], Tag("AudioSection")] = ()
    ocr_hit_infos: tuple[OcrHitInfo, ...] = ()
    user_info: UserInfo | None = None
    list_results: Annotated[tuple[ListResult, ...], Tag("ListInfo", item="ListResults")] = ()
    mask_info: MaskInfo | None = None
    bucket_id: str | None = None
    region: str | None = None
    cos_headers: Mapping[str, Any] = EMPTY
    request_id: str | None = None
    received_at: datetime | None = None
    unreadable: tuple[str, ...] = ()
    extra: Mapping[str, Any] = EMPTY

    @property
    def ended(self) -> bool:
        """Whether the job has reached a final state."""
        return self.state in ENDED


ENDED = frozenset({JobState.SUCCESS, JobState.FAILED, JobState.CANCELLED})


@attrs.frozen(kw_only=True)
class _Accepted(Result):
    """The response to a submission or a cancellation."""

    job_id: str
    data_id: str | None = None
    creation_time: datetime | None = None
    state: JobState | None = None
    request_id: str | None = None
    unreadable: tuple[str, ...] = ()
    extra: Mapping[str, Any] = EMPTY


@attrs.frozen(kw_only=True)
class SubmittedJob(_Accepted):
    """The result of ``submit``."""


@attrs.frozen(kw_only=True)
class CancelledJob(_Accepted):
    """The result of ``cancel``; the service guarantees nothing but the id."""
