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


class TrainBar(_Bar):
    """Step, PSNR, the size of what is trained, steps per second, ETA."""

    def __init__(self, steps: int, done: int, noun: str = "Gaussians") -> None:
        super().__init__(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[psnr]:.2f} dB"),
            TextColumn("{task.fields[count]} " + noun),
            TextColumn("{task.fields[rate]:.1f} it/s"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task(
            "train", total=steps, completed=done, psnr=0.0, count=0, rate=0.0
        )
        self._done, self._first, self._plain = done, done, self._bar.disable
        self._noun = noun
        self._told = done

    def __enter__(self) -> "TrainBar":
        self._bar.start()
        return self

    def update(self, step: int, psnr: float, count: int) -> None:
        """Show where training is."""
        task = self._bar.tasks[0]
        elapsed = max(task.elapsed or 0.0, 1e-6)
        rate = (step - self._first) / elapsed
        self._bar.update(self._task, completed=step, psnr=psnr, count=f"{count:,}", rate=rate)
        total = int(task.total or step)
        if self._plain and (step - self._told >= max(1, total // 20) or step == total):
            self._told = step
            left = (total - step) / max(rate, 1e-6)
            print(
                f"step {step}/{total}  {psnr:.2f} dB  {count:,} {self._noun}  {rate:.1f} it/s  "
                f"{left:.0f} s left",
                flush=True,
            )
