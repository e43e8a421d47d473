"""Shows the text that a run generated from its prompts, step by step, and new samples as they come."""

from __future__ import annotations

import asyncio
import shlex
from bisect import bisect_right
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Static

from engine.events.samples import Samples
from engine.events.types import Sample
from tui.app.actions.registry import SAMPLES
from tui.app.base import AppScreen
from tui.app.widgets.bars import Heading, KeyBar
from tui.text import format as fmt
from tui.text.printable import printable
from tui.text.sample_text import NONE_BY_MLX, describe_sample

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

_EVERY = 1.0  # seconds between two looks at the log
_NONE = """A run generates text from prompts while it trains if its profile says so:

    [train]
    sample_every = 200
    sample_prompts = ["Once upon a time", ""]

or, while it is active: mla-tui set {run} sample_every=200"""


class SamplesScreen(AppScreen[None], actions=SAMPLES):
    """A worker reads the log; a message shows what it found. The newest step is shown until another is chosen."""

    CSS_PATH = "../styles/samples.tcss"

    class Found(Message):
        """All samples of the run so far."""

        def __init__(self, samples: list[Sample]) -> None:
            super().__init__()
            self.samples = samples

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self._run = run
        self._samples: list[Sample] = []
        self._step: int | None = None  # the chosen one; None follows the newest

    def compose(self) -> ComposeResult:
        yield Heading(f"samples · {self._run.shown_name}")
        with VerticalScroll(id="samples", can_focus=False):
            yield Static("", id="sample-text", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.follow()

    @work(group="samples", exit_on_error=True)
    async def follow(self) -> None:
        """Read what the log says of samples, until the screen closes."""
        samples, first = Samples(self._run.log_path), True
        while True:
            if self.is_active and (await asyncio.to_thread(samples.poll) or first):
                first = False
                self.post_message(self.Found(samples.found))
            await asyncio.sleep(_EVERY)

    @on(Found)
    def _load(self, message: Found) -> None:
        self._samples = message.samples
        self._show()

    def action_step(self, by: int) -> None:
        """Show the samples of the step before or after; after the newest the screen follows the run."""
        steps = self._steps
        if not steps:
            return
        to = max(0, min(self._place(steps) + by, len(steps) - 1))
        self._step = None if to == len(steps) - 1 else steps[to]
        self._show()
        self.query_one("#samples", VerticalScroll).scroll_home(animate=False)

    def action_scroll_lines(self, by: int) -> None:
        self.query_one("#samples", VerticalScroll).scroll_relative(y=by, animate=False)

    def _place(self, steps: list[int]) -> int:
        """Return the index of the step that is shown: of the one before, where a restart has removed the chosen one."""
        return len(steps) - 1 if self._step is None else max(bisect_right(steps, self._step) - 1, 0)

    @property
    def _steps(self) -> list[int]:
        return sorted({sample.step for sample in self._samples})

    def _show(self) -> None:
        steps = self._steps
        by_mlx, name = self._run.summary().backend == "mlx", shlex.quote(self._run.shown_name)
        none = NONE_BY_MLX if by_mlx else _NONE.format(run=name)
        text = Text(f"This run has no samples yet.\n\n{none}")
        self.query_one(KeyBar).hide(frozenset(("earlier", "later")) if len(steps) < 2 else frozenset())
        if steps:
            at = self._place(steps)
            text = Text("\n\n").join(_sample(sample) for sample in self._samples if sample.step == steps[at])
            self.query_one(Heading).show(note=f"step {fmt.exact(steps[at])} · {at + 1} of {len(steps)}")
        self.query_one("#sample-text", Static).update(text)


def _sample(sample: Sample) -> Text:
    text = Text.assemble((describe_sample(sample), "dim"), "\n", (printable(sample.prompt), "bold"))
    return text.append(printable(sample.text))
