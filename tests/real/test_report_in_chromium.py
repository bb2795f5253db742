"""The report in a headless Chromium, by keys, clicks and what is on the screen."""

from __future__ import annotations

import json
import re
import threading
import time
import wave
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
import pytest
from chromium import Browser, Page, chromium
from reports import HOSTILE, filled, picture, stream_job

from ci_live_audit import AuditJob, JobState, Outcome, Snapshot, Verdict, WaitTimeout, report

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="360">'
    '<rect width="640" height="360" fill="#557"/></svg>'
)
SOON = datetime.now(UTC) + timedelta(hours=1)
NORMAL = AuditJob(job_id="av9", state=JobState.SUCCESS, result=Verdict.NORMAL, data_id="room 9")
#: The item that is current.
CURRENT = "document.querySelector('.card.current')?.id"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@attrs.define
class Store:
    """Where pictures and sounds are, and which of them were fetched, with their referrers."""

    url: str
    fetched: list[tuple[str, str | None]]


@pytest.fixture
def store() -> Iterator[Store]:
    """Serve pictures and sounds; those of a job called "gone" are refused."""
    fetched: list[tuple[str, str | None]] = []
    sound = BytesIO()
    with wave.open(sound, "wb") as written:
        written.setparams((1, 1, 8000, 0, "NONE", ""))
        written.writeframes(b"\x80" * 80_000)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append((self.path, self.headers["referer"]))
            kind, body = ("audio/wav", sound.getvalue())
            if ".svg" in self.path:
                kind, body = ("image/svg+xml", PICTURE.encode())
            if "gone" in self.path:
                body = b""
            self.send_response(200 if body else 403)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield Store(f"http://127.0.0.1:{server.server_port}", fetched)
        server.shutdown()


def written(folder: Path, *jobs: AuditJob | Outcome, **options: Any) -> Path:
    path = folder / "report.html"
    path.write_text(report.render(jobs, **options), "utf-8")
    return path


def two(store: Store) -> tuple[AuditJob, ...]:
    """Return a bad stream of four flagged items, one that is suspected, and a normal one."""
    suspected = picture(5, "Ads", score=55, result=2, url=f"{store.url}/av2/1.svg")
    return (
        NORMAL,
        AuditJob(
            job_id="av2",
            state=JobState.AUDITING,
            result=Verdict.SUSPECTED,
            data_id="room 2",
            snapshots=(suspected,),
        ),
        stream_job("av1", store.url, data_id="room 1", expires_at=SOON),
    )


def well(page: Page) -> None:
    """Check that nothing went wrong in a page, and nothing was refused."""
    assert page.said("Runtime.exceptionThrown") == []
    errors = [one for one in page.said("Runtime.consoleAPICalled") if one["type"] == "error"]
    assert errors == []
    assert page.run("refused") == []


def test_a_review_by_keys_alone(browser: Browser, store: Store, tmp_path: Path) -> None:
    """Next, previous, right, wrong and undo work from the worst item on; the export has it all."""
    with browser.page() as page:
        page.open(written(tmp_path, *two(store), title="Night"))
        page.downloads_to(tmp_path)
        page.press("j")
        page.until(f"{CURRENT} === 's3i0'")
        assert page.run("document.activeElement.id") == "s3i0"
        assert page.run("document.activeElement.getBoundingClientRect().top > 0")
        for key, number in (("r", 1), ("w", 2), ("k", 1), ("j", 2), ("u", 1)):
            page.press(key)
            page.until(f"{CURRENT} === 's3i{number}'")
        assert page.run("document.querySelector('#done').textContent") == "1 of 5 marked"
        page.press("w", "J", "R")
        page.until("document.querySelector('#done').textContent === '3 of 5 marked'")
        assert page.run("document.querySelector('#where').textContent") == "room 2: 1 of 1 \u00b7"
        page.press("e")
        exported = read_when_there(page, tmp_path / "marks.json")
        well(page)
    marks = exported.pop("marks")
    assert (exported["schema"], exported["kind"], exported["report"]) == (1, "marks", "Night")
    assert [(one["job_id"], one["mark"], one["score"]) for one in marks] == [
        ("av1", "right", 98),
        ("av1", "wrong", 91),
        ("av2", "right", 55),
    ]
    first = marks[0]
    assert (first["at"], first["label"], first["verdict"], first["kind"]) == (
        "2026-11-27T20:37:45.000Z",
        "Porn",
        "Sensitive",
        "picture",
    )
    assert first["time"] == picture(400).snapshot_time
    assert re.fullmatch("[0-9a-f]{16}", first["key"])


