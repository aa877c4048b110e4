"""What a person sees while a run goes on: rich on a terminal, plain timestamped lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_console = Console(highlight=False, soft_wrap=True)
_PLAIN_INTERVAL_SECONDS = 10.0


def say(message: str) -> None:
    """Print one message; with the time of day where the output is not a terminal."""
    if _console.is_terminal:
        _console.print(message, markup=False)
    else:
        for line in message.splitlines() or [""]:
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def warn(message: str) -> None:
    """Print one warning to standard error."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; every cell is plain text."""
    from rich.text import Text

    view = Table(title=Text(title), title_justify="left")
    for i, column in enumerate(columns):
        view.add_column(Text(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        view.add_row(*[Text(cell) for cell in row])
    if _console.is_terminal:
        _console.print(view)
    else:
        Console(width=max(120, 14 * len(columns)), file=sys.stdout, highlight=False).print(view)
        sys.stdout.flush()


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far a loop of `total` items is; the block calls the yielded function with the items it has done."""
    if _console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=_console, transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda n: bar.advance(task, n)
        return
    started = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_SECONDS or (done >= total and now - started >= 1):
            say(f"{description}: {done}/{total} ({now - started:.0f} s)")
            last = now

    yield advance
