"""``mla-tui sample``: generates text from a checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING

from profiles.errors import SpecError, UserError
from tui.cli.checkpoint_argument import find_checkpoint_argument, reading
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.terminal_output import data_output
from tui.text.format import size

if TYPE_CHECKING:
    from engine.train.models.sample import GeneratedText, TextGenerator
    from model.latent_cache import LatentCache

_LONGEST = 4 << 20  # characters of a prompt; of fewer the last ones are used, as many as the context holds


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "sample", "generate text from a checkpoint", "mla-tui sample models/demo -n 80")
    help = "a run, a ckpt_step_N directory or the folder of a run's checkpoints"
    parser.add_argument("checkpoint", metavar="CKPT", help=help)
    help = "the text to continue; without it, read from the terminal or a pipe"
    parser.add_argument("--prompt", help=help)
    parser.add_argument("-n", "--tokens", type=int, default=120, help="tokens to generate (default 120)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default 0.8)")
    help = "probability mass to sample from (default 0.95)"
    parser.add_argument("--top-p", type=float, default=0.95, help=help)
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Generate one text, or one for each prompt typed at a terminal. Only the text goes to stdout."""
    if args.tokens < 1:
        raise SpecError(f"--tokens: {args.tokens} must be at least 1")
    # Set before torch loads. Its threads wait for each other some hundred times a token. Busy waiting makes that many
    # times slower on cores that another process uses too, such as a training run.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from dataclasses import replace

    from engine.train.models.sample import TextGenerator
    from model.generate import Sampling

    sampling = Sampling(args.temperature, args.top_p, args.seed)
    with reading(path := find_checkpoint_argument(args.checkpoint), args.checkpoint):
        generator = TextGenerator(path)
    if isinstance(sys.stdin, TextIOWrapper):  # leave undecodable input to the check of the prompt
        sys.stdin.reconfigure(errors="surrogateescape")
    if args.prompt is None and sys.stdin.isatty():
        for turn, prompt in enumerate(_read_prompts()):
            # Another seed for each prompt: repeating a prompt gives a new text, repeating a session the same texts.
            text = generator.generate(prompt, args.tokens, replace(sampling, seed=sampling.seed + turn))
            _print_text(generator, prompt, text)
        return 0
    prompt = _read_stdin() if args.prompt is None else args.prompt
    return 0 if _print_text(generator, prompt, generator.generate(prompt, args.tokens, sampling)) else 130


def _read_stdin() -> str:
    """Return all of stdin without the last newline. Raise ``UserError`` where it is no prompt, and may have no end."""
    text = sys.stdin.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise UserError(f"standard input has more than {_LONGEST:,} characters: give the end of it as the prompt")
    return text.removesuffix("\n")


def _read_prompts() -> Iterator[str]:
    """Yield typed prompts until an empty one, Ctrl-D or Ctrl-C."""
    with suppress(ImportError):
        import_module("readline")  # line editing for input(); not every Python has it
    print("an empty line or Ctrl-D exits, Ctrl-C stops generating", file=sys.stderr)
    with suppress(EOFError, KeyboardInterrupt):
        while line := _ask("prompt> "):
            yield line


def _ask(question: str) -> str:
    if sys.stdout.isatty():
        return input(question)
    print(question, end="", file=sys.stderr, flush=True)  # only the text goes to stdout
    return input()


def _print_text(generator: TextGenerator, prompt: str, text: GeneratedText) -> bool:
    """Print the text as it is generated, then its cost; return False if Ctrl-C stopped it."""
    context = generator.cache.context
    if text.prompt_tokens > context:
        print(f"mla-tui: the prompt has {text.prompt_tokens} tokens; only the last {context} are used", file=sys.stderr)
    complete, out = True, data_output()
    try:
        print(prompt, end="", file=out, flush=True)
        for piece in text:
            print(piece, end="", file=out, flush=True)
    except KeyboardInterrupt:
        complete = False
    print(file=out, flush=True)
    print(_cost(text, generator.cache), file=sys.stderr)
    return complete


def _cost(text: GeneratedText, cache: LatentCache) -> str:
    speed = f", {text.tokens_per_second:.3g} tokens/s" if text.tokens_per_second else ""
    prompt = f"prompt: {_tokens(text.prompt_tokens)} in {text.prefill_seconds:.2g} s"
    overflow = (
        f"; longer than the context of {cache.context}: continued from its second half" if text.exceeds_context else ""
    )
    return f"{_tokens(text.tokens)}{speed} ({prompt}); cache {size(cache.bytes)}{overflow}"


def _tokens(number: int) -> str:
    return f"{number} token" if number == 1 else f"{number} tokens"