def read_when_there(page: Page, path: Path) -> Any:
    """Return the JSON of a file once it has been downloaded."""
    for _ in range(1000):
        page.run("new Promise((done) => setTimeout(done, 10))")
        if path.exists() and path.stat().st_size:
            return json.loads(path.read_text("utf-8"))
    raise AssertionError("nothing was downloaded")


def test_marks_by_clicks_are_kept(browser: Browser, store: Store, tmp_path: Path) -> None:
    """A mark is set, changed and taken back by its buttons; a report of other links has it, too."""
    pressed = "[...document.querySelectorAll('#s3i0 [aria-pressed=true]')].map(b => b.dataset.mark)"
    with browser.page(height=2500) as page:
        page.open(written(tmp_path, *two(store)))
        page.click("#s3i0 [data-mark=wrong]")
        page.click("#s3i1 [data-mark=right]")
        page.click("#s3i1 [data-mark=right]")
        page.click("#s3i0 [data-mark=right]")
        assert page.run(pressed) == ["right"]
        page.click("#undo")
        page.until(f"({pressed})[0] === 'wrong'")
        again = stream_job("av1", f"{store.url}/new", data_id="room 1")
        page.open(written(tmp_path, NORMAL, two(store)[1], again))
        page.until(f"({pressed})[0] === 'wrong'")
        assert page.run("document.querySelector('#done').textContent") == "1 of 5 marked"
        page.run("window.confirm = () => true")
        page.press("?")
        page.until("document.querySelector('#about').open")
        page.run("document.querySelector('#forget').click()")
        assert page.run(pressed) == []
        page.run("document.querySelector('#close').click()")
        page.open(tmp_path / "report.html")
        assert page.run("document.querySelector('#done').textContent") == "0 of 5 marked"
        well(page)


def test_without_storage_marks_are_kept_while_the_page_is_open(
    browser: Browser, store: Store, tmp_path: Path
) -> None:
    """It says so, and asks before it is closed."""
    broken = "Object.defineProperty(window, 'localStorage', {get() { throw new Error() }})"
    with browser.page() as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=broken)
        page.open(written(tmp_path, *two(store)))
        leaving = "(() => { const event = new Event('beforeunload', {cancelable: true});"
        leaving += "dispatchEvent(event); return event.defaultPrevented; })()"
        assert page.run(leaving) is False
        page.press("j", "r")
        page.until("document.querySelector('#done').textContent === '1 of 5 marked'")
        assert page.run(leaving) is True
        assert "keeps nothing" in page.run("document.querySelector('#kept').textContent")
        well(page)


def test_filters(browser: Browser, store: Store, tmp_path: Path) -> None:
    """They hold for the table, the streams, the items and the keys; a reset takes them back."""
    shown = (
        "[...document.querySelectorAll('.stream:not([hidden]) .card')].map((one) => one.id).join()"
    )
    count = "document.querySelector('#count').textContent"

    def choose(**chosen: str) -> None:
        for name, value in chosen.items():
            page.run(
                f"(() => {{ const one = document.querySelector('#{name}'); one.value = '{value}';"
                "one.dispatchEvent(new Event('input', {bubbles: true})); })()"
            )

    with browser.page(height=3000) as page:
        page.open(written(tmp_path, *two(store)))
        page.until(f"{shown} === 's3i0,s3i1,s3i2,s3i3,s2i0'")
        for chosen, ids in (
            ({"verdict": "3"}, "s3i2,s3i3,s2i0"),
            ({"score": "60"}, "s3i2,s3i3"),
            ({"scene": "1", "verdict": ""}, "s3i0,s3i1"),
            ({"order": "time"}, "s3i1,s3i0"),
            ({"name": "ROOM 2", "scene": "", "score": ""}, "s2i0"),
            ({"name": "av1"}, "s3i1,s3i3,s3i0,s3i2"),
        ):
            choose(**chosen)
            page.until(f"{shown} === '{ids}'")
        assert page.run(count) == "4 flagged in 1 stream"
        page.press("j", "j")
        page.until(f"{CURRENT} === 's3i3'")
        page.press("r")
        choose(name="", order="", marked="right")
        page.until(f"{shown} === 's3i3'")
        choose(name="nobody")
        assert page.run("!document.querySelector('#empty').hidden")
        page.click("button[type=reset]")
        page.until(f"{shown} === 's3i0,s3i1,s3i2,s3i3,s2i0'")
        page.press("f")
        assert page.run("document.activeElement.id") == "verdict"
        page.press("r", "Escape", "j")  # a letter in a field is a letter
        assert page.run("document.querySelector('#done').textContent") == "1 of 5 marked"
        well(page)


