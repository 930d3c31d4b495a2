"""What every command line of this project shares: errors as one sentence, exit codes, a progress bar."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

from .errors import Cancelled, LipsyncError
from .progress import Progress

SYNC_STAGES = {
    "load": "Getting ready (a minute at first)",
    "faces": "Finding faces",
    "sync": "Making the mouth",
    "label": "Signing",
}


class Parser(argparse.ArgumentParser):
    """A parser, and those of its commands, that says what is wrong in one line and where help is.

    A flag is never guessed: `--audio b.wav`, as others have it, is unknown here, and no wrong --audio-delay-frames.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        self.exit(2, f"{self.prog}: {message.rstrip('.')}. Help: {self.prog} --help\n")


def sentence(error: LipsyncError | OSError) -> str:
    """What is printed of an error."""
    if not isinstance(error, OSError):
        return str(error)
    said = error.strerror or str(error) or type(error).__name__
    return f"{said}: {error.filename}" if error.filename else f"{said}."


def plain_signs() -> None:
    """Let a terminal that lacks a sign show a question mark; without this, a print ends the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def guarded(name: str, run: Callable[[], int], stopped: str) -> int:
    """Run a command and return its exit code: its own, 1 after an error, said in a sentence, 130 when stopped, 141
    when nobody reads the output any more.

    stopped  the sentence for Ctrl-C and SIGTERM. LIPSYNC_DEBUG also prints where an error came from
    """
    plain_signs()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read this has left, as `head` does; what is still held has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except (KeyboardInterrupt, Cancelled):
        print(stopped, file=sys.stderr)
        return 130
    except (LipsyncError, OSError) as error:
        if os.environ.get("LIPSYNC_DEBUG"):
            traceback.print_exc()
        print(f"{name}: {sentence(error)}", file=sys.stderr)
        return 1


class Bar:
    """A progress bar on standard error that takes Progress records; removed when the work is done.

    titles  of stages; one that is not there is shown by its name
    """

    def __init__(self, titles: Mapping[str, str] | None = None) -> None:
        self._titles = titles or {}

    def __enter__(self) -> Callable[[Progress], None]:
        columns = TextColumn("{task.description:18}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = RichBar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._tasks: dict[str, int] = {}
        self._bar.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, progress: Progress) -> None:
        if progress.stage not in self._tasks:
            title = self._titles.get(progress.stage, progress.stage)
            self._tasks[progress.stage] = self._bar.add_task(title, total=progress.total)
        self._bar.update(self._tasks[progress.stage], completed=progress.done, total=progress.total)
