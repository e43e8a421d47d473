"""Every action a person can take in the app, once: keys, help, key bar and command palette are read from here.

tmux passes no Kitty keys on, so keys are letters, digits, F-keys and Ctrl (with Enter, Tab, Esc and the arrows beside
them): what is here works in any terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding

APP, HOME, NEW_RUN, MONITOR = "app", "home", "new_run", "monitor"
CHECKPOINTS, DATA = "checkpoints", "data"
SCREENS = (HOME, NEW_RUN, MONITOR, CHECKPOINTS, DATA)

_KEY_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "escape": "Esc",
    "enter": "Enter",
    "tab": "Tab",
    "up": "↑",
    "down": "↓",
    "pageup": "PgUp",
    "pagedown": "PgDn",
}


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    ``call`` is the Textual action the screen (or, for ``app``, the app) answers to; ``bar`` orders the key bar, 0 keeps
    an action out of it; ``natural`` keys are handled by the focused widget and only described here.
    """

    id: str
    keys: tuple[str, ...]
    title: str
    help: str
    screens: tuple[str, ...]
    call: str
    bar: int = 0
    destructive: bool = False
    natural: bool = False

    @property
    def key_names(self) -> str:
        return " ".join(key_name(key) for key in self.keys)


def key_name(key: str) -> str:
    """A key as a person says it: ``question_mark`` is ``?``, ``ctrl+p`` is ``Ctrl+P``."""
    if key in _KEY_NAMES:
        return _KEY_NAMES[key]
    if key.startswith("ctrl+"):
        return "Ctrl+" + key[5:].upper()
    return key.upper() if len(key) > 1 else key


_LIST = (HOME, NEW_RUN)
_AWAY = (NEW_RUN, MONITOR)