def test_verdicts_that_nobody_knows_can_be_chosen(browser: Browser, tmp_path: Path) -> None:
    """They are listed below what is flagged, and a filter finds them."""
    odd = Snapshot(url="https://pictures.example.com/1.jpg", result=Verdict(7), snapshot_time=5_000)
    job = AuditJob(job_id="av1", state=JobState.SUCCESS, snapshots=(picture(1, "Porn"), odd))
    with browser.page() as page:
        page.open(written(tmp_path, job))
        page.until("document.querySelectorAll('.card').length === 2")
        page.run("document.querySelector('#verdict').value = '1'")
        page.run("document.querySelector('.filters').dispatchEvent(new Event('input'))")
        page.until("document.querySelectorAll('.card').length === 1")
        assert page.run("document.querySelector('.card h4').textContent") == "Verdict 7"
        well(page)


def test_the_table_can_be_sorted(browser: Browser, store: Store, tmp_path: Path) -> None:
    """A click on a head sorts by its column, a second one the other way round."""
    names = "[...document.querySelectorAll('#streams tbody th')].map((one) => one.textContent)"
    with browser.page(height=2500) as page:
        page.open(written(tmp_path, *two(store)))
        assert page.run(names) == ["room 1", "room 2", "room 9"]
        for column, order in ((5, "129"), (5, "921"), (1, "129"), (1, "921"), (2, "129")):
            page.click(f"#streams th:nth-child({column}) button")
            assert "".join(page.run(names)).replace("room ", "") == order
        sorted_by = "document.querySelector('#streams [aria-sort]').ariaSort"
        assert page.run(sorted_by) == "descending"
        page.click("#streams tbody tr:first-child td:nth-child(3) a")
        page.until(f"{CURRENT} === 's3i0'")
        well(page)


def test_pictures_have_frames(browser: Browser, store: Store, tmp_path: Path) -> None:
    """A frame is where the service saw something, on a picture of any size on the screen."""
    with browser.page(height=2000) as page:
        page.open(written(tmp_path, *two(store)))
        page.until("document.querySelector('#s3i2 .frames.placed')")
        found = page.run(
            "(() => { const box = (one) => one.getBoundingClientRect();"
            "const image = box(document.querySelector('#s3i2 img'));"
            "const frame = box(document.querySelector('#s3i2 .frames rect'));"
            "return [(frame.x - image.x) / image.width, (frame.y - image.y) / image.height,"
            "frame.width / image.width, frame.height / image.height]; })()"
        )
        assert found == pytest.approx([60 / 640, 40 / 360, 220 / 640, 50 / 360], abs=0.01)
        page.press("b")
        assert "blur" in page.run("getComputedStyle(document.querySelector('#s3i1 img')).filter")
        well(page)
    assert {referrer for _, referrer in store.fetched} == {None}


