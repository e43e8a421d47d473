"""The ``mla-tui`` command line. Each command imports what it needs when it runs: ``ls`` must not wait for torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from engine.events.summary import EVENTS
from profiles.errors import UserError

Command = Callable[[argparse.Namespace], int]
_APP = ("tui.cli.run_commands:home", "tui.cli.run_commands:attach")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 ok, 1 failed, 2 usage."""
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.read_only or args.low_bandwidth) and args.command not in _APP:
        parser.error(
            "--read-only and --low-bandwidth are for the app: mla-tui --read-only, mla-tui attach RUN --read-only"
        )
    module, _, function = str(args.command).partition(":")
    command: Command = getattr(import_module(module), function)
    try:
        return command(args)
    except UserError as error:
        print(f"mla-tui: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mla-tui: {where}{error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mla-tui",
        description="Pre-train Multi-Head Latent Attention models on the machine you have. Without a command: the app.",
    )
    parser.set_defaults(command="tui.cli.run_commands:home", read_only=False, low_bandwidth=False)
    parser.add_argument("--version", action="store_true", help="print the version and end")
    _add_app(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, run: str, help: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=f"example: {example}",
        )
        sub.set_defaults(command=run)
        return sub

    def add_run(name: str, help: str, example: str, optional: bool = False) -> argparse.ArgumentParser:
        sub = add(name, f"tui.cli.run_commands:{name}", help, example)
        words = "a unique part of a run's id, its name, or latest"
        sub.add_argument("run", metavar="RUN", nargs="?" if optional else None, default="latest", help=words)
        return sub

    sub = add("launch", "tui.cli.launch:launch", "start a run that outlives this shell", "mla-tui launch -p cpu_demo")
    _add_spec(sub)
    _add_origin(sub)
    sub.add_argument("--attach", action="store_true", help="open the app on the run")
    sub.add_argument("--queue", action="store_true", help="where another run has the device, wait for it")
    sub.add_argument("--share-device", action="store_true", help="start although another run has the device")
    sub.add_argument("--dry-run", action="store_true", help="print what would be run, and where, and start nothing")

    sub = add("train", "tui.cli.launch:train", "train in the foreground", "mla-tui train -p cpu_demo -s steps=20")
    _add_spec(sub)
    _add_origin(sub)
    sub.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    sub.add_argument("--deepspeed", action="store_const", dest="backend", const="deepspeed", help=argparse.SUPPRESS)
    sub.add_argument("--deepspeed_config", "--ds-config", metavar="FILE", help="a DeepSpeed JSON file of one's own")

    sub = add("plan", "tui.cli.plan:plan", "forecast the memory of a run", "mla-tui plan -p pretrain_5080")
    _add_spec(sub)
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.add_argument(
        "--deepspeed-config", action="store_true", help="print DeepSpeed's configuration of the run instead"
    )
    sub.add_argument("--vram", type=float, metavar="GIB", help="as if on a card of so much, all free; with --ram")
    sub.add_argument("--ram", type=float, metavar="GIB", help="as if with so much RAM, all free; with --vram")

    sub = add("bench", "tui.cli.bench:bench", "measure how fast a run trains", "mla-tui bench --grid micro=4,8")
    _add_spec(sub)
    sub.add_argument(
        "--grid", action="append", default=[], metavar="K=V,V", help="every combination of these, e.g. micro=4,8"
    )
    sub.add_argument("--steps", type=int, metavar="N", help="how many steps to time, instead of a time")
    sub.add_argument("--seconds", type=float, default=20.0, metavar="S", help="time steps for so long (default 20)")
    sub.add_argument("--cap-gib", type=float, metavar="G", help="allocate no more of the device than this")
    sub.add_argument("--synthetic", action="store_true", help="random tokens, whatever data there is")
    sub.add_argument("--json", action="store_true", help="as JSON, a list of measurements")

    sub = add("ls", "tui.cli.run_commands:ls", "list the runs, newest first", "mla-tui ls")
    sub.add_argument("--json", action="store_true", help="as JSON, what status gives for each")

    _add_app(add_run("attach", "open the app on a run", "mla-tui attach latest", optional=True))
    words = "lay runs side by side: losses at the same x, and what differs in their specs"
    sub = add("compare", "tui.cli.compare:compare", words, "mla-tui compare first second --by tokens")
    sub.add_argument("runs", metavar="RUN", nargs="+", help="a unique part of a run's id, its name, or latest")
    words = "where losses are held against each other (default step)"
    sub.add_argument("--by", choices=("step", "tokens", "time"), default="step", help=words)
    sub.add_argument("--json", action="store_true", help="as JSON")

    sub = add_run("status", "say how a run is doing", "mla-tui status latest --json")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = add_run("logs", "print what the trainer wrote to its console", "mla-tui logs latest -f")
    sub.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")
    sub = add_run("watch", "follow a run as plain lines", "mla-tui watch latest --json")
    sub.add_argument("--from", dest="start", type=int, default=0, metavar="AT", help="begin at this log offset")
    sub.add_argument("--no-follow", action="store_true", help="end with what is there now")
    sub.add_argument("--json", action="store_true", help="one record a line, each with its log offset")
    sub = add_run("set", "change a living run", "mla-tui set latest micro=4")
    keys = "micro, accum, lr_scale, val_every, save_every, stop_step; with --unlock also sequences and context"
    sub.add_argument("changes", nargs="+", metavar="KEY=VALUE", help=keys)
    sub.add_argument("--unlock", action="store_true", help="let a step become another: its sequences, its context")
    sub.add_argument("--force", action="store_true", help="although the forecast is more than there is")
    add_run("pause", "hold a run between two micro-batches", "mla-tui pause latest")
    words = "let a paused run go on, or start one that was cut off again"
    sub = add("resume", "tui.cli.resume:resume", words, "mla-tui resume latest")
    sub.add_argument("run", metavar="RUN", nargs="?", help="a unique part of a run's id, its name, or latest")
    sub.add_argument(
        "--cut-off", action="store_true", help="every run that a reboot or a kill of both processes cut off"
    )
    add_run("checkpoint", "save now", "mla-tui checkpoint latest")
    sub = add_run("stop", "save and end a run", "mla-tui stop latest")
    sub.add_argument("--no-save", action="store_true", help="end without a checkpoint")
    sub.add_argument("--kill", action="store_true", help="end a run that hears nothing any more, without a checkpoint")
    add_run("rm", "forget an ended run; its checkpoints stay", "mla-tui rm 20261123-194712")

    words = "look whether this machine can hold a run for weeks"
    sub = add("doctor", "tui.cli.doctor:doctor", words, "mla-tui doctor")
    sub.add_argument("--json", action="store_true", help="as JSON, a list of what was found")

    sub = add("hooks", "tui.cli.hooks:show", "list the commands run on events", "mla-tui hooks try finished")
    inner = sub.add_subparsers(title="commands", metavar="COMMAND")
    words = "run one now, with an example of its record"
    sub = inner.add_parser("try", help=words, description=f"{words}.", epilog="example: mla-tui hooks try finished")
    sub.add_argument("event", choices=EVENTS, help="what happens to a run")
    sub.set_defaults(command="tui.cli.hooks:try_out")

    words = "resume runs after a reboot unasked, by a systemd user unit"
    sub = add("service", "tui.cli.service:show", words, "mla-tui service install")
    inner = sub.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, words in (("install", "write and enable the unit"), ("remove", "disable it"), ("show", "print the unit")):
        sub = inner.add_parser(name, help=words, description=f"{words}.", epilog=f"example: mla-tui service {name}")
        sub.set_defaults(command=f"tui.cli.service:{name}")

    words = "write text with a checkpoint"
    sub = add("sample", "tui.cli.checkpoint_commands:sample", words, "mla-tui sample models/demo -n 80")
    sub.add_argument("checkpoint", metavar="CKPT", help="a ckpt_step_N directory or the folder of a run's checkpoints")
    sub.add_argument("--prompt", help="the text to go on from; without one it is asked for, or read from a pipe")
    sub.add_argument("-n", "--tokens", type=int, default=120, help="how many tokens (default 120)")
    sub.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest (default 0.8)")
    sub.add_argument("--top-p", type=float, default=0.95, help="share of the probability drawn from (default 0.95)")
    sub.add_argument("--seed", type=int, default=0, help="of the drawing (default 0)")

    words = "list the checkpoints of a run, the newest first"
    sub = add("checkpoints", "tui.cli.checkpoint_commands:listing", words, "mla-tui checkpoints latest")
    sub.add_argument("run", metavar="RUN", nargs="?", default="latest", help="a run's id, its name, or latest")
    sub.add_argument("--verify", action="store_true", help="read every file and hold it against its checksum")
    sub.add_argument("--json", action="store_true", help="as JSON")

    words = "write a checkpoint for other programs"
    sub = add("export", "tui.cli.checkpoint_commands:export", words, "mla-tui export models/demo OUT --format hf")
    sub.add_argument("checkpoint", metavar="CKPT", help="a ckpt_step_N directory or the folder of a run's checkpoints")
    sub.add_argument("out", metavar="OUT", help="a new or empty directory")
    sub.add_argument("--format", choices=("hf",), default="hf", help="hf: what transformers and mlx-lm read")
    sub.add_argument("--dtype", choices=("fp32", "bf16"), help="of the weights (default: as in the checkpoint)")

    data = add("data", "tui.cli.launch:data_inspect", "look at packed shards", "mla-tui data inspect data/shards")
    inner = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    sub = inner.add_parser("inspect", help="what shards hold", epilog="example: mla-tui data inspect data/shards")
    sub.add_argument("path", metavar="PATH", help="a .bin file, a phase or a folder of phases")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.set_defaults(command="tui.cli.launch:data_inspect")
    words = "what a run or a profile reads, and its sequences as text"
    sub = inner.add_parser("show", help=words, epilog="example: mla-tui data show latest --step 100")
    sub.add_argument("what", metavar="WHAT", help="a profile, or a run's id, its name, or latest")
    sub.add_argument("--step", type=int, metavar="N", help="show a sequence that this step takes")
    sub.add_argument(
        "--sequence", type=int, metavar="K", help="its number in the step, without one in the epoch; -1: the last"
    )
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.set_defaults(command="tui.cli.data:show")
    return parser


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--profile", metavar="PROFILE", help="a profile's name or a .toml file")
    parser.add_argument(
        *("-s", "--set"), dest="overrides", action="append", default=[], metavar="K=V", help="override, e.g. micro=4"
    )
    parser.add_argument("--backend", choices=("auto", "torch", "deepspeed", "mlx"), help="what does the arithmetic")


def _add_app(parser: argparse.ArgumentParser) -> None:
    # Suppressed, so that a command's own parser does not take back what stood before the command.
    for flag, words in (
        ("--read-only", "the app only looks: whatever changes a run is refused"),
        ("--low-bandwidth", "the app paints less often, for slow lines"),
    ):
        parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=words)


def _add_origin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="N", help="of the run and its checkpoint folder")
    parser.add_argument("--resume", metavar="CKPT", help="go on from a checkpoint, or from the latest")
    parser.add_argument("--init-from", metavar="CKPT", help="start afresh from the weights of a checkpoint or HF dir")
