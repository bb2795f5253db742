"""Items of lists, found by their tags and left out of a body."""

from __future__ import annotations

from array import array
from collections import Counter

import pytest

from ci_live_audit import decode
from ci_live_audit.wire import items, results

NOTHING = array("q")
LEFT_OUT = f"<Snapshot>{items.MARK}</Snapshot>"


def item(number: int, signature: int = 0, tag: str = "Snapshot", text: str = "") -> str:
    """Return an item with a signed URL."""
    name = "SnapshotTime" if tag == "Snapshot" else "OffsetTime"
    url = f"<Url>https://example.com/{number}.jpg?q-signature={signature}</Url>"
    return f"<{tag}>{url}<{name}>{number}</{name}><Text>{text}</Text></{tag}>"


def response(*shown: str, state: str = "Auditing", head: str = "") -> bytes:
    """Return the response to a query."""
    job = f"<JobId>j</JobId><State>{state}</State>{''.join(shown)}<Label>Normal</Label>"
    return f"{head}<Response><JobsDetail>{job}</JobsDetail></Response>".encode()


def left_of(body: bytes, *, known: bytes) -> items.Rest:
    """Return what is left of a response after another one."""
    before = items.without_known(known, NOTHING)
    assert before is not None
    rest = items.without_known(body, before.digests)
    assert rest is not None
    return rest


SHOWN = [item(number) for number in range(1, 5)]


def test_all_items_are_left_out() -> None:
    """What stands outside the lists is left, with a mark for each run of items."""
    body = response(*SHOWN, item(1, tag="AudioSection"), "<Result>0</Result>", item(9))
    rest = items.without(body)
    assert rest is not None
    sections = LEFT_OUT.replace("Snapshot", "AudioSection")
    left = f"{LEFT_OUT}{sections}<Result>0</Result>{LEFT_OUT}"
    assert rest.body == response(left)
    assert rest.runs == {"Snapshot": 2, "AudioSection": 1}


def test_a_body_without_items() -> None:
    """Nothing is left out of a body that has no items."""
    rest = items.without(response())
    assert rest is not None
    assert (rest.body, rest.runs) == (response(), {})


def test_white_space_between_items_does_not_end_a_run() -> None:
    """An indented list is one run; what stands between is left out with it."""
    rest = items.without(response("\n  ".join(SHOWN)))
    assert rest is not None
    assert rest.body == response(LEFT_OUT)


def test_known_items_are_left_out_though_their_urls_are_signed_anew() -> None:
    """What is left of a response is what the one before did not have."""
    before = items.without_known(response(*SHOWN), NOTHING)
    assert before is not None
    assert (before.body, len(before.digests)) == (response(*SHOWN), 4)
    shown = [item(number, signature=7) for number in range(1, 6)]
    rest = items.without_known(response(*shown), before.digests)
    assert rest is not None
    assert (rest.body, rest.runs) == (response(LEFT_OUT, shown[-1]), {"Snapshot": 1})
    assert rest.digests[:4] == before.digests


def test_an_item_is_left_out_as_often_as_it_is_known() -> None:
    """Of three equal items, of which two are known, one is left."""
    rest = left_of(response(*[SHOWN[0]] * 3), known=response(SHOWN[0], SHOWN[0]))
    assert rest.body == response(LEFT_OUT, SHOWN[0])


@pytest.mark.parametrize(
    "changed",
    [
        item(1, text="read late"),
        item(1).replace("/1.jpg", "/2.jpg"),
        item(1).replace("?q-signature=0", ""),
        item(1).replace("<Text>", "<Text a='1'>"),
        item(1).replace("</Url>", "</Url><Url>a?b</Url>"),
        item(1).replace("<Text></Text>", "<Other><Url>a?c</Url></Other>"),
    ],
)
def test_a_changed_item_is_left(changed: str) -> None:
    """An item that differs in anything but the query of its URL is read again."""
    assert left_of(response(changed), known=response(item(1))).body == response(changed)


@pytest.mark.parametrize(
    "form",
    [
        "<Snapshot><SnapshotTime>1</SnapshotTime><Url>a?{}</Url></Snapshot>",
        "<Snapshot>\n  <SnapshotTime>1</SnapshotTime>\n  <Url>a?{}</Url>\n</Snapshot>",
        "<Snapshot>\n  <Url>a?{}</Url>\n</Snapshot>",
    ],
)
def test_the_url_may_stand_anywhere_in_an_item(form: str) -> None:
    """The URL of the item itself is found behind other elements."""
    rest = left_of(response(form.format("c")), known=response(form.format("b")))
    assert rest.body == response(LEFT_OUT)