def test_pictures_that_are_gone(browser: Browser, store: Store, tmp_path: Path) -> None:
    """What cannot be loaded is a placeholder, and what has expired, too; its reason is told."""
    gone = "[...document.querySelectorAll('.gone:not([hidden])')].map((one) => one.textContent)"
    refused = stream_job("gone", store.url, expires_at=SOON)
    late = stream_job("late", store.url, expires_at=datetime.now(UTC) - timedelta(hours=1))
    with browser.page(height=4000) as page:
        page.open(written(tmp_path, refused))
        page.until("document.querySelectorAll('.gone:not([hidden])').length === 3")
        assert {*page.run(gone)} == {"The picture could not be loaded."}
        page.open(written(tmp_path, late))
        page.until("document.querySelectorAll('.gone:not([hidden])').length === 4")
        assert all(text.startswith("The link expired at ") for text in page.run(gone))
        assert page.run("document.querySelectorAll('.media').length") == 0
        well(page)


def test_a_link_expires_while_the_page_is_open(
    browser: Browser, store: Store, tmp_path: Path
) -> None:
    """A picture that has been loaded stays; one that has not becomes a placeholder."""
    jump = "Date.now = () => Date.parse('2100-01-01')"
    with browser.page(height=600) as page:
        page.open(written(tmp_path, *two(store)))
        page.run("document.querySelector('#s3i0').scrollIntoView()")
        page.until("document.querySelector('#s3i0 img').complete")
        page.run("document.querySelector('#s3i1 img').removeAttribute('src')")
        page.run(jump)
        page.call("Emulation.setVirtualTimePolicy", policy="advance", budget=20_000)
        page.until("!document.querySelector('#s3i1 .gone').hidden")
        assert page.run("document.querySelector('#s3i0 img').naturalWidth") == 640
        assert not page.run("document.querySelector('#s3i0 a.media').hasAttribute('href')")
        assert "expired" in page.run("document.querySelector('#s3i0 .until').textContent")
        well(page)


def test_sound_is_played_by_a_key(browser: Browser, store: Store, tmp_path: Path) -> None:
    """It is loaded when it is wanted, and not before."""
    with browser.page() as page:
        page.open(written(tmp_path, *two(store)))
        page.press("j", "j", "j", "j")
        page.until(f"{CURRENT} === 's3i3'")
        assert not any(path.endswith(".wav") for path, _ in store.fetched)
        page.press("s")
        page.until("!document.querySelector('#s3i3 audio').paused")
        page.press("s")
        page.until("document.querySelector('#s3i3 audio').paused")
        well(page)


def test_times_are_those_of_the_reader(browser: Browser, store: Store, tmp_path: Path) -> None:
    """In the browser's zone, which is named, or in UTC; also on the axis and in packed items."""
    shown = "[document.querySelector('#s3i0 .when').textContent, "
    shown += "document.querySelector('.axis text').textContent,"
    shown += "document.querySelector('.marks title').textContent]"
    with browser.page() as page:
        page.open(written(tmp_path, *two(store)))
        assert page.run(shown) == ["04:37:45", "04:32", "04:34:25 Sensitive, Porn 91"]
        assert (
            page.run("document.querySelector('#zone').selectedOptions[0].text") == "Asia/Shanghai"
        )
        page.run("document.querySelector('#zone').value = 'UTC'")
        page.run("document.querySelector('#zone').dispatchEvent(new Event('change'))")
        assert page.run(shown) == ["20:37:45", "20:32", "20:34:25 Sensitive, Porn 91"]
        well(page)


def test_marks_on_the_timeline_are_links(browser: Browser, store: Store, tmp_path: Path) -> None:
    """A click on one goes to its item, past a filter if need be; a link from outside as well."""
    many = tuple(picture(second, "Porn") for second in range(100))
    with browser.page() as page:
        path = written(tmp_path, stream_job("av1", store.url, snapshots=many))
        page.open(path, fragment="#s1i60")
        page.until(f"{CURRENT} === 's1i60'")
        page.run("document.querySelector('#verdict').value = '3'")
        page.run("document.querySelector('.filters').dispatchEvent(new Event('input'))")
        page.click(".marks a:nth-of-type(20)")
        number = page.run("document.querySelector('.marks a:nth-of-type(20)').getAttribute('href')")
        page.until(f"{CURRENT} === '{number[1:]}'")
        well(page)


