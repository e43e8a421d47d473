"""Lists every action of the app, screen by screen: keys, help, key bar and command palette are read from here.

Keys are letters, digits, F-keys, Ctrl and a letter, Enter, Tab, Esc and the cursor keys: any terminal sends them, and
tmux passes them on, which it does not for keys of the Kitty protocol.
"""

from __future__ import annotations

from dataclasses import replace

from tui.app.actions.action import APP, CHARTS, RUN, Action, ActionSet

# The app

HELP = Action("help", ("question_mark", "f1"), "Help", "Show every key of this screen", APP, "app.help", bar=8)
EVERYWHERE = ActionSet(
    "Everywhere",
    (
        HELP,
        Action("palette", ("ctrl+p",), "Commands", "Find an action by its name", APP, "app.command_palette"),
        Action("settings", ("f2", "comma"), "Settings", "Theme, refresh, bandwidth, bell, keys", APP, "app.settings"),
        Action("quit_app", ("ctrl+q",), "Quit the app", "Leave it from any screen; runs continue", APP, "app.quit"),
    ),
)

# Where a field has the focus, which takes what can be typed, the keys that it does not take come first.
_WHILE_TYPING = tuple(replace(action, keys=tuple(sorted(action.keys, key=len))) for action in EVERYWHERE.own)

# Widgets: the keys of the focused list or text

DOWN = Action("down", ("j", "down"), "Down", "Next line", handler="cursor", args=(1,))
UP = Action("up", ("k", "up"), "Up", "Previous line", handler="cursor", args=(-1,))
PAGE_DOWN = Action("page_down", ("pagedown",), "Page down", "Move ten lines down", handler="cursor", args=(10,))
PAGE_UP = Action("page_up", ("pageup",), "Page up", "Move ten lines up", handler="cursor", args=(-10,))
_END = 1_000_000
_MOVES = (
    DOWN,
    UP,
    PAGE_DOWN,
    PAGE_UP,
    Action("first", ("g", "home"), "First line", "Go to the first line", handler="cursor", args=(-_END,)),
    Action("last", ("G", "end"), "Last line", "Go to the last line", handler="cursor", args=(_END,)),
)
LIST = ActionSet("List", _MOVES)
LEVERS = ActionSet(
    "Memory levers",
    (Action("choose", ("enter",), "Apply", "Apply what the fields say, or the selected option", RUN),),
)
TEXT = ActionSet("Text", tuple(replace(action, handler="scroll_lines") for action in _MOVES))

# Shared by several screens

BACK = Action("back", ("q", "escape"), "Back", "Close what is open, else go back", APP, bar=9)
FOCUS_NEXT = Action("focus_next", ("tab",), "Focus next", "Focus the next field or pane", handler="app.focus_next")
OPEN = Action("open", ("enter",), "Open", "Open the monitor of the selected run")
SMOOTH = Action("smooth", ("s",), "Smooth", "Smooth the lines: off, light, strong", CHARTS, bar=7)
LOG_SCALE = Action("log_scale", ("y",), "Log scale", "Logarithmic or linear y axis", CHARTS, bar=7)
X_AXIS = Action("x_axis", ("x",), "X axis", "Steps, tokens or time, in all panes", CHARTS, bar=6)
_EARLIER = Action(
    "earlier", ("h", "left"), "Earlier", "Move the cursor or the view left (or drag)", CHARTS, "pan", (-1,)
)
_LATER = Action("later", ("l", "right"), "Later", "The same to the right; at the end it follows", CHARTS, "pan", (1,))
_NAVIGATE_CHARTS = (
    Action("zoom_in", ("i",), "Zoom in", "Show fewer steps in all panes (or wheel)", CHARTS, "zoom", (0.5,), bar=6),
    Action("zoom_out", ("u",), "Zoom out", "Show more steps in all panes (or wheel)", CHARTS, "zoom", (2,)),
    Action("all_steps", ("0",), "All steps", "Show all steps again", CHARTS),
    _EARLIER,
    _LATER,
    Action("cursor", ("v",), "Cursor", "Read the values of all panes at one step (or click)", CHARTS, bar=6),
)
_COPY = Action(
    "copy", ("C",), "Copy", "Copy the values at the cursor (OSC 52; in tmux: set -g set-clipboard on)", CHARTS
)
STOP = Action("stop", ("S",), "Stop", "Asks whether to save first", RUN, bar=4, changes=True, destructive=True)
LIST_CHECKPOINTS = Action("checkpoints", ("o",), "Checkpoints", "List the checkpoints of the run", bar=6)

# Screens

