"""Lists every action of the app, screen by screen: keys, help, key bar and command palette are read from here.

tmux passes no Kitty keys on, so keys are letters, digits, F-keys and Ctrl (with Enter, Tab, Esc and the arrows beside
them): what is here works in any terminal.
"""

from __future__ import annotations

from dataclasses import replace

from tui.app.actions.action import CHARTS, RUN, WHOLE_APP, Action, ActionSet

# The app

HELP = Action("help", ("question_mark", "f1"), "Help", "Every key of this screen", WHOLE_APP, "app.help", bar=8)
EVERYWHERE = ActionSet(
    "Everywhere",
    (
        HELP,
        Action("palette", ("ctrl+p",), "Commands", "Find an action by name", WHOLE_APP, "app.command_palette"),
        Action(
            "settings", ("f2", "comma"), "Settings", "Theme, refresh, bandwidth, bell, keys", WHOLE_APP, "app.settings"
        ),
        Action("quit_app", ("ctrl+q",), "Quit the app", "Leave it from any screen; runs go on", WHOLE_APP, "app.quit"),
    ),
)

# Widgets: what the focused list or text does

DOWN = Action("down", ("j", "down"), "Down", "Next line of the list", handler="cursor", args=(1,))
UP = Action("up", ("k", "up"), "Up", "Previous line of the list", handler="cursor", args=(-1,))
PAGE_DOWN = Action("page_down", ("pagedown",), "Page down", "Ten lines down", handler="cursor", args=(10,))
PAGE_UP = Action("page_up", ("pageup",), "Page up", "Ten lines up", handler="cursor", args=(-10,))
_END = 1_000_000
LIST = ActionSet(
    "List",
    (
        DOWN,
        UP,
        PAGE_DOWN,
        PAGE_UP,
        Action("first", ("home",), "First", "First line of the list", handler="cursor", args=(-_END,)),
        Action("last", ("end",), "Last", "Last line of the list", handler="cursor", args=(_END,)),
    ),
)
LEVERS = ActionSet("Memory levers", (Action("choose", ("enter",), "Choose", "Take the lever under the cursor", RUN),))
TEXT = ActionSet("Text", tuple(replace(action, handler="scroll_lines") for action in (DOWN, UP, PAGE_DOWN, PAGE_UP)))
_CURSOR = (DOWN, UP)

# What several screens have

BACK = Action("back", ("q", "escape"), "Back", "Close what is open here, or go back", WHOLE_APP, bar=9)
FOCUS_NEXT = Action("focus_next", ("tab",), "Next field", "Focus the next field or pane", handler="app.focus_next")
OPEN = Action("open", ("enter",), "Open", "Watch the chosen run")
SMOOTH = Action("smooth", ("s",), "Smooth", "Smooth the lines: off, light, strong", CHARTS, bar=7)
LOG_AXIS = Action("log_axis", ("y",), "Log axis", "Logarithmic or linear values", CHARTS, bar=7)
CHECKPOINTS_OF_RUN = Action("checkpoints", ("o",), "Checkpoints", "What the run has saved", bar=6)

# Screens

HOME = ActionSet(
    "Runs",
    (
        replace(OPEN, bar=1),
        Action("new_run", ("n",), "New run", "Choose a profile, see what it needs, launch it", bar=2),
        Action("filter", ("slash",), "Filter", "Find runs by name, profile or phase", bar=3),
        Action("clear_filter", ("escape",), "Clear filter", "Show runs of any name, profile or phase"),
        Action("state", ("f",), "Which", "All runs, the living, the ended, those in trouble", bar=7),
        Action("sort", ("s",), "Sort", "By start, loss, speed, progress or name", bar=6),
        Action("mark", ("space",), "Mark", "Mark the chosen run to compare it, or unmark it", bar=4),
        Action("unmark_all", ("u",), "Unmark all", "Take every mark away"),
        Action("compare", ("c",), "Compare", "Lay the marked runs over each other", bar=5),
        CHECKPOINTS_OF_RUN,
        Action("data", ("d",), "Data", "The shards of the chosen run, and its sequences as text", bar=7),
        Action("resume", ("r",), "Resume", "Start the chosen run again, if it was cut off", RUN, changes=True),
        Action("resume_all", ("R",), "Resume all", "Start every run again that was cut off", RUN, changes=True),
        Action("quit", ("q",), "Quit", "Leave the app; runs go on", WHOLE_APP, "app.quit", bar=9),
    ),
    _CURSOR,
    EVERYWHERE.own,
)

