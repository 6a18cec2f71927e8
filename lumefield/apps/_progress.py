"""Progress on the terminal: bars with ETA and the metric; plain lines without a terminal."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Say:
    """Lines for the person who started the command."""

    def __init__(self) -> None:
        self.console = Console(soft_wrap=True, highlight=False)

    def line(self, text: str) -> None:
        """Print a line, unless it is empty."""
        if text:
            self.console.print(text, markup=False)

    def note(self, text: str) -> None:
        """Print something worth knowing, dimmed."""
        if text:
            self.console.print(f"  {text}", style="dim", markup=False)

    def show(self, thing: Any) -> None:  # noqa: ANN401
        """Print a table."""
        self.console.print(thing)


class _Bar:
    """A bar on a terminal; where there is none, nothing is drawn."""

    def __init__(self, *columns: ProgressColumn, transient: bool = False) -> None:
        self._bar = Progress(*columns, transient=transient, disable=not Console().is_terminal)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._bar.disable:
            self._bar.stop()


class CaptureBar(_Bar):
    """A bar per stage of the capture; it is the ``progress`` callback."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "CaptureBar":
        self._bar.start()
        return self

    def __call__(self, stage: str, share: float) -> None:
        """Show that ``share`` in [0, 1] of ``stage`` is done."""
        name = stage.split(" ")[0] if stage.split(" ")[-1][:1].isdigit() else stage
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(stage, total=1.0)
        self._bar.update(self._tasks[name], completed=share, description=stage)


class StepBar(_Bar):
    """Steps, what is said of the last of them, steps per second, ETA; plain lines elsewhere."""

    def __init__(self, verb: str, steps: int, done: int) -> None:
        super().__init__(
            TextColumn(verb),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            TextColumn("{task.fields[rate]:.1f} it/s"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task(verb, total=steps, completed=done, words="", rate=0.0)
        self._steps, self._first, self._told = steps, done, done

    def __enter__(self) -> "StepBar":
        self._bar.start()
        return self

    def update(self, step: int, words: str, steps: int | None = None) -> None:
        """Show where it is; ``words`` such as ``27.60 dB  40,000 Gaussians``.

        Args:
            step: Steps done.
            words: What is said of the last of them.
            steps: Steps in all, where they are known only now.
        """
        self._steps = self._steps if steps is None else steps
        elapsed = max(self._bar.tasks[0].elapsed or 0.0, 1e-6)
        rate = (step - self._first) / elapsed
        self._bar.update(self._task, completed=step, total=self._steps, words=words, rate=rate)
        due = step - self._told >= max(1, self._steps // 20) or step == self._steps
        if self._bar.disable and due:
            self._told = step
            left = (self._steps - step) / max(rate, 1e-6)
            print(
                f"step {step}/{self._steps}  {words}  {rate:.1f} it/s  {left:.0f} s left",
                flush=True,
            )
