"""Jobs for reports: ordinary ones, and one whose every text is what a test says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from html.parser import HTMLParser
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from ci_live_audit.models import (
    AudioSection,
    AuditJob,
    HitFlag,
    JobState,
    Location,
    ObjectResult,
    OcrResult,
    ReadOnly,
    Scene,
    Snapshot,
    Verdict,
)

__all__ = ["BEGIN", "HOSTILE", "Elements", "filled", "picture", "section", "stream_job"]

#: When the streams of the tests begin.
BEGIN = datetime(2026, 11, 27, 20, 31, 5, tzinfo=UTC)

#: Texts that would run, load, end or turn something if they were taken for more than texts.
HOSTILE = (
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    "</style></title></textarea></noscript></template><img src=x onerror='window.ran = 1'>",
    "<!--<script>",
    "-->]]>&lt;script&gt;&#60;b&#62;",
    '"\' onmouseover=window.ran=1 onfocus=window.ran=1 autofocus tabindex=0 x="',
    "` onclick=window.ran=1 `${window.ran = 1}`",
    "javascript:window.ran=1",
    " \tjava\nscript:window.ran=1",
    "JaVaScRiPt://example.com/%0awindow.ran=1",
    "data:text/html,<script>window.ran=1</script>",
    "vbscript:window.ran=1",
    'https://example.com/"onerror="window.ran=1',
    "https://example.com/' onerror='window.ran=1",
    "https://example.com\\@evil.example/",
    "//evil.example/x.js",
    "file:///etc/passwd",
    "blob:https://example.com/1",
    "{{ 7 * 7 }}{% raw %}{# #}",
    "__proto__",
    "constructor",
    "\x00nul\x00",
    "\x1b[31mred\x07\x9b",
    "abc\u202egnp.exe\u2066 \u200f\u061c",
    "zero\u200bwidth\ufeff\u2060",
    "half\ud83d and \udc00half",
    "\u2028line\u2029",
    "\ufffe\uffff",
    "x" * 30_000,
    "\u0e49" * 500,
    "<svg/onload=window.ran=1><math><mtext></p>",
    "<base href=https://evil.example/><meta http-equiv=refresh content=0;url=//evil.example>",
    "<form action=https://evil.example><input name=a><button>",
    "<plaintext>",
)


def filled(cls: Any, text: str) -> Any:
    """Return a result of a class with a text in every attribute that takes one."""
    hints = get_type_hints(cls)
    known = {field.name: _value(hints[field.name], text) for field in attrs.fields(cls)}
    return cls(**known)


def _value(hint: Any, text: str) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if get_origin(hint) is tuple:
        return (_value(kinds[0], text),)
    if get_origin(hint) is Mapping:
        value = filled(Scene, text) if kinds[-1] is Scene else (text, ReadOnly({text: text}))
        return ReadOnly({text: value})
    kind = kinds[0] if kinds else hint
    if kind is datetime:
        return BEGIN
    if kind is JobState:
        return JobState(text)
    if issubclass(kind, Enum):
        return kind(1)
    plain: dict[Any, Any] = {str: text, int: 50, float: 20.0}
    return plain[kind] if kind in plain else filled(kind, text)


def milliseconds(seconds: float) -> int:
    """Return the time so many seconds into a stream, as the service sends it."""
    return round((BEGIN.timestamp() + seconds) * 1000)


def picture(
    seconds: float,
    label: str = "Normal",
    *,
    score: int = 99,
    result: int | None = None,
    scene: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Snapshot:
    """Return a snapshot that was taken so many seconds into a stream."""
    result = (label != "Normal") if result is None else result
    scenes = ReadOnly({label: Scene(hit_flag=HitFlag(result), score=score, **(scene or {}))})
    known: dict[str, Any] = {"snapshot_time": milliseconds(seconds), **attributes}
    return Snapshot(
        label=label,
        result=Verdict(result),
        scenes=scenes if label != "Normal" else ReadOnly(),
        **known,
    )


def section(seconds: float, label: str = "Normal", **options: Any) -> AudioSection:
    """Return a section of three seconds that begins so many seconds into a stream."""
    of = picture(seconds, label, **options)
    return AudioSection(
        label=of.label,
        result=of.result,
        scenes=of.scenes,
        offset_time=of.snapshot_time,
        duration=3000,
        text=of.text,
        url=of.url,
        url_expires_at=of.url_expires_at,
    )


ADVERTISED: Mapping[str, Any] = {
    "sub_label": "QRCode",
    "ocr_results": (
        OcrResult(
            text="add wx8888",
            keywords=("wx8888",),
            location=Location(x=60, y=40, width=220, height=50),
        ),
    ),
    "object_results": (
        ObjectResult(
            name="QR code", location=Location(x=400, y=120, width=120, height=120, rotate=15)
        ),
    ),
}


def stream_job(
    job_id: str = "av1", base: str = "https://pictures.example.com", **attributes: Any
) -> AuditJob:
    """Return a job of ten minutes with two sensitive pictures, a suspected one, and a section."""
    expires_at = attributes.pop("expires_at", BEGIN + timedelta(hours=2))
    snapshots: list[Snapshot] = []
    for number in range(60):
        link = {"url": f"{base}/{job_id}/{number}.svg?q=1&s=2", "url_expires_at": expires_at}
        found: dict[str, Any] = {
            20: {"label": "Porn", "score": 91, "scene": {"sub_label": "SexBehavior"}},
            40: {"label": "Porn", "score": 98},
            50: {
                "label": "Ads",
                "score": 70,
                "result": 2,
                "text": "Add WX8888 now",
                "scene": ADVERTISED,
            },
        }.get(number, {})
        snapshots.append(picture(10 * number, **found, **link))
    sounds = (
        section(100),
        section(
            200,
            "Ads",
            score=60,
            result=2,
            text="buy now",
            url=f"{base}/{job_id}/a.wav",
            url_expires_at=expires_at,
        ),
    )
    known: dict[str, Any] = {
        "state": JobState.SUCCESS,
        "label": "Porn",
        "result": Verdict.SENSITIVE,
        "snapshots": tuple(snapshots),
        "audio_sections": sounds,
        "received_at": BEGIN + timedelta(minutes=10),
        **attributes,
    }
    return AuditJob(job_id=job_id, **known)


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        if self._inside not in {"script", "style"}:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        """Note the end of a script."""
        self._inside = ""

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements of a kind."""
        return [
            found
            for name, found in self.found
            if name == tag and wanted.items() <= {k: v or "" for k, v in found.items()}.items()
        ]