NEW_RUN = ActionSet(
    "New run",
    (
        Action("launch", ("f5", "ctrl+l", "enter"), "Launch", "Start the run and watch it", RUN, bar=1, changes=True),
        Action("queue", ("f6",), "Queue", "Launch it as soon as the device is free", RUN, bar=3, changes=True),
        Action("reduce_memory", ("f4",), "Smaller", "Ways to make it smaller; Enter takes one", bar=4),
        replace(FOCUS_NEXT, bar=2),
        BACK,
    ),
    _CURSOR,
    EVERYWHERE.own,
)

MONITOR = ActionSet(
    "Monitor",
    (
        Action(
            "tune", ("e",), "Tune", "Change micro, accum, context, rate … of the living run", RUN, bar=1, changes=True
        ),
        Action("pause", ("p",), "Pause", "Pause the run, or let it go on", RUN, bar=2, changes=True),
        Action("checkpoint", ("c",), "Checkpoint", "Write a checkpoint now", RUN, bar=3, changes=True),
        Action(
            "stop", ("x", "S"), "Stop", "Stop the run; asks, offers to save", RUN, bar=4, changes=True, destructive=True
        ),
        # The charts
        Action("maximize", ("z",), "Zoom", "Give the focused pane the whole screen, and back", CHARTS, bar=5),
        SMOOTH,
        LOG_AXIS,
        Action("pane_1", ("1",), "Pane 1", "Focus the loss", CHARTS, "focus_pane", (0,)),
        Action("pane_2", ("2",), "Pane 2", "Focus the device memory", CHARTS, "focus_pane", (1,)),
        Action("pane_3", ("3",), "Pane 3", "Focus the host memory", CHARTS, "focus_pane", (2,)),
        Action("pane_4", ("4",), "Pane 4", "Focus the throughput", CHARTS, "focus_pane", (3,)),
        Action("focus_log", ("5",), "Log", "Focus the log, for z to give it the whole screen", CHARTS),
        replace(FOCUS_NEXT, group=CHARTS),
        Action("zoom_in", ("i",), "Closer", "Fewer steps, in all panes (or wheel)", CHARTS, "zoom", (0.5,), bar=6),
        Action("zoom_out", ("u",), "Wider", "Look at more steps (or wheel)", CHARTS, "zoom", (2,)),
        Action("all_steps", ("0",), "All steps", "Look at all steps again", CHARTS),
        Action("earlier", ("h", "left"), "Earlier", "Move cursor or window left (or drag)", CHARTS, "pan", (-1,)),
        Action("later", ("l", "right"), "Later", "The same to the right; at the end it follows", CHARTS, "pan", (1,)),
        Action("cursor", ("v",), "Cursor", "Read all panes at one step (or click)", CHARTS, bar=6),
        Action(
            "previous_event",
            ("m",),
            "Event",
            "Cursor to the event before: ▲ edit ▪ checkpoint ↻ restart × out of memory « rewind ∅ not finite",
            CHARTS,
            "move_to_event",
            (-1,),
        ),
        Action("next_event", ("M",), "Event on", "Cursor to the event behind", CHARTS, "move_to_event", (1,)),
        Action(
            "copy",
            ("C",),
            "Copy",
            "Values at the cursor to the clipboard (OSC 52; in tmux: set -g set-clipboard on)",
            CHARTS,
        ),
        # The log
        Action("search", ("slash",), "Search", "Find lines of the log by words", bar=6),
        Action("next_match", ("n",), "Next match", "The next older line that matches", handler="find", args=(-1,)),
        Action(
            "previous_match", ("N",), "Previous match", "The next newer line that matches", handler="find", args=(1,)
        ),
        Action("only_matches", ("w",), "Only matches", "Show only the lines that match, or all"),
        Action("log_up", ("k", "up"), "Older", "Scroll the log to older lines", handler="scroll_log", args=(1,)),
        Action("log_down", ("j", "down"), "Newer", "Scroll the log to newer lines", handler="scroll_log", args=(-1,)),
        Action("log_page_up", ("pageup",), "Page up", "A page of older lines", handler="page_log", args=(1,)),
        Action("log_page_down", ("pagedown",), "Page down", "A page of newer lines", handler="page_log", args=(-1,)),
        Action("log_oldest", ("g",), "Oldest", "The first lines of the log"),
        Action("log_newest", ("G",), "Newest", "The newest lines of the log"),
        CHECKPOINTS_OF_RUN,
        replace(BACK, keys=("q",), help="Back to the runs; the run goes on"),
        Action("close", ("escape",), "Put away", "Cursor, then search, then zoom; then back"),
    ),
    inherited=EVERYWHERE.own,
)

