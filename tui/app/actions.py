"""Every action a person can take in the app, once: keys, help, key bar and command palette are read from here.

tmux passes no Kitty keys on, so keys are letters, digits, F-keys and Ctrl (with Enter, Tab, Esc and the arrows beside
them): what is here works in any terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from textual.binding import Binding
from textual.keys import key_to_character

Keys = Mapping[str, tuple[str, ...]]
"""The keys of a person's own, by the action's id."""

APP, HOME, NEW_RUN, MONITOR, SETTINGS = "app", "home", "new_run", "monitor", "settings"
COMPARE, CHECKPOINTS, DATA = "compare", "checkpoints", "data"
SCREENS = (HOME, NEW_RUN, MONITOR, COMPARE, CHECKPOINTS, DATA, SETTINGS)
NAMES = {
    **{HOME: "Runs", NEW_RUN: "New run", MONITOR: "Monitor", COMPARE: "Compare"},
    **{CHECKPOINTS: "Checkpoints", DATA: "Data"},
    **{SETTINGS: "Settings", APP: "Everywhere"},
}

MOVING, CHARTS, RUN, WHOLE_APP = GROUPS = ("Moving", "Charts", "Run", "App")
_UNCHANGED: Keys = {}

_KEY_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "comma": ",",
    "escape": "Esc",
    "enter": "Enter",
    "tab": "Tab",
    "space": "Space",
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
    an action out of it; ``natural`` keys are handled by the focused widget and only described here. What ``changes``
    a run, a file or the machine is refused where the app only looks. ``section`` is its group in the help.
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
    changes: bool = False
    section: str = ""

    @property
    def group(self) -> str:
        """Its heading in the help: the one it names, else by what it is."""
        if self.section:
            return self.section
        if self.changes or self.destructive:
            return RUN
        return WHOLE_APP if self.screens == (APP,) or "quit" in self.call or self.call == "back" else MOVING

    @property
    def key_names(self) -> str:
        return " ".join(key_name(key) for key in self.keys)


def key_name(key: str) -> str:
    """A key as a person says it: ``question_mark`` is ``?``, ``ctrl+p`` is ``Ctrl+P``."""
    if key in _KEY_NAMES:
        return _KEY_NAMES[key]
    if len(key) > 1 and (character := key_to_character(key)) is not None and character.isprintable():
        return character
    if key.startswith("ctrl+"):
        return "Ctrl+" + key[5:].upper()
    return key.upper() if len(key) > 1 else key


_LIST = (HOME, NEW_RUN, COMPARE, SETTINGS)

ACTIONS: tuple[Action, ...] = (
    Action("open", ("enter",), "Open", "Watch the chosen run", (HOME,), "open", bar=1),
    Action("new", ("n",), "New run", "Choose a profile, see what it needs, launch it", (HOME,), "new_run", bar=2),
    Action("filter", ("slash",), "Filter", "Find runs by name, profile or phase", (HOME,), "filter", bar=3),
    Action("resume", ("r",), "Resume", "Start the chosen run again, if it was cut off",
           (HOME,), "resume", changes=True),
    Action("resume_all", ("R",), "Resume all", "Start every run again that was cut off",
           (HOME,), "resume_all", changes=True),
    Action("mark_run", ("space",), "Mark", "Mark the chosen run to compare it, or unmark it", (HOME,), "mark", bar=4),
    Action("compare", ("c",), "Compare", "Lay the marked runs over each other", (HOME,), "compare", bar=5),
    Action("unmark", ("u",), "Unmark all", "Take every mark away", (HOME,), "unmark"),
    Action("sort", ("s",), "Sort", "By start, loss, speed, progress or name", (HOME,), "sort", bar=6),
    Action("which", ("f",), "Which", "All runs, the living, the ended, those in trouble", (HOME,), "which", bar=7),
    Action("series", ("n",), "Next series", "Loss, validation, speed, rate, gradient …",
           (COMPARE,), "series(1)", 1, section=CHARTS),
    Action("series_back", ("b",), "Series before", "The series before this one",
           (COMPARE,), "series(-1)", section=CHARTS),
    Action("axis", ("x",), "X axis", "By step, by tokens, by time since the first step",
           (COMPARE,), "axis", bar=2, section=CHARTS),
    Action("specs", ("d",), "Differences", "What differs in the runs' specs, and back", (COMPARE,), "specs", bar=3),
    Action("hide", ("space",), "Hide", "Hide the chosen run, or show it again", (COMPARE,), "hide", bar=4),
    Action("first", ("f",), "First", "Measure Δ against the chosen run", (COMPARE,), "first", bar=5),
    Action("look", ("enter",), "Open", "Watch the chosen run", (COMPARE,), "look"),
    Action("log_runs", ("y",), "Log axis", "Logarithmic or linear values",
           (COMPARE,), "log_axis", bar=6, section=CHARTS),
    Action("smooth_runs", ("s",), "Smooth", "Smooth the lines: off, light, strong",
           (COMPARE,), "smooth", bar=7, section=CHARTS),
    Action("back_home", ("q", "escape"), "Back", "From the differences, then from the runs", (COMPARE,), "back", bar=9),
    Action("down", ("j", "down"), "Down", "Next line of the list", _LIST, "cursor(1)", natural=True),
    Action("up", ("k", "up"), "Up", "Previous line of the list", _LIST, "cursor(-1)", natural=True),
    Action("quit", ("q",), "Quit", "Leave the app; runs go on", (HOME,), "app.quit", bar=9),
    Action("launch", ("f5", "ctrl+l", "enter"), "Launch", "Start the run and watch it",
           (NEW_RUN,), "launch", bar=1, changes=True),
    Action("queue", ("f6",), "Queue", "Launch it as soon as the device is free",
           (NEW_RUN,), "queue", bar=3, changes=True),
    Action("smaller", ("f4",), "Smaller", "Ways to make it smaller; Enter takes one", (NEW_RUN,), "smaller", bar=4),
    Action("field", ("tab",), "Next field", "The profile list, then each field", (NEW_RUN,), "app.focus_next", bar=2),
    Action("edit", ("e",), "Tune", "Change micro, accum, context, rate … of the living run",
           (MONITOR,), "edit", bar=1, changes=True),
    Action("pause", ("p",), "Pause", "Pause the run, or let it go on", (MONITOR,), "pause", bar=2, changes=True),
    Action("checkpoint", ("c",), "Checkpoint", "Write a checkpoint now", (MONITOR,), "checkpoint", bar=3, changes=True),
    Action("stop", ("x", "S"), "Stop", "Stop the run; asks, offers to save",
           (MONITOR,), "stop", 4, destructive=True, changes=True),
    Action("zoom", ("z",), "Zoom", "Give the focused pane the whole screen, and back",
           (MONITOR,), "zoom", bar=5, section=CHARTS),
    Action("smooth", ("s",), "Smooth", "Smooth the lines: off, light, strong",
           (MONITOR,), "smooth", bar=7, section=CHARTS),
    Action("log_axis", ("y",), "Log axis", "Logarithmic or linear axis for the loss",
           (MONITOR,), "log_axis", bar=7, section=CHARTS),
    Action("pane_1", ("1",), "Pane 1", "Focus the loss", (MONITOR,), "pane(0)", section=CHARTS),
    Action("pane_2", ("2",), "Pane 2", "Focus the device memory", (MONITOR,), "pane(1)", section=CHARTS),
    Action("pane_3", ("3",), "Pane 3", "Focus the host memory", (MONITOR,), "pane(2)", section=CHARTS),
    Action("pane_4", ("4",), "Pane 4", "Focus the throughput", (MONITOR,), "pane(3)", section=CHARTS),
    Action("pane_5", ("5",), "Log", "Focus the log, for z to give it the whole screen",
           (MONITOR,), "pane(4)", section=CHARTS),
    Action("next_pane", ("tab",), "Next pane", "Focus the next pane", (MONITOR,), "app.focus_next", section=CHARTS),
    Action("closer", ("i",), "Closer", "Fewer steps, in all panes (or wheel)",
           (MONITOR,), "closer(0.5)", bar=6, section=CHARTS),
    Action("wider", ("u",), "Wider", "Look at more steps (or wheel)", (MONITOR,), "closer(2)", section=CHARTS),
    Action("whole", ("0",), "All steps", "Look at all steps again", (MONITOR,), "whole", section=CHARTS),
    Action("left", ("h", "left"), "Earlier", "Move cursor or window left (or drag)",
           (MONITOR,), "sideways(-1)", section=CHARTS),
    Action("right", ("l", "right"), "Later", "The same to the right; at the end it follows",
           (MONITOR,), "sideways(1)", section=CHARTS),
    Action("cursor", ("v",), "Cursor", "Read all panes at one step (or click)",
           (MONITOR,), "cursor", bar=6, section=CHARTS),
    Action("mark", ("m",), "Event", "Cursor to the event before: ▲ edit ▪ checkpoint ↻ restart × out of memory"
           " « rewind ∅ not finite", (MONITOR,), "to_mark(-1)", section=CHARTS),
    Action("mark_on", ("M",), "Event on", "Cursor to the event behind", (MONITOR,), "to_mark(1)", section=CHARTS),
    Action("copy", ("C",), "Copy", "Values at the cursor to the clipboard (OSC 52; in tmux: set -g set-clipboard on)",
           (MONITOR,), "copy", section=CHARTS),
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
    Action("checkpoints", ("o",), "Checkpoints", "What the run has saved", (HOME, MONITOR), "checkpoints", bar=6),
    Action("data", ("d",), "Data", "The shards of the chosen run, and its sequences as text", (HOME,), "data", bar=7),
    Action("text", ("t", "enter"), "Write text", "It goes on from a prompt", (CHECKPOINTS,), "text", bar=1),
    Action("resume_from", ("r",), "Resume from", "A new run, going on from it",
           (CHECKPOINTS,), "resume_from", bar=2, changes=True),
    Action("export", ("e",), "Export", "Write it for Hugging Face readers",
           (CHECKPOINTS,), "export", bar=3, changes=True),
    Action("copy_path", ("y",), "Copy path", "Put its path on the clipboard", (CHECKPOINTS,), "copy_path", bar=6),
    Action("verify", ("v",), "Verify", "Read all of it and compare its checksums", (CHECKPOINTS,), "verify", bar=5),
    Action("delete", ("x",), "Delete", "Asks; newest and best stay",
           (CHECKPOINTS,), "delete", 4, destructive=True, changes=True),
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
    Action("back", ("q", "escape"), "Back", "Back to the runs; the run goes on", (NEW_RUN,), "back", bar=9),
    Action("back_to_runs", ("q",), "Back", "Back to the runs; the run goes on", (MONITOR,), "back", bar=9),
    Action("put_away", ("escape",), "Put away", "Cursor, then search, then zoom; then back", (MONITOR,), "put_away"),
    Action("change", ("enter",), "Change", "The next value; of a key: press the new one", (SETTINGS,), "change", bar=1),
    Action("default", ("d",), "Default", "Back to what it is without settings", (SETTINGS,), "default", bar=2),
    Action("close", ("q", "escape"), "Back", "Back to where you were", (SETTINGS,), "back", bar=9),
    Action("help", ("question_mark", "f1"), "Help", "Every key of this screen", (APP,), "help", bar=8),
    Action("palette", ("ctrl+p",), "Commands", "Find an action by name", (APP,), "command_palette"),
    Action("settings", ("f2", "comma"), "Settings", "Theme, refresh, bandwidth, bell, keys", (APP,), "settings"),
    Action("leave", ("ctrl+q",), "Quit the app", "Leave the app from any screen; runs go on", (APP,), "quit"),
)  # fmt: skip


def on(screen: str, keys: Keys = _UNCHANGED, read_only: bool = False) -> list[Action]:
    """The actions of one screen, those of the whole app last; without those that change something if ``read_only``.

    ``keys`` take the place of an action's own.
    """
    own = [action for action in ACTIONS if screen in action.screens]
    own += [action for action in ACTIONS if APP in action.screens and screen != APP]
    return [replace(a, keys=keys[a.id]) if a.id in keys else a for a in own if not (read_only and a.changes)]


def bindings(screen: str) -> list[Binding]:
    """Textual bindings for the class of one screen (or of the app)."""
    return [
        # The palette must open also where a text field has the focus.
        Binding(
            ",".join(action.keys), action.call, action.title, show=False, id=action.id, priority=action.id == "palette"
        )
        for action in ACTIONS
        if screen in action.screens and not action.natural
    ]


def changing(screen: str, call: str) -> Action | None:
    """The action of one screen that ``call`` stands for, where it changes something."""
    return next((a for a in on(screen) if a.changes and a.call == call), None)


def bar(screen: str, keys: Keys = _UNCHANGED, read_only: bool = False) -> Iterable[tuple[str, str]]:
    """(key, title) for the key bar of one screen, the most wanted first."""
    shown = sorted((action for action in on(screen, keys, read_only) if action.bar), key=lambda action: action.bar)
    return [(key_name(action.keys[0]), action.title) for action in shown]