@pytest.mark.parametrize(
    "form",
    [
        "<Snapshot><SnapshotTime>1</SnapshotTime></Snapshot>",
        "<Snapshot><PornInfo><Url>a?{}</Url></PornInfo></Snapshot>",
        "<Snapshot><Url>a?<b>{}</b></Url></Snapshot>",
        "<Snapshot><Url>a{}</Url></Snapshot>",
    ],
)
def test_an_item_without_a_signed_url_is_compared_whole(form: str) -> None:
    """Nothing but the query of the item's own URL may differ."""
    for other in ("b", "c"):
        rest = left_of(response(form.format(other)), known=response(form.format("b")))
        is_equal = form.format(other) == form.format("b")
        assert rest.body == response(LEFT_OUT if is_equal else form.format(other))


@pytest.mark.parametrize(
    "unusual",
    [
        response(*SHOWN, "<!-- </Snapshot> -->"),
        response("<Snapshot><Text><![CDATA[</Snapshot>]]></Text></Snapshot>"),
        response(*SHOWN, "<?a b?>"),
        response(*SHOWN, head='<?xml version="1.0" encoding="GBK"?>'),
        response(*SHOWN, head="<!DOCTYPE Response>"),
        response("?" * items.FEW, "<?a b?>"),
    ],
)
def test_an_unusual_body_is_read_whole(unusual: bytes) -> None:
    """Where tags may stand in a text, nothing is left out."""
    assert items.without(unusual) is None
    assert items.without_known(unusual, NOTHING) is None


def test_an_item_within_another() -> None:
    """An item cannot be left out twice."""
    assert items.without(response("<Snapshot><AudioSection></AudioSection></Snapshot>")) is None


@pytest.mark.parametrize(
    "head",
    [
        "",
        '<?xml version="1.0"?>',
        '<?xml version="1.0" encoding="UTF-8" standalone="yes" ?>\n',
        "\ufeff<?xml version='1.0' encoding='utf-8'?>",
    ],
)
def test_usual_declarations(head: str) -> None:
    """A declaration of UTF-8 is nothing unusual, nor are marks in texts."""
    shown = item(1, text="what?! 好")
    rest = items.without(response(shown, head=head))
    assert rest is not None
    assert rest.body == response(LEFT_OUT, head=head)


@pytest.mark.parametrize("cut", ["<Snapshot><Text>a", "<Snapshot>"])
def test_an_item_that_does_not_end_is_left(cut: str) -> None:
    """A body that is cut off is left to the parser."""
    rest = items.without(cut.encode())
    assert rest is not None
    assert rest.body == cut.encode()


# What is left, decoded


def test_a_job_without_items_that_were_left_out() -> None:
    """The lists hold what is left; the rest is as in the whole response."""
    job = results.job_without(left_of(response(*SHOWN), known=response(*SHOWN[:2])))
    whole = decode.job(response(*SHOWN))
    assert job is not None
    assert job.snapshots == whole.snapshots[2:]
    assert (job.job_id, job.label, job.state) == ("j", "Normal", "Auditing")


@pytest.mark.parametrize(
    "body",
    [
        response(*SHOWN, state="Success"),
        response("<Snapshot/>", "<Other>", *SHOWN, "</Other>"),
        response("<Other>", *SHOWN, "</Other>"),
        response(*SHOWN, "<Result>odd</Result>"),
        response(*SHOWN, "</Snapshot>"),
        b"<Error><Code>AccessDenied</Code></Error>",
    ],
)
def test_what_has_to_be_read_whole(body: bytes) -> None:
    """A job that has ended is read whole, and so is what is unusual."""
    rest = items.without(body)
    assert rest is not None
    assert results.job_without(rest) is None


def test_items_are_not_looked_for_in_json() -> None:
    """A JSON body is left as it is."""
    body = b'{"JobsDetail": {"JobId": "j", "State": "Auditing", "Snapshot": [{"Label": "a"}]}}'
    rest = items.without(body)
    assert rest is not None
    assert (rest.body, rest.runs) == (body, Counter())
