"""All that a page shows of an item that a person should look at. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice

import attrs

from ci_live_audit.models import (
    AudioSection,
    Location,
    ObjectResult,
    OcrResult,
    Scene,
    Snapshot,
    TimedLabel,
)
from ci_live_audit.report import texts
from ci_live_audit.report.items import FEW, Found, Item
from ci_live_audit.report.texts import LONG, Part, clipped

__all__ = ["Card", "card", "keywords"]


@attrs.frozen(kw_only=True)
class Frame:
    """A rectangle over a picture; ``turn`` is in degrees as SVG turns, clockwise."""

    x: float
    y: float
    width: float
    height: float
    turn: float


@attrs.frozen(kw_only=True)
class Detection:
    """A text or an object found in a picture, and its frame if its place is known."""

    number: int
    text: tuple[Part, ...]
    words: tuple[str, ...]
    frame: Frame | None


@attrs.frozen(kw_only=True)
class Card:
    """An item with its texts.

    Attributes:
        url: Only if it is one of the web; otherwise ``address`` is its text.
        words: The sub label of a section.
        keywords: Those that are not in its text.
        libraries: Hits of libraries of samples and words.
        sounds: Languages, speakers and recognized sounds.
    """

    item: Item
    url: str | None
    address: str
    expires_at: datetime | None
    words: tuple[str, ...]
    text: tuple[Part, ...]
    keywords: tuple[str, ...]
    detections: tuple[Detection, ...]
    libraries: tuple[str, ...]
    sounds: tuple[str, ...]
    extra: str


def card(item: Item, found: Found) -> Card:
    """Return the card of an item."""
    hits = dict(islice(found.hits.items(), FEW))
    url = texts.web_url(found.url)
    words = keywords(found, hits)
    text = texts.marked(clipped(found.text, LONG), words)
    seen = {part.text.casefold() for part in text if part.marked}
    section = found if isinstance(found, AudioSection) else AudioSection()
    return Card(
        item=item,
        url=url,
        address=clipped(found.url, LONG) if url is None else "",
        expires_at=found.url_expires_at,
        words=_words(section.sub_label),
        text=text,
        keywords=tuple(clipped(word) for word in words if word.casefold() not in seen),
        detections=tuple(_detections(found)),
        libraries=tuple(_libraries(hits)),
        sounds=tuple(_sounds(section.language_results, hits)),
        extra=texts.values(found.extra) if found.extra else "",
    )


def _words(*words: str | None) -> tuple[str, ...]:
    """Return texts once each, without those that are missing."""
    return tuple(dict.fromkeys(clipped(word) for word in words if word))


def keywords(found: Found, hits: Mapping[str, Scene]) -> list[str]:
    """Return the keywords of the scenes that were hit, once each."""
    words: list[str] = []
    for scene in hits.values():
        words += scene.keywords
        words += (word for one in scene.ocr_results for word in one.keywords)
        words += (word for one in scene.lib_results for word in one.keywords)
        words += (word for one in scene.hit_infos for word in one.keywords)
    if isinstance(found, Snapshot):
        words += (
            word for one in found.ocr_hit_infos for hit in one.hit_infos for word in hit.keywords
        )
    return [*islice(dict.fromkeys(words), FEW)]


def _detections(found: Found) -> Iterator[Detection]:
    number = 0
    for name, scene in islice(found.scenes.items(), FEW):
        several: list[OcrResult | ObjectResult] = [*islice(scene.ocr_results, FEW)]
        several += islice(scene.object_results, FEW)
        for one in several:
            number += 1
            text = one.text if isinstance(one, OcrResult) else one.name
            yield Detection(
                number=number,
                text=texts.marked(clipped(text, LONG), one.keywords),
                words=_words(name, one.sub_label),
                frame=_frame(one.location),
            )


def _frame(place: Location | None) -> Frame | None:
    """Return a frame; None if the place is incomplete.

    The service turns it counterclockwise, about its upper left corner.
    """
    if place is None or place.x is None or place.y is None:
        return None
    width, height = place.width or 0, place.height or 0
    if width <= 0 or height <= 0:
        return None
    turn = -(place.rotate or 0) % 360
    return Frame(x=place.x, y=place.y, width=width, height=height, turn=turn)


def _libraries(hits: Mapping[str, Scene]) -> Iterator[str]:
    for scene in hits.values():
        for one in scene.lib_results[:FEW]:
            words = [one.lib_name, one.image_id and f"image {one.image_id}", *one.keywords]
            kind = {1: "preset", 2: "custom"}.get(one.lib_type or 0)
            score = None if one.score is None else f"score {one.score}"
            yield clipped(", ".join(filter(None, [*words, kind, score])))
        for hit in scene.hit_infos[:FEW]:
            yield clipped(", ".join(filter(None, [hit.type, hit.lib_name, *hit.keywords])))


def _sounds(languages: Iterable[TimedLabel], hits: Mapping[str, Scene]) -> Iterator[str]:
    """Yield the languages, the speakers and the recognized sounds of a section."""
    found = [*languages]
    for scene in hits.values():
        found += [*scene.speaker_results, *scene.recognition_results]
    for one in found[:FEW]:
        span = [texts.offset(time) for time in (one.start_time, one.end_time) if time is not None]
        score = "" if one.score is None else f"{one.score}"
        yield clipped(" ".join(filter(None, [one.label, score, "\u2013".join(span)])))