def test_hostile_texts_run_nothing(browser: Browser, tmp_path: Path) -> None:
    """Each in every attribute of a job: nothing runs, opens, moves, or is refused."""
    jobs: list[AuditJob | Outcome] = [filled(AuditJob, text) for text in HOSTILE]
    jobs += [Outcome(job_id=text, error=WaitTimeout(text)) for text in HOSTILE]
    with browser.page(height=4000) as page:
        path = written(tmp_path, *jobs, title="</title><script>window.ran = 1</script>")
        page.open(path)
        page.press("j", "r", "J", "w", "j", "o", "e")
        page.run("document.querySelectorAll('.stream').forEach((one) => one.scrollIntoView())")
        page.until(f"document.querySelectorAll('.card').length === {2 * len(HOSTILE)}")
        page.run("document.querySelectorAll('summary, .card, th a').forEach((one) => one.click())")
        assert page.run("window.ran === undefined && ({}).ran === undefined")
        assert page.run("location.pathname").endswith("report.html")
        assert page.run("document.querySelectorAll('body script').length") == 2
        assert page.run("document.title") == "</title><script>window.ran = 1</script>"
        assert page.run("document.documentElement.scrollWidth") <= 1280
        well(page)
        sent = page.said("Network.requestWillBeSent")
        urls = {one["request"]["url"] for one in sent}
        # Chromium's own player has pictures in data URLs.
        assert {url.split(":")[0] for url in urls} <= {"file", "https", "data"}
        assert not [url for url in urls if url.startswith("data:") and "ran" in url]


def test_the_policy_stops_what_is_in_no_page(browser: Browser, tmp_path: Path) -> None:
    """Were a text ever to slip through, it could not run, load, or send anything."""
    slipped = (
        "<img src=data:x onerror='window.ran = 1'><script>window.ran = 2</script>"
        "<script src='https://evil.example/x.js'></script><p style='color: red'>"
        "<iframe src='https://evil.example'></iframe><base href='https://evil.example/'>"
        "<a id=slipped href='javascript:window.ran = 3'>x</a><style>p { color: red }</style>"
    )
    path = written(tmp_path, NORMAL)
    path.write_text(path.read_text("utf-8").replace("<main>", f"{slipped}<main>"), "utf-8")
    with browser.page() as page:
        page.open(path)
        page.run("document.querySelector('#slipped').click()")
        page.run("fetch('https://evil.example').catch(() => {})")
        page.until("refused.length >= 8")
        assert page.run("window.ran") is None
        refused = {one.split()[0] for one in page.run("refused")}
        assert refused >= {
            *("script-src-attr", "script-src-elem", "style-src-attr", "style-src-elem"),
            *("frame-src", "base-uri", "connect-src", "img-src"),
        }
        with pytest.raises(AssertionError, match="TrustedHTML"):
            page.run("document.body.innerHTML = '<b>x</b>'")


def test_it_can_be_read_without_javascript(browser: Browser, store: Store, tmp_path: Path) -> None:
    """Streams, timelines, pictures and texts are there; what would do nothing is not."""
    shown = "getComputedStyle(document.querySelector('{}')).display !== 'none'"
    with browser.page(height=2000) as page:
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.open(written(tmp_path, *two(store)))
        for selector in ("#streams", "#s3 .timeline", "#s3i0 img", "#s3i2 mark", "#s3i3 audio"):
            assert page.run(shown.format(selector)), selector
        for selector in (".filters", ".help", ".decide"):
            assert not page.run(shown.format(selector)), selector
        assert page.run("document.querySelector('#s3i0 .when').textContent") == "20:37:45 UTC"


CONTRAST = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!own || !node.checkVisibility() || node.closest("svg, script, button:disabled")) continue;
    const both = [light(getComputedStyle(node).color), light(ground(node))];
    const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    if (ratio < 4.5) low.push([node.outerHTML.slice(0, 80), ratio]);
  }
  return low;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_told_from_their_ground(
    browser: Browser, store: Store, tmp_path: Path, scheme: str
) -> None:
    """Every text has a contrast of 4.5 in both schemes, and the schemes differ."""
    failed = AuditJob(job_id="av7", state=JobState.FAILED)
    with browser.page(height=3000, prefers_color_scheme=scheme) as page:
        page.open(written(tmp_path, *two(store), failed))
        page.press("j")
        page.until(CURRENT)
        assert page.run(CONTRAST) == []
        ground = page.run("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", ground)[0]) > 128) == (scheme == "light")