HOME = ActionSet(
    "Runs",
    (
        replace(OPEN, bar=1),
        Action("new_run", ("n",), "New run", "Choose a profile, see its memory forecast, launch it", bar=2),
        Action("filter", ("slash",), "Filter", "Find runs by name, profile or phase", bar=3),
        Action("clear_filter", ("escape",), "Clear filter", "Show runs of every name, profile and phase"),
        Action("state", ("f",), "State", "Show all runs, active ones, ended ones, or those that need attention", bar=7),
        Action("sort", ("s",), "Sort", "By start, loss, speed, progress or name", bar=6),
        Action("mark", ("space",), "Mark", "Mark or unmark the selected run for comparison", bar=4),
        Action("mark_all", ("a",), "Mark all", "Mark every listed run: all that match the filter"),
        Action("unmark_all", ("u",), "Unmark all", "Remove every mark"),
        Action("compare", ("c",), "Compare", "Compare the marked runs in one chart", bar=5),
        LIST_CHECKPOINTS,
        Action("data", ("d",), "Data", "Show the shards of the selected run, and its sequences as text", bar=7),
        Action("pause", ("p",), "Pause", "Pause the marked runs, or the selected one", RUN, bar=6, changes=True),
        Action("resume", ("r",), "Resume", "Resume those that are paused or were cut off", RUN, bar=6, changes=True),
        STOP,
        Action(
            "tag", ("t",), "Tag", "Add tags to the marked runs, or the selected one; -tag removes it", RUN, changes=True
        ),
        Action("note", ("w",), "Note", "Write a note to the marked runs, or the selected one", RUN, changes=True),
        Action("rename", ("e",), "Rename", "Change the name shown of the selected run", RUN, changes=True),
        Action(
            "remove",
            ("D",),
            "Remove",
            "Remove ended runs, with their checkpoints or without; asks",
            RUN,
            changes=True,
            destructive=True,
        ),
        Action("resume_all", ("R",), "Resume all", "Resume every run that was cut off", RUN, changes=True),
        Action("propose", ("i",), "Machine profile", "See what was found here, write a profile for it", changes=True),
        Action("quit", ("q",), "Quit", "Leave the app; runs continue", APP, "app.quit", bar=9),
    ),
    LIST.own,
    EVERYWHERE.own,
)

NEW_RUN = ActionSet(
    "New run",
    (
        Action("launch", ("f5", "ctrl+l", "enter"), "Launch", "Launch and monitor the run", RUN, bar=1, changes=True),
        Action("queue", ("f6",), "Queue", "Launch the run when the device is free", RUN, bar=3, changes=True),
        Action("reduce_memory", ("f4",), "Reduce memory", "Options, fastest first; Enter applies one", bar=4),
        replace(FOCUS_NEXT, bar=2),
        BACK,
    ),
    LIST.own,
    EVERYWHERE.own,
)

