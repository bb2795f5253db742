"""Files of lines that outlive the process: each has one owner, and every line is whole."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from io import BufferedReader, BufferedWriter, FileIO
from pathlib import Path

from ci_live_audit._forks import Inherited
from ci_live_audit.errors import ConfigurationError

__all__ = ["LineFile"]

# In a forked child they would keep the locks after the parent's end.
_files: Inherited[FileIO] = Inherited(FileIO.close)


class LineFile:
    """A regular file to which lines are appended; it is created for its owner alone (0600).

    Whoever opens it locks it, reads it, and says with `cut` how many bytes of it are whole lines.
    All cuts are by its own descriptor.

    Args:
        path: The file.
        fsync: Whether each line is on the disk before the program goes on.

    Raises:
        ConfigurationError: It is not a regular file.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self.path: Path = path
        self._place = path.resolve()
        self._fsync = fsync
        #: Bytes of whole lines, and whether more may be in the file.
        self._end = 0
        self._torn = False
        flags = os.O_RDWR | os.O_CREAT
        for name in ("O_NONBLOCK", "O_BINARY"):  # for pipes; on Windows
            flags |= getattr(os, name, 0)
        self._file = _open(path, flags)
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.close()
            raise ConfigurationError(f"{path}: this is not a regular file")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def size(self) -> int:
        """The number of bytes of whole lines."""
        return self._end

    def lock(self, in_use: str) -> None:
        """Lock the file as long as it is open (not on Windows).

        Args:
            in_use: The message if it is locked; ``{}`` stands for which process has it.

        Raises:
            ConfigurationError: It is locked.
        """
        # Another process may have put a new file in its place since it was opened.
        if not _lock(self._file) or not self._is_in_place():
            holder = _holder(self._file.fileno())
            raise ConfigurationError(f"{self.path}: {in_use.format(holder)}")

    def reader(self) -> BufferedReader:
        """Return a reader from the beginning; closing it closes nothing else."""
        reader = open(os.dup(self._file.fileno()), "rb")  # noqa: PTH123, SIM115
        reader.seek(0)
        return reader

    def cut(self, end: int) -> None:
        """Remove all but the first bytes, which are whole lines."""
        self._file.truncate(end)
        self._end, self._torn = end, False

    def append(self, line: bytes) -> None:
        """Append a line, as a whole or not at all.

        Raises:
            OSError: It cannot be written. The same call may be repeated.
        """
        try:
            if self._torn:
                self._file.truncate(self._end)
            self._torn = True
            self._file.seek(self._end)
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            if self._fsync:
                self._sync()
        except OSError as problem:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            # The system's own error about a descriptor names no file.
            raise OSError(problem.errno, problem.strerror, str(self.path)) from None
        self._torn = False
        self._end += len(line)

    def replace(self, lines: Iterable[bytes]) -> None:
        """Put these lines in place of all, as a whole or not at all.

        Nothing happens if the path leads to another file by now.

        Raises:
            OSError: They cannot be written; Windows replaces no file that is open.
        """
        if not self._is_in_place():
            return
        beside = self._place.with_name(f".{self._place.name}.compacting")
        beside.unlink(missing_ok=True)
        new = _open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            _lock(new)
            beside.chmod(stat.S_IMODE(os.fstat(self._file.fileno()).st_mode))
            writer = BufferedWriter(new)
            writer.writelines(lines)
            writer.flush()
            end = new.tell()
            os.fsync(new.fileno())
            beside.replace(self._place)
        except BaseException:
            new.close()
            beside.unlink(missing_ok=True)
            raise
        writer.detach()
        self._file.close()
        self._file, self._end, self._torn = new, end, False

    def _is_in_place(self) -> bool:
        """Return whether the path leads to this file."""
        try:
            return os.path.samestat(self._place.stat(), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def overwrite(self, beginning: bytes) -> None:
        """Write over the beginning of the file."""
        self._file.seek(0)
        self._file.write(beginning)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        if not self._end:  # the file itself may be new
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _open(path: Path, flags: int) -> FileIO:
    file = open(os.open(path, flags, 0o600), "r+b", buffering=0)  # noqa: PTH123, SIM115
    _files.add(file)
    return file


def _lock(file: FileIO) -> bool:
    """Lock a file; return False if another one has locked it."""
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:  # on Windows
        return True
    try:
        # It belongs to the open file: a second opening is refused in this process as well, and
        # any end of the process frees it.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """Return which process has locked a file, where the system tells (Linux does)."""
    inode = os.fstat(descriptor).st_ino
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            # 1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF
            _, kind, _, _, process, place, *_ = line.split()
            if kind == "FLOCK" and place.endswith(f":{inode}") and process != "0":
                return f"process {process}"
    return "another process"