COMPARE = ActionSet(
    "Compare",
    (
        Action(
            "next_metric", ("n",), "Next series", "Loss, validation, speed, rate, gradient …", CHARTS, "metric", (1,), 1
        ),
        Action("previous_metric", ("b",), "Series before", "The series before this one", CHARTS, "metric", (-1,)),
        Action("x_axis", ("x",), "X axis", "By step, by tokens, by time since the first step", CHARTS, bar=2),
        replace(LOG_AXIS, bar=6),
        SMOOTH,
        Action("differences", ("d",), "Differences", "What differs in the runs' specs, and back", bar=3),
        Action("hide", ("space",), "Hide", "Hide the chosen run, or show it again", bar=4),
        Action("baseline", ("f",), "First", "Measure Δ against the chosen run", bar=5),
        OPEN,
        BACK,
    ),
    _CURSOR,
    EVERYWHERE.own,
)

CHECKPOINTS = ActionSet(
    "Checkpoints",
    (
        Action("sample", ("t", "enter"), "Write text", "It goes on from a prompt", bar=1),
        Action("resume_from", ("r",), "Resume from", "A new run, going on from it", RUN, bar=2, changes=True),
        Action("export", ("e",), "Export", "Write it for Hugging Face readers", RUN, bar=3, changes=True),
        Action("delete", ("x",), "Delete", "Asks; newest and best stay", RUN, bar=4, changes=True, destructive=True),
        Action("verify", ("v",), "Verify", "Read all of it and compare its checksums", bar=5),
        Action("copy_path", ("y",), "Copy path", "Put its path on the clipboard", bar=6),
        BACK,
    ),
    _CURSOR,
    EVERYWHERE.own,
)

DATA = ActionSet(
    "Data",
    (
        Action("go_to_step", ("s",), "Step", "What a step of the run reads", bar=1),
        Action("go_to_sequence", ("g",), "Sequence", "A sequence by its number", bar=2),
        Action("next_sequence", ("n",), "Next", "The next sequence", handler="sequence", args=(1,), bar=3),
        Action("previous_sequence", ("p",), "Previous", "The sequence before", handler="sequence", args=(-1,), bar=4),
        Action("token_ids", ("i",), "Ids", "Token numbers beside the text, or the text alone", bar=5),
        Action("open_data", ("o",), "Other data", "Of another run or of a profile", bar=6),
        FOCUS_NEXT,
        BACK,
    ),
    (*_CURSOR, PAGE_DOWN, PAGE_UP),
    EVERYWHERE.own,
)

SETTINGS = ActionSet(
    "Settings",
    (
        Action("change", ("enter",), "Change", "The next value; of a key: press the new one", bar=1),
        Action("reset", ("d",), "Default", "Back to what it is without settings", bar=2),
        BACK,
    ),
    _CURSOR,
    EVERYWHERE.own,
)

# Dialogs: while one is open the keys of the app do nothing

CANCEL = Action("cancel", ("q", "escape"), "Cancel", "Close the dialog and change nothing", WHOLE_APP)
_FOCUS_PREVIOUS = Action(
    "focus_previous", (), "Focus previous", "Focus the previous field", handler="app.focus_previous"
)
CONFIRM = ActionSet(
    "Question",
    (CANCEL, replace(FOCUS_NEXT, keys=("right", "l")), replace(_FOCUS_PREVIOUS, keys=("left", "h"))),
)
TUNING = ActionSet(
    "Tuning",
    (CANCEL, replace(FOCUS_NEXT, keys=("down", "j")), replace(_FOCUS_PREVIOUS, keys=("up", "k"))),
)
NEW_KEY = ActionSet("New key", (replace(CANCEL, keys=("escape",)),))
HELP_DIALOG = ActionSet(
    "Help",
    (
        replace(BACK, keys=("q", "escape", "enter")),
        replace(HELP, handler="back"),
        replace(DOWN, keys=("j",), handler="scroll_lines"),
        replace(UP, keys=("k",), handler="scroll_lines"),
    ),
)

SCREENS = (HOME, NEW_RUN, MONITOR, COMPARE, CHECKPOINTS, DATA, SETTINGS)
DIALOGS = (CONFIRM, TUNING, NEW_KEY, HELP_DIALOG)
WIDGETS = (LIST, LEVERS, TEXT)
