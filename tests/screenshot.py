"""Makes the picture of the manual: what a terminal shows while streams are moderated.

``python tests/screenshot.py`` runs the command against an emulator, and writes
``screenshot.svg`` beside this file.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text
from terminal import Terminal

from ci_live_audit import AudioSection, Snapshot, Verdict
from ci_live_audit.testing import Emulator, frame, sound

PICTURE = Path(__file__).with_name("screenshot.svg")
COLUMNS = 96
COMMAND = ("ci-live-audit", "moderate", "--file", "rooms.jsonl", "--interval", "1", "--cancel")
ROOMS: dict[str, tuple[float, list[Snapshot | AudioSection]]] = {
    "knitting": (6.0, [frame(1.0)]),
    "late-night": (60.0, [frame(0.5), frame(2.5, "Porn", score=98, text="call me")]),
    "chess": (8.0, [frame(2.0)]),
    "casino": (60.0, [frame(1.0), sound(4.5, "Ads", score=91, text="win big, call 555-0100")]),
    "camping": (9.0, [frame(5.5, "Porn", score=62, result=Verdict.SUSPECTED)]),
}
# What begins and ends a link.
LINK = re.compile(r"\x1b\].*?\x1b\\")
# Numbers and a letter of a control sequence; a return or a new line; a text.
CODES = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def styled(shown: str) -> Text:
    """Return what the screen shows in the end, with its colours."""
    screen: list[list[str]] = [[]]
    row, column, style = 0, 0, ""
    for numbers, command, move, text in CODES.findall(LINK.sub("", shown)):
        if command == "m":
            style = "" if numbers in {"", "0"} else f"{style}\x1b[{numbers}m"
        elif command == "A":
            row -= int(numbers or 1)
        elif command == "K":
            del screen[row][0 if numbers == "2" else column :]
        elif move:
            row, column = row + (move == "\n"), 0 if move == "\r" else column
        screen += [[] for _ in range(row + 1 - len(screen))]
        for character in text:
            line = screen[row]
            line += [" "] * (column + 1 - len(line))
            line[column] = f"{style}{character}\x1b[0m"
            column += 1
    return Text("\n").join(Text.from_ansi("".join(line)) for line in screen)


async def run() -> str:
    """Moderate the rooms in a terminal, and return what it was sent."""
    emulator = Emulator()
    lines = []
    for name, (duration, script) in ROOMS.items():
        url = f"rtmp://live.example.com/app/{name}"
        emulator.add_stream(url, duration=duration, script=script)
        lines.append(f'{{"url": "{url}", "data_id": "{name}"}}\n')
    async with emulator.serve() as endpoint:
        with TemporaryDirectory() as folder:
            Path(folder, "rooms.jsonl").write_text("".join(lines), "utf-8")
            environment = {
                "CI_LIVE_AUDIT_BUCKET": emulator.bucket,
                "CI_LIVE_AUDIT_ENDPOINT": endpoint,
                "TENCENTCLOUD_REGION": emulator.region,
                "TENCENTCLOUD_SECRET_ID": emulator.credentials.secret_id,
                "TENCENTCLOUD_SECRET_KEY": emulator.credentials.secret_key,
            }
            return await asyncio.to_thread(_in_terminal, Path(folder), environment)


def _in_terminal(folder: Path, environment: dict[str, str]) -> str:
    script = Path(sys.executable).with_name(COMMAND[0])
    os.chdir(folder)
    with Terminal([str(script), *COMMAND[1:]], columns=COLUMNS, environment=environment) as shell:
        shell.finish()
        return shell.shown.decode()


def main() -> None:
    """Write the picture."""
    shown = asyncio.run(run())
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text(f"$ {' '.join(COMMAND)}", style="bold"))
    console.print(styled(shown.rstrip()))
    picture = console.export_svg(title="ci-live-audit", unique_id="screen")
    # Its fonts would be loaded from elsewhere.
    picture = re.sub(r"(?s)\s*@font-face \{.*?\}", "", picture)
    PICTURE.write_text(picture, "utf-8")


if __name__ == "__main__":
    main()
