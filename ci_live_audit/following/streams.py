"""`Stream`, what is submitted for moderation; and what a checkpoint knows of streams. Pure."""

from __future__ import annotations

import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Collection,
    Iterable,
    Mapping,
)
from hashlib import sha256
from typing import Any, TypeAlias, TypedDict, Unpack

import attrs

from ci_live_audit._checks import above_zero, seconds
from ci_live_audit.errors import InvalidInput
from ci_live_audit.models import UserInfo
from ci_live_audit.wire import requests

__all__ = ["Records", "Stream", "Streams", "SubmitOptions", "Terms", "reader", "stream_of"]


class SubmitOptions(TypedDict, total=False):
    """The options of a submission; see `LiveAuditClient.submit`."""

    biz_type: str | None
    data_id: str | None
    user_info: UserInfo | None
    callback: str | None
    callback_type: int | None
    storage_path: str | None
    extra: Mapping[str, Any] | None


def _without_secrets(url: object) -> str:
    """Return a URL without what may sign it or log in, for people."""
    if not isinstance(url, str):
        return f"<{type(url).__name__}>"
    return re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])


@attrs.frozen
class Stream:
    """A live stream to be moderated, with the options of its submission.

    It is known by its URL, ``data_id`` and ``biz_type``. If it has a ``data_id``, what follows the
    ``?`` in its URL does not count, as many a URL is signed anew each time.

    Attributes:
        url: Its address; what may be secret in it is not in the ``repr``.
        biz_type, data_id, user_info, callback, callback_type, storage_path, extra: See
            `LiveAuditClient.submit`; where one is None, that of the run is used.
    """

    url: str = attrs.field(repr=_without_secrets)
    data_id: str | None = attrs.field(default=None, kw_only=True)
    biz_type: str | None = attrs.field(default=None, kw_only=True)
    user_info: UserInfo | None = attrs.field(default=None, kw_only=True, repr=False, hash=False)
    callback: str | None = attrs.field(default=None, kw_only=True, repr=False)
    callback_type: int | None = attrs.field(default=None, kw_only=True, repr=False)
    storage_path: str | None = attrs.field(default=None, kw_only=True, repr=False)
    extra: Mapping[str, Any] | None = attrs.field(
        default=None, kw_only=True, repr=False, hash=False
    )

    @property
    def key(self) -> str:
        """A text by which it is known, in any process; it tells nothing of the URL."""
        url = str(self.url) if self.data_id is None else str(self.url).partition("?")[0]
        text = repr((url, self.data_id, self.biz_type))
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def __str__(self) -> str:
        """Return its data id, or its URL without what may be secret."""
        return self.data_id or _without_secrets(self.url)

    def to_dict(self) -> dict[str, Any]:
        """Return its URL and data id, ready for ``json.dumps``."""
        return {"url": self.url, "data_id": self.data_id}

    def request(self, **defaults: Unpack[SubmitOptions]) -> requests.Request:
        """Return the request that submits it.

        Raises:
            InvalidInput: Something of it cannot be used.
        """
        own = {name: getattr(self, name) for name in SubmitOptions.__annotations__}
        given = {name: value for name, value in own.items() if value is not None}
        options: dict[str, Any] = {**defaults, **given}
        return requests.submit(self.url, **options)


@attrs.frozen
class Terms:
    """How streams are moderated.

    Attributes:
        at_once: Number of streams that run at the same time, at most.
        cancels: Whether what runs in the end is cancelled.
        within: Seconds that this may take.
        options: Of the submission of streams that have none of their own.

    Raises:
        InvalidInput: One of them cannot be used.
    """

    at_once: int
    cancels: bool
    within: float
    options: SubmitOptions

    def __attrs_post_init__(self) -> None:
        above_zero("at_once", self.at_once, "streams", whole=True, error=InvalidInput)
        seconds("cancel_within", self.within)
        Stream("rtmp://example.com").request(**self.options)  # a bad one would be that of all


#: Where URLs and streams come from.
Streams: TypeAlias = "Iterable[str | Stream] | AsyncIterable[str | Stream]"


def reader(urls: Streams) -> AsyncIterator[str | Stream]:
    """Return what reads a source, one element at a time; a collection is copied.

    Raises:
        InvalidInput: It is no source.
    """
    if isinstance(urls, str | bytes) or not isinstance(urls, Iterable | AsyncIterable):
        raise InvalidInput(
            "urls: expected a list of URLs, an iterable or an async iterable; "
            f"got {type(urls).__name__}"
        )
    if isinstance(urls, AsyncIterable):
        return aiter(urls)
    return _read(tuple(urls) if isinstance(urls, Collection) else urls)


async def _read(urls: Iterable[str | Stream]) -> AsyncGenerator[str | Stream, None]:
    for element in urls:
        yield element


def stream_of(element: object) -> Stream:
    """Return what a source of URLs and streams has given as a stream.

    Raises:
        InvalidInput: It is neither.
    """
    if isinstance(element, Stream):
        return element
    if isinstance(element, str):
        return Stream(str.__str__(element))
    raise InvalidInput(f"urls: expected URLs and Streams; got {type(element).__name__}")


@attrs.frozen
class Records:
    """What a checkpoint says of streams, by their keys.

    Attributes:
        open: Streams that were about to be submitted and are not over, as far as they can be told
            without secrets, each with the id of its job, or an empty text if that is not known.
        over: The keys of streams whose job has ended.
    """

    open: dict[str, tuple[Stream, str]] = attrs.Factory(dict[str, tuple[Stream, str]])
    over: set[str] = attrs.Factory(set[str])

    def note(self, entry: Mapping[str, Any]) -> None:
        """Do what an entry says of a stream, if it does."""
        match entry:
            case {"submitting": str(key), "url": str(url)}:
                data_id = entry.get("data_id")
                known = data_id if isinstance(data_id, str) else None
                self.open[key] = Stream(url, data_id=known), ""
                self.over.discard(key)
            case {"stream": str(key), "taken": str(job_id)} if key in self.open:
                self.open[key] = self.open[key][0], job_id
            case {"released": str(key)}:
                self.open.pop(key, None)
            case {"answered": str(job_id)}:
                named = entry.get("stream")
                for key, (_, own) in tuple(self.open.items()):
                    if own == job_id or (not own and key == named):
                        del self.open[key]
                        self.over.add(key)
            case _:
                pass

    @staticmethod
    def submitting(key: str, stream: Stream) -> dict[str, Any]:
        """Return the entry for a stream that is about to be submitted."""
        url = _without_secrets(stream.url)
        return {"submitting": key, "url": url, "data_id": stream.data_id}