def test_everything_has_a_name(browser: Browser, store: Store, tmp_path: Path) -> None:
    """Whatever can be used has a name for those who do not see it, and headings are in order."""
    with browser.page() as page:
        page.open(written(tmp_path, *two(store)))
        used = [
            "button",
            "link",
            "checkbox",
            "combobox",
            "searchbox",
            "spinbutton",
            "image",
            "Audio",
        ]
        nameless: list[Any] = [None]
        for _ in range(200):  # the controls of players get their names a little later
            nodes = page.call("Accessibility.getFullAXTree")["nodes"]
            seen = [node for node in nodes if not node["ignored"] and "role" in node]
            shown = [node for node in seen if node["role"]["value"] in used]
            nameless = [node for node in shown if not node["name"]["value"]]
            if shown and not nameless:
                break
            time.sleep(0.02)
        assert nameless == []
        levels = page.run(
            "[...document.querySelectorAll('main h2, main h4, h1')].map((one) => one.localName)"
        )
        assert levels[0] == "h1"
        assert page.run("document.querySelectorAll('[id]').length") == page.run(
            "new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size"
        )


def test_a_narrow_screen(browser: Browser, store: Store, tmp_path: Path) -> None:
    """On 320 pixels nothing is wider than the screen, whatever the words."""
    long = stream_job("av1", store.url, data_id="x" * 300, label="y" * 300)
    with browser.page(width=320, height=700) as page:
        page.open(written(tmp_path, long, title="z" * 200))
        page.press("j")
        page.until(CURRENT)
        assert page.run("document.documentElement.scrollWidth") == 320
        well(page)


def test_on_paper(browser: Browser, store: Store, tmp_path: Path) -> None:
    """What only works on a screen is not printed."""
    with browser.page(media="print") as page:
        page.open(written(tmp_path, *two(store)))
        for selector in (".filters", ".help", ".decide button", "details", "audio"):
            shown = f"getComputedStyle(document.querySelector('{selector}')).display"
            assert page.run(shown) == "none", selector
        data = page.call("Page.printToPDF", printBackground=True)["data"]
        assert data.startswith("JVBERi")  # %PDF-


def test_nothing_to_show(browser: Browser, tmp_path: Path) -> None:
    """A report of no streams, and one of no findings, work like others."""
    with browser.page() as page:
        for jobs in ((), (NORMAL,), (AuditJob(job_id="av7", state=JobState.FAILED, code="No"),)):
            page.open(written(tmp_path, *jobs))
            page.press("j", "r", "u", "J", "o", "s")
            assert page.run("document.querySelector('#done').textContent") == "0 of 0 marked"
            well(page)


@pytest.mark.parametrize("streams", [1, 1000])
def test_20_000_pictures_open_at_once(browser: Browser, tmp_path: Path, streams: int) -> None:
    """All of them flagged: the page is there, and answers keys, after 2 s of computing at most."""
    sign = "q-sign-algorithm=sha1&q-ak=AKIDEXAMPLE&q-sign-time=1700000000;1700007200&q-signature="

    def snapshot(second: int) -> Any:
        digest = sha256(b"%d" % second).hexdigest()
        url = f"https://pictures.example.com/{second}.jpg?{sign}{digest}{digest}"
        return picture(second, "Ads", result=2, text=f"add wx{digest[:8]}", url=url)

    def jobs() -> Iterator[AuditJob]:
        for number in range(streams):
            seconds = range(number, 20_000, streams)
            yield AuditJob(
                job_id=f"av{number}",
                state=JobState.SUCCESS,
                snapshots=tuple(map(snapshot, seconds)),
            )

    path = written(tmp_path, *jobs())
    assert path.stat().st_size < 15_000_000
    with browser.page() as page:
        page.open(path)
        metrics = page.call("Performance.getMetrics")["metrics"]
        spent = {one["name"]: one["value"] for one in metrics}
        page.press("j", "r")
        page.until(f"{CURRENT} === 's1i1'")
        assert spent["TaskDuration"] < 2
        assert page.run("document.querySelector('#done').textContent") == "1 of 20,000 marked"
        if streams < 1000:
            page.run("document.querySelector('#s1 .some').click()")
            page.until("document.querySelectorAll('#s1 .card').length === 48")
        page.run("location.hash = ''")
        well(page)


