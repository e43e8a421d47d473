"""Every action a person can take in the app, once: keys, help, key bar and command palette are read from here.

tmux passes no Kitty keys on, so keys are letters, digits, F-keys and Ctrl (with Enter, Tab, Esc and the arrows beside
them): what is here works in any terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding

APP, HOME, NEW_RUN, MONITOR = "app", "home", "new_run", "monitor"
SCREENS = (HOME, NEW_RUN, MONITOR)

_KEY_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "escape": "Esc",
    "enter": "Enter",
    "tab": "Tab",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
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
    Action("log_axis", ("y",), "Log axis", "Logarithmic or linear axis for the loss", (MONITOR,), "log_axis", bar=7),
    Action("pane_1", ("1",), "Pane 1", "Focus the loss", (MONITOR,), "pane(0)"),
    Action("pane_2", ("2",), "Pane 2", "Focus the device memory", (MONITOR,), "pane(1)"),
    Action("pane_3", ("3",), "Pane 3", "Focus the host memory", (MONITOR,), "pane(2)"),
    Action("pane_4", ("4",), "Pane 4", "Focus the throughput", (MONITOR,), "pane(3)"),
    Action("pane_5", ("5",), "Log", "Focus the log, for z to give it the whole screen", (MONITOR,), "pane(4)"),
    Action("next_pane", ("tab",), "Next pane", "Focus the next pane", (MONITOR,), "app.focus_next"),
    Action("closer", ("i",), "Closer", "Fewer steps, in all panes (or wheel)", (MONITOR,), "closer(0.5)", bar=6),
    Action("wider", ("o",), "Wider", "Look at more steps (or wheel)", (MONITOR,), "closer(2)"),
    Action("whole", ("0",), "All steps", "Look at all steps again", (MONITOR,), "whole"),
    Action("left", ("h", "left"), "Earlier", "Move cursor or window left (or drag)", (MONITOR,), "sideways(-1)"),
    Action("right", ("l", "right"), "Later", "The same to the right; at the end it follows", (MONITOR,), "sideways(1)"),
    Action("cursor", ("v",), "Cursor", "Read all panes at one step (or click)", (MONITOR,), "cursor", bar=6),
    Action("mark", ("m",), "Event", "Cursor to the event before: ▲ edit ▪ checkpoint ↻ restart × out of memory"
           " « rewind ∅ not finite", (MONITOR,), "to_mark(-1)"),
    Action("mark_on", ("M",), "Event on", "Cursor to the event behind", (MONITOR,), "to_mark(1)"),
    Action("copy", ("C",), "Copy", "Values at the cursor to the clipboard (OSC 52; in tmux: set -g set-clipboard on)",
           (MONITOR,), "copy"),
    Action("search", ("slash",), "Search", "Find lines of the log by words", (MONITOR,), "search", bar=6),
    Action("found", ("n",), "Next match", "The next older line that matches", (MONITOR,), "find(-1)"),
    Action("found_on", ("N",), "Previous match", "The next newer line that matches", (MONITOR,), "find(1)"),
    Action("only", ("w",), "Only matches", "Show only the lines that match, or all", (MONITOR,), "only"),
    Action("log_older", ("k", "up"), "Older", "Scroll the log to older lines", (MONITOR,), "scroll_log(1)"),
    Action("log_newer", ("j", "down"), "Newer", "Scroll the log to newer lines", (MONITOR,), "scroll_log(-1)"),
    Action("log_page", ("pageup",), "Page up", "A page of older lines", (MONITOR,), "page_log(1)"),
    Action("log_page_on", ("pagedown",), "Page down", "A page of newer lines", (MONITOR,), "page_log(-1)"),
    Action("log_first", ("g",), "Oldest", "The first lines of the log", (MONITOR,), "log_end(True)"),
    Action("log_last", ("G",), "Newest", "The newest lines of the log", (MONITOR,), "log_end(False)"),
    Action("back", ("q", "escape"), "Back", "Back to the runs; the run goes on", (NEW_RUN,), "back", bar=9),
    Action("back_to_runs", ("q",), "Back", "Back to the runs; the run goes on", (MONITOR,), "back", bar=9),
    Action("put_away", ("escape",), "Put away", "Cursor, then search, then zoom; then back", (MONITOR,), "put_away"),
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