MONITOR = ActionSet(
    "Monitor",
    (
        Action(
            "tune", ("e",), "Live tuning", "Change micro, context, lr … of the active run", RUN, bar=1, changes=True
        ),
        Action("pause", ("p",), "Pause", "Pause the run, or continue it", RUN, bar=2, changes=True),
        Action(
            "resume",
            ("r",),
            "Resume",
            "Resume the run, if it is paused, was cut off or needs attention",
            RUN,
            bar=1,
            changes=True,
        ),
        Action("checkpoint", ("c",), "Checkpoint", "Save a checkpoint now", RUN, bar=3, changes=True),
        STOP,
        # The charts
        Action("maximize", ("z",), "Maximize", "Maximize the focused pane, or restore it", CHARTS, bar=5),
        SMOOTH,
        LOG_SCALE,
        Action("pane_1", ("1",), "Pane 1", "Focus the loss", CHARTS, "focus_pane", (0,)),
        Action("pane_2", ("2",), "Pane 2", "Focus the device memory", CHARTS, "focus_pane", (1,)),
        Action("pane_3", ("3",), "Pane 3", "Focus the host memory", CHARTS, "focus_pane", (2,)),
        Action("pane_4", ("4",), "Pane 4", "Focus the throughput", CHARTS, "focus_pane", (3,)),
        Action("focus_log", ("5",), "Log", "Focus the log; z maximizes it", CHARTS),
        Action("more_panes", ("a",), "More panes", "Show the panes that do not fit here", CHARTS, args=(1,), bar=5),
        Action("previous_panes", ("A",), "Previous panes", "Show the panes before", CHARTS, "more_panes", (-1,)),
        Action("choose_panes", ("f",), "Choose panes", "Add or remove the pane of any metric", CHARTS, bar=7),
        Action("spec", ("d",), "Spec", "Show what the run was started with, live edits marked; or hide it", bar=6),
        replace(FOCUS_NEXT, group=CHARTS),
        *_NAVIGATE_CHARTS,
        X_AXIS,
        Action(
            "previous_event",
            ("m",),
            "Previous event",
            "Cursor to the event before: ▲ edit ▪ checkpoint ↻ restart × out of memory « rewind ∅ not finite",
            CHARTS,
            "move_to_event",
            (-1,),
        ),
        Action("next_event", ("M",), "Next event", "Cursor to the event after", CHARTS, "move_to_event", (1,)),
        _COPY,
        # The log
        Action(
            "open_line",
            ("enter",),
            "Open",
            "Show the found or lowest line of the log whole; of a failed run its output",
        ),
        Action("search", ("slash",), "Search", "Search the log for words", bar=6),
        Action("next_match", ("n",), "Next match", "Next older match", handler="find", args=(-1,)),
        Action("previous_match", ("N",), "Previous match", "Next newer match", handler="find", args=(1,)),
        Action("only_matches", ("w",), "Only matches", "Show only the lines that match, or all lines"),
        Action("log_up", ("k", "up"), "Older", "Scroll the log to older lines", handler="scroll_log", args=(1,)),
        Action("log_down", ("j", "down"), "Newer", "Scroll the log to newer lines", handler="scroll_log", args=(-1,)),
        Action("log_page_up", ("pageup",), "Page up", "A page of older lines", handler="page_log", args=(1,)),
        Action("log_page_down", ("pagedown",), "Page down", "A page of newer lines", handler="page_log", args=(-1,)),
        Action("log_oldest", ("g", "home"), "Oldest", "Go to the first lines of the log"),
        Action("log_newest", ("G", "end"), "Newest", "Go to the newest lines of the log"),
        LIST_CHECKPOINTS,
        Action("console", ("t",), "Console", "Show what the trainer printed: console.log", bar=7),
        Action("samples", ("T",), "Samples", "Show the text that the run generated, step by step", bar=7),
        replace(BACK, keys=("q",), help="Back to the runs; the run continues"),
        Action("close", ("escape",), "Close", "Close the cursor, the search or the maximized pane, else go back"),
    ),
    inherited=EVERYWHERE.own,
)

COMPARE = ActionSet(
    "Compare",
    (
        Action(
            "next_metric",
            ("n",),
            "Next metric",
            "Loss, validation, tokens/s, learning rate …",
            CHARTS,
            "metric",
            (1,),
            1,
        ),
        Action("previous_metric", ("b",), "Previous metric", "Show the previous metric", CHARTS, "metric", (-1,)),
        replace(X_AXIS, help="Steps, tokens, or time since the first step", bar=2),
        *_NAVIGATE_CHARTS,
        _COPY,
        replace(LOG_SCALE, bar=6),
        SMOOTH,
        Action("differences", ("d",), "Differences", "Show how the specs of the runs differ, or the chart", bar=3),
        Action("hide", ("space",), "Hide", "Hide or show the selected run", bar=4),
        Action("baseline", ("f",), "Baseline", "Make the selected run the baseline of Δ", bar=5),
        OPEN,
        BACK,
    ),
    LIST.own,
    EVERYWHERE.own,
)

CHECKPOINTS = ActionSet(
    "Checkpoints",
    (
        Action("sample", ("t", "enter"), "Sample", "Generate text from a prompt", bar=1),
        Action("resume_from", ("r",), "Resume from", "Launch a new run from this checkpoint", RUN, bar=2, changes=True),
        Action(
            "export",
            ("e",),
            "Export",
            "Export the model: a folder for transformers, a file for llama.cpp",
            RUN,
            bar=3,
            changes=True,
        ),
        Action(
            "delete", ("D",), "Delete", "Asks; the newest and best stay", RUN, bar=4, changes=True, destructive=True
        ),
        Action("verify", ("v",), "Verify", "Read every byte and check the checksums", bar=5),
        Action("copy_path", ("C",), "Copy path", "Copy the path to the clipboard", bar=6),
        BACK,
    ),
    LIST.own,
    EVERYWHERE.own,
)

CONSOLE = ActionSet("Console", (BACK,), TEXT.own, EVERYWHERE.own)

SAMPLES = ActionSet(
    "Samples",
    (
        replace(_EARLIER, help="The samples of the step before", handler="step", bar=1),
        replace(_LATER, help="Those of the step after; at the end it follows", handler="step", bar=2),
        *TEXT.own,
        BACK,
    ),
    inherited=EVERYWHERE.own,
)

