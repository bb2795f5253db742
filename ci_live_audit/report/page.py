"""Jobs → one HTML page. Pure: the same jobs make the same page.

The page is the whole program: its style and its script are in it and named by their digests in a
policy that lets nothing else run, and of others it loads pictures and sounds only.
https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/CSP
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import attrs

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import AuditJob
from ci_live_audit.report import texts
from ci_live_audit.report.items import Item
from ci_live_audit.report.streams import Stream, stream

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["render"]

#: Items of a stream that are shown at once.
PORTION = 24
#: Items and streams that are in the page as they are. The others are packed, as a page of 20,000
#: would take a browser ten seconds to open; so many of either are unpacked together.
INLINE, TOGETHER = (480, 60), (48, 12)
#: Scenes that can be chosen.
SCENES = 60


@attrs.define
class _Section:
    """A stream, its HTML with the first portion of its items, and the other portions.

    ``group`` is the number of the group that it is packed in, or None.
    """

    stream: Stream
    html: bytes
    packed: list[bytes]
    group: int | None = None
    scenes: list[list[int]] = attrs.field(factory=list[list[int]])

    @property
    def size(self) -> int:
        """The number of items in its HTML."""
        return min(PORTION, len(self.stream.listed))


def render(
    jobs: Iterable[AuditJob | Outcome],
    *,
    title: str = "Live stream moderation",
    now: datetime | None = None,
) -> str:
    """Return a report as one HTML page.

    Nothing is fetched. The URLs of pictures and sounds work for two hours after the query, so the
    page shows them for that long.

    Args:
        jobs: Jobs, or outcomes, which say why there is no job. They are taken one by one, and of
            each only what the page shows is kept.
        title: Title of the page.
        now: When it is made, to say so; URLs that have expired by then are left out.

    Raises:
        ConfigurationError: Jinja2 is missing: ``pip install "ci-live-audit[report]"``.
    """
    templates = _templates()
    sections = [_section(templates, number, job, now) for number, job in enumerate(jobs, 1)]
    sections.sort(key=lambda one: one.stream.order)
    inline, groups = _grouped(sections)
    told = Counter((one.stream.judgement.rank, one.stream.judgement.word) for one in sections)
    queried = [one.stream.as_of for one in sections if one.stream.as_of is not None]
    scenes = _number_scenes(sections)
    return templates.get_template("page.html").render(
        title=title,
        now=now,
        as_of=max(queried, default=None),
        sections=sections,
        inline=inline,
        told=[
            (rank.name.lower(), word, number)
            for (rank, word), number in sorted(told.items(), reverse=True)
        ],
        scenes=scenes,
        data={
            "streams": [_data(one) for one in sections],
            "groups": [_packed(group) for group in groups],
            "scenes": scenes,
            "portion": PORTION,
        },
        style=_asset("report.css"),
        script=_asset("report.js"),
    )


def _section(
    templates: Environment, number: int, job: AuditJob | Outcome, now: datetime | None
) -> _Section:
    found, cards = stream(number, job)
    known = {"stream": found, "portion": PORTION, "now": now}
    template = templates.get_template("cards.html")
    html = templates.get_template("stream.html").render(known, cards=cards[:PORTION], begin=0)
    packed = [
        zlib.compress(
            template.render(known, cards=cards[begin : begin + PORTION], begin=begin).encode()
        )
        for begin in range(PORTION, len(cards), PORTION)
    ]
    return _Section(found, zlib.compress(html.encode()), packed)


def _grouped(sections: Iterable[_Section]) -> tuple[list[Markup], list[list[_Section]]]:
    """Return the HTML of the first sections, and the others in groups."""
    from markupsafe import Markup  # noqa: PLC0415 - comes with the extra

    inline: list[Markup] = []
    groups: list[list[_Section]] = []
    items, streams = INLINE
    for section in sections:
        items, streams = items - section.size, streams - 1
        if min(items, streams) < 0:
            items, streams = TOGETHER[0] - section.size, TOGETHER[1] - 1
            groups.append([])
        if groups:
            section.group = len(groups) - 1
            groups[-1].append(section)
        else:
            inline.append(Markup(zlib.decompress(section.html).decode()))  # noqa: S704
    return inline, groups


def _packed(group: Iterable[_Section]) -> str:
    return _text(zlib.compress(b"".join(zlib.decompress(section.html) for section in group)))


def _text(packed: bytes) -> str:
    return b64encode(packed).decode()


def _number_scenes(sections: Iterable[_Section]) -> list[str]:
    """Return the names of the scenes that were hit most, and number them in each section."""
    sections = list(sections)
    hits = (hit.name for one in sections for item in one.stream.listed for hit in item.hits)
    names = [name for name, _ in Counter(hits).most_common(SCENES)]
    numbers = {name: number for number, name in enumerate(names)}
    for section in sections:
        section.scenes = [
            [numbers[hit.name] for hit in item.hits if hit.name in numbers]
            for item in section.stream.listed
        ]
    return names


def _data(section: _Section) -> dict[str, Any]:
    """Return what the script knows of a stream."""
    found = section.stream
    in_time = sorted(
        range(len(found.listed)),
        key=lambda place: (found.listed[place].time is None, found.listed[place].time or 0, place),
    )
    order = {place: number for number, place in enumerate(in_time)}
    return {
        "id": found.number,
        "job": found.job_id,
        "name": texts.visible(found.name),
        "group": section.group,
        "packed": [_text(one) for one in section.packed],
        "items": [
            [*_facts(item), section.scenes[place], order[place]]
            for place, item in enumerate(found.listed)
        ],
    }


def _facts(item: Item) -> Iterator[Any]:
    yield from (item.key, item.kind, int(item.judgement.rank), item.judgement.word)
    yield item.score
    yield item.label
    yield item.time
    yield item.at and texts.iso(item.at)


@cache
def _templates() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError(
            'the report needs jinja2: pip install "ci-live-audit[report]"'
        ) from None
    environment = Environment(
        autoescape=True,  # of everything, whatever a template is called
        finalize=_shown,
        loader=PackageLoader("ci_live_audit.report"),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "iso": texts.iso,
        "offset": texts.offset,
        "span": texts.span,
        "clock": texts.clock,
        "day": texts.day,
    }
    return environment


def _shown(value: Any) -> Any:
    """Return what a template puts into the page: a text with all its characters to be seen."""
    return texts.visible(value) if type(value) is str else value


@cache
def _asset(name: str) -> tuple[Markup, str]:
    """Return a style sheet or a script, and its digest for the policy."""
    from markupsafe import Markup  # noqa: PLC0415 - comes with the extra

    text = files("ci_live_audit.report").joinpath("templates", name).read_text("utf-8")
    return Markup(text), b64encode(sha256(text.encode()).digest()).decode()  # noqa: S704