ACTIONS: tuple[Action, ...] = (
    Action("open", ("enter",), "Open", "Watch the chosen run", (HOME,), "open", bar=1),
    Action("new", ("n",), "New run", "Choose a profile, see what it needs, launch it", (HOME,), "new_run", bar=2),
    Action("filter", ("slash",), "Filter", "Find runs by name, profile or phase", (HOME,), "filter", bar=3),
    Action("resume", ("r",), "Resume", "Start the chosen run again, if it was cut off", (HOME,), "resume", bar=4),
    Action("resume_all", ("R",), "Resume all", "Start every run again that was cut off", (HOME,), "resume_all"),
    Action("down", ("j", "down"), "Down", "Next line of the list", _LIST, "cursor(1)", natural=True),
    Action("up", ("k", "up"), "Up", "Previous line of the list", _LIST, "cursor(-1)", natural=True),
    Action("quit", ("q",), "Quit", "Leave the app; runs go on", (HOME,), "app.quit", bar=9),
    Action("launch", ("f5", "ctrl+l", "enter"), "Launch", "Start the run and watch it", (NEW_RUN,), "launch", bar=1),
    Action("field", ("tab",), "Next field", "The profile list, then each field", (NEW_RUN,), "app.focus_next", bar=2),
    Action("edit", ("e",), "Edit", "Change micro, accum, context, rate … of the living run", (MONITOR,), "edit", bar=1),
    Action("pause", ("p",), "Pause", "Pause the run, or let it go on", (MONITOR,), "pause", bar=2),
    Action("checkpoint", ("c",), "Checkpoint", "Write a checkpoint now", (MONITOR,), "checkpoint", bar=3),
    Action("stop", ("x", "S"), "Stop", "Stop the run; asks, offers to save", (MONITOR,), "stop", 4, destructive=True),
    Action("zoom", ("z",), "Zoom", "Give the focused pane the whole screen, and back", (MONITOR,), "zoom", bar=5),
    Action("smooth", ("s",), "Smooth", "Smooth the lines: off, light, strong", (MONITOR,), "smooth", bar=7),
    Action("log_axis", ("y",), "Log axis", "Logarithmic or linear axis for the loss", (MONITOR,), "log_axis", bar=6),
    Action("pane_1", ("1",), "Pane 1", "Focus the loss", (MONITOR,), "pane(0)"),
    Action("pane_2", ("2",), "Pane 2", "Focus the device memory", (MONITOR,), "pane(1)"),
    Action("pane_3", ("3",), "Pane 3", "Focus the host memory", (MONITOR,), "pane(2)"),
    Action("pane_4", ("4",), "Pane 4", "Focus the throughput", (MONITOR,), "pane(3)"),
    Action("next_pane", ("tab",), "Next pane", "Focus the next pane", (MONITOR,), "app.focus_next"),
    Action("log_older", ("k", "up"), "Older", "Scroll the log to older lines", (MONITOR,), "scroll_log(1)"),
    Action("log_newer", ("j", "down"), "Newer", "Scroll the log to newer lines", (MONITOR,), "scroll_log(-1)"),
    Action("checkpoints", ("o",), "Checkpoints", "What the run has saved", (HOME, MONITOR), "checkpoints", bar=6),
    Action("data", ("d",), "Data", "The shards of the chosen run, and its sequences as text", (HOME,), "data", bar=7),
    Action("text", ("t", "enter"), "Write text", "It goes on from a prompt", (CHECKPOINTS,), "text", bar=1),
    Action("resume_from", ("r",), "Resume from", "A new run, going on from it", (CHECKPOINTS,), "resume_from", bar=2),
    Action("export", ("e",), "Export", "Write it for Hugging Face readers", (CHECKPOINTS,), "export", bar=3),
    Action("copy_path", ("y",), "Copy path", "Put its path on the clipboard", (CHECKPOINTS,), "copy_path", bar=6),
    Action("verify", ("v",), "Verify", "Read all of it and compare its checksums", (CHECKPOINTS,), "verify", bar=5),
    Action("delete", ("x",), "Delete", "Asks; newest and best stay", (CHECKPOINTS,), "delete", 4, destructive=True),
    Action("saved_down", ("j", "down"), "Down", "Next checkpoint", (CHECKPOINTS,), "cursor(1)", natural=True),
    Action("saved_up", ("k", "up"), "Up", "Previous checkpoint", (CHECKPOINTS,), "cursor(-1)", natural=True),
    Action("back_from_saved", ("q", "escape"), "Back", "End what runs, or go back", (CHECKPOINTS,), "back", bar=9),
    Action("go_step", ("s",), "Step", "What a step of the run reads", (DATA,), "step", bar=1),
    Action("go_sequence", ("g",), "Sequence", "A sequence by its number", (DATA,), "sequence", bar=2),
    Action("next_sequence", ("n",), "Next", "The next sequence", (DATA,), "move(1)", bar=3),
    Action("previous_sequence", ("p",), "Previous", "The sequence before", (DATA,), "move(-1)", bar=4),
    Action("ids", ("i",), "Ids", "Token numbers beside the text, or the text alone", (DATA,), "ids", bar=5),
    Action("other_data", ("o",), "Other data", "Of another run or of a profile", (DATA,), "other", bar=6),
    Action("data_focus", ("tab",), "Next part", "The files, then the text", (DATA,), "app.focus_next"),
    Action("data_down", ("j", "down", "pagedown"), "Down", "Files or text", (DATA,), "cursor(1)", natural=True),
    Action("data_up", ("k", "up", "pageup"), "Up", "Files or text", (DATA,), "cursor(-1)", natural=True),
    Action("back_from_data", ("q", "escape"), "Back", "Close a question, or go back", (DATA,), "back", bar=9),
    Action("back", ("q", "escape"), "Back", "Back to the runs; the run goes on", _AWAY, "back", bar=9),
    Action("help", ("question_mark", "f1"), "Help", "Every key of this screen", (APP,), "help", bar=8),
    Action("palette", ("ctrl+p",), "Commands", "Find an action by name", (APP,), "command_palette"),
    Action("leave", ("ctrl+q",), "Quit the app", "Leave the app from any screen; runs go on", (APP,), "quit"),
)  # fmt: skip


def on(screen: str) -> list[Action]:
    """The actions of one screen, those of the whole app last."""
    own = [action for action in ACTIONS if screen in action.screens]
    return own + [action for action in ACTIONS if APP in action.screens and screen != APP]


def bindings(screen: str) -> list[Binding]:
    """Textual bindings for the class of one screen (or of the app)."""
    return [
        Binding(",".join(action.keys), action.call, action.title, show=False)
        for action in ACTIONS
        if screen in action.screens and not action.natural and action.id != "palette"
    ]


def bar(screen: str) -> Iterable[tuple[str, str]]:
    """(key, title) for the key bar of one screen, the most wanted first."""
    shown = sorted((action for action in on(screen) if action.bar), key=lambda action: action.bar)
    return [(key_name(action.keys[0]), action.title) for action in shown]