DATA = ActionSet(
    "Data",
    (
        Action("go_to_step", ("s",), "Step", "Show the sequences of a step", bar=1),
        Action("go_to_sequence", ("number_sign",), "Sequence", "Go to a sequence by its number", bar=2),
        Action("next_sequence", ("n",), "Next", "The sequence after", handler="sequence", args=(1,), bar=3),
        Action("previous_sequence", ("p",), "Previous", "The sequence before", handler="sequence", args=(-1,), bar=4),
        Action("token_ids", ("i",), "Token ids", "Show the token ids beside the text, or the text alone", bar=5),
        Action("open_data", ("o",), "Other data", "Show the data of another run or profile", bar=6),
        Action("pack_text", ("a",), "Pack text", "Turn text files into data that a run reads", bar=7),
        FOCUS_NEXT,
        BACK,
    ),
    LIST.own,
    EVERYWHERE.own,
)

PACK = ActionSet(
    "Pack text",
    (
        Action("start", ("f5", "enter"), "Pack", "Start it; it goes on when the app is closed", bar=1, changes=True),
        Action("stop", ("f8",), "Stop", "Stop it; Pack goes on from there", bar=2, changes=True),
        replace(FOCUS_NEXT, bar=3),
        replace(BACK, keys=("escape",), help="Back to the data; a pack goes on"),
    ),
    TEXT.own,
    _WHILE_TYPING,
)

SETTINGS = ActionSet(
    "Settings",
    (
        Action("change", ("enter",), "Change", "Set the next value; for a key: press the new one", bar=1),
        Action("reset", ("d",), "Reset", "Restore the default", bar=2),
        BACK,
    ),
    LIST.own,
    EVERYWHERE.own,
)

# Dialogs: while one is open, the keys of the app and of the screen below do nothing

CANCEL = Action("cancel", ("q", "escape"), "Cancel", "Close the dialog and change nothing", APP)
_PREVIOUS = Action("focus_previous", (), "Focus previous", "Focus the previous field", handler="app.focus_previous")
_DIALOG_HELP = replace(HELP, handler="help")
CONFIRM = ActionSet(
    "Question",
    (
        CANCEL,
        replace(FOCUS_NEXT, keys=("tab", "right", "l", "down", "j"), help="Mark the next answer"),
        replace(_PREVIOUS, keys=("left", "h", "up", "k"), help="Mark the answer before"),
        _DIALOG_HELP,
    ),
    (Action("press", ("enter",), "Choose", "Choose the marked answer"),),
)
TUNING = ActionSet(
    "Live tuning",
    (
        CANCEL,
        replace(FOCUS_NEXT, keys=("tab", "down", "j"), help="The next field; j and ↓ also the next line of the list"),
        replace(_PREVIOUS, keys=("up", "k"), help="The field before, or the line before in the list"),
        _DIALOG_HELP,
    ),
    (*LEVERS.own, *LIST.own[2:]),
)
PANES = ActionSet(
    "Panes",
    (
        Action(
            "add_or_remove",
            ("space", "enter"),
            "Add or remove",
            "Add the pane of the selected metric, or remove it",
            CHARTS,
        ),
        Action("usual", ("d",), "Default", "The panes that a run has without a choice", CHARTS),
        replace(BACK, help="Keep the choice, for every run"),
        _DIALOG_HELP,
    ),
    LIST.own,
)
LOG_LINE = ActionSet(
    "Log line",
    (
        replace(BACK, keys=("q", "escape", "enter")),
        replace(_COPY, help="Copy the text"),
        *(replace(action, handler="scroll_lines") for action in _MOVES),
        _DIALOG_HELP,
    ),
)
PROPOSAL = ActionSet(
    "A profile for this machine",
    (Action("write", ("enter",), "Write", "Write the profile", RUN, changes=True), CANCEL, _DIALOG_HELP),
)
NEW_KEY = ActionSet("New key", (replace(CANCEL, keys=("escape",)),))
HELP_DIALOG = ActionSet(
    "Help",
    (
        replace(BACK, keys=("q", "escape", "enter")),
        replace(HELP, handler="back"),
    ),
    TEXT.own,
)

SCREENS = (HOME, NEW_RUN, MONITOR, COMPARE, CHECKPOINTS, CONSOLE, SAMPLES, DATA, PACK, SETTINGS)
DIALOGS = (CONFIRM, TUNING, PANES, LOG_LINE, PROPOSAL, NEW_KEY, HELP_DIALOG)
WIDGETS = (LIST, LEVERS, TEXT)