def test_streams_that_are_packed(browser: Browser, store: Store, tmp_path: Path) -> None:
    """They are there when they come near, are named, linked or found, and keep their marks."""
    jobs = [stream_job(f"av{n}", store.url, data_id=f"room {n}") for n in range(1, 101)]
    cards = "document.querySelectorAll('#s{} .card').length"
    heading = "document.querySelector('#s{} h2')?.textContent"
    with browser.page() as page:
        page.downloads_to(tmp_path)
        page.open(written(tmp_path, *jobs))
        assert page.run(cards.format(60)) == 4
        assert page.run(cards.format(61)) == 0
        page.run("document.querySelector('tr[data-stream=\"90\"] th a').click()")
        page.until(f"{heading.format(90)} === 'room 90'")
        page.until(cards.format(90))
        assert page.run("document.querySelector('#s90 .when').textContent") == "04:37:45"
        page.run("document.querySelector('tr[data-stream=\"75\"] td a').click()")
        page.until(f"{CURRENT} === 's75i0'")
        page.press("w", "J", "r")
        page.until(f"{CURRENT} === 's76i1'")
        page.run("document.querySelector('#name').value = 'room 99'")
        page.run("document.querySelector('.filters').dispatchEvent(new Event('input'))")
        page.until(f"{heading.format(99)} === 'room 99'")
        assert page.run("document.querySelectorAll('.stream:not([hidden])').length") == 1
        page.press("e")
        marks = read_when_there(page, tmp_path / "marks.json")["marks"]
        assert [(one["job_id"], one["mark"]) for one in marks] == [
            ("av75", "wrong"),
            ("av76", "right"),
        ]
        again = (tmp_path / "report.html").rename(tmp_path / "again.html")
        page.open(again, fragment="#s80i1")
        page.until(f"{CURRENT} === 's80i1'")
        page.run("document.querySelector('tr[data-stream=\"75\"] th a').click()")
        page.until("document.querySelector('#s75i0')?.dataset.marked === 'wrong'")
        well(page)


BROKEN = """[...document.querySelectorAll("#streams td, #streams thead th")].flatMap((cell) => {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  const broken = [];
  for (let node; (node = walker.nextNode());) {
    for (const word of node.data.matchAll(/\\S+/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (range.getClientRects().length > 1) broken.push(word[0]);
    }
  }
  return broken;
})"""


def test_the_table_on_paper(browser: Browser, store: Store, tmp_path: Path) -> None:
    """It is as wide as the paper, has all its columns, and breaks no word."""
    with browser.page(width=740, media="print") as page:
        page.open(written(tmp_path, *two(store), stream_job("av3", store.url, data_id="x" * 200)))
        assert page.run("document.documentElement.scrollWidth") == 740
        box = page.run("document.querySelector('.scroll').scrollWidth")
        assert box <= page.run("document.querySelector('.scroll').clientWidth")
        assert page.run(BROKEN) == []


def test_paper_says_what_is_not_on_it(browser: Browser, store: Store, tmp_path: Path) -> None:
    """Findings and streams that are not shown are counted; with none there is no word of it."""
    note = "document.querySelector('#unprinted')"
    many = tuple(picture(second, "Porn") for second in range(100))
    with browser.page() as page:
        page.open(written(tmp_path, *two(store)))
        page.call("Page.printToPDF")
        assert page.run(f"{note}.hidden")
        page.open(written(tmp_path, stream_job("av1", store.url, snapshots=many), NORMAL))
        page.call("Page.printToPDF")
        assert page.run(f"{note}.textContent").startswith(
            "On this paper are 24 of 101 findings in 2 of 2 streams."
        )
        assert page.run(f"getComputedStyle({note}).display") == "none"
        page.emulate(media="print")
        assert page.run(f"getComputedStyle({note}).display") == "block"
        well(page)
