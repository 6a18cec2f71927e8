"""Progress of ``lumefield fit``: a bar on a terminal, plain lines elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class FitBar:
    """Step, quality, steps per second, ETA."""

    def __init__(self, steps: int, done: int, unit: str) -> None:
        self._plain = not Console().is_terminal
        self._bar = Progress(
            TextColumn("fit"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]} " + unit),
            TextColumn("{task.fields[rate]:.1f} it/s"),
            TimeRemainingColumn(),
            disable=self._plain,
        )
        self._task = self._bar.add_task("fit", total=steps, completed=done, shown="", rate=0.0)
        self._first = self._told = done
        self._steps, self._unit = steps, unit

    def __enter__(self) -> "FitBar":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._plain:
            self._bar.stop()

    def update(self, step: int, shown: float) -> None:
        """Show where fitting is."""
        elapsed = max(self._bar.tasks[0].elapsed or 0.0, 1e-6)
        rate = (step - self._first) / elapsed
        text = f"{shown:.2f}" if abs(shown) >= 1 else f"{shown:.3g}"
        self._bar.update(self._task, completed=step, shown=text, rate=rate)
        if self._plain and (step - self._told >= max(1, self._steps // 20) or step == self._steps):
            self._told = step
            left = (self._steps - step) / max(rate, 1e-6)
            quality = f"{text} {self._unit}  {rate:.1f} it/s"
            print(f"step {step}/{self._steps}  {quality}  {left:.0f} s left", flush=True)
