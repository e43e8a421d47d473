"""``mla-tui sample``: text written with a checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.text.format import size

if TYPE_CHECKING:
    from engine.train.models.sample import GeneratedText, TextGenerator
    from model.latent_cache import LatentCache


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "sample", "write text with a checkpoint", "mla-tui sample models/demo -n 80")
    words = "a ckpt_step_N directory or the folder of a run's checkpoints"
    parser.add_argument("checkpoint", metavar="CKPT", help=words)
    words = "the text to go on from; without one it is asked for, or read from a pipe"
    parser.add_argument("--prompt", help=words)
    parser.add_argument("-n", "--tokens", type=int, default=120, help="how many tokens (default 120)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest (default 0.8)")
    words = "share of the probability drawn from (default 0.95)"
    parser.add_argument("--top-p", type=float, default=0.95, help=words)
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (default 0)")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write one text, or one for each line typed at a terminal. Nothing but text goes to stdout."""
    if args.tokens < 1:
        raise SpecError(f"--tokens: {args.tokens} is not at least 1")
    # Read when torch loads. Its threads wait for one another some hundred times a token; awake, they do so many times
    # longer on cores that others use too, a training for one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from dataclasses import replace

    from engine.checkpoints.checkpoint import find
    from engine.train.models.sample import TextGenerator
    from model.generate import Sampling

    sampling = Sampling(args.temperature, args.top_p, args.seed)
    generator = TextGenerator(find(args.checkpoint, Path("models")))
    if isinstance(sys.stdout, TextIOWrapper):  # a model writes what it likes, whatever the terminal can show
        sys.stdout.reconfigure(errors="replace")
    if isinstance(sys.stdin, TextIOWrapper):  # what cannot be read comes as far as the check of the prompt
        sys.stdin.reconfigure(errors="surrogateescape")
    if args.prompt is None and sys.stdin is not None and sys.stdin.isatty():
        for turn, prompt in enumerate(_typed()):
            # Another seed each time: the same prompt gives another text, the same session the same texts.
            text = generator.generate(prompt, args.tokens, replace(sampling, seed=sampling.seed + turn))
            _show(generator, prompt, text)
        return 0
    prompt = _piped() if args.prompt is None else args.prompt
    return 0 if _show(generator, prompt, generator.generate(prompt, args.tokens, sampling)) else 130


def _piped() -> str:
    """All of stdin but the newline that ends it."""
    return sys.stdin.read().removesuffix("\n") if sys.stdin is not None else ""


def _typed() -> Iterator[str]:
    """Prompts as they are typed, up to an empty one, Ctrl-D or Ctrl-C."""
    with suppress(ImportError):
        import_module("readline")  # gives input() its line editing; not every Python has it
    print("an empty line or Ctrl-D ends, Ctrl-C stops a text", file=sys.stderr)
    with suppress(EOFError, KeyboardInterrupt):
        while line := _ask("prompt> "):
            yield line


def _ask(words: str) -> str:
    if sys.stdout.isatty():
        return input(words)
    print(words, end="", file=sys.stderr, flush=True)  # stdout has the text alone
    return input()


def _show(generator: TextGenerator, prompt: str, text: GeneratedText) -> bool:
    """Print the text as it comes, and what it cost; False where Ctrl-C stopped it."""
    context = generator.cache.context
    if text.prompt_tokens > context:
        print(f"mla-tui: the prompt has {text.prompt_tokens} tokens; the last {context} are read", file=sys.stderr)
    whole = True
    try:
        print(prompt, end="", flush=True)
        for piece in text:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        whole = False
    print(flush=True)
    print(_cost(text, generator.cache), file=sys.stderr)
    return whole


def _cost(text: GeneratedText, cache: LatentCache) -> str:
    speed = f", {text.tokens_per_second:.3g} tokens/s" if text.tokens_per_second else ""
    read = f"prompt: {_tokens(text.prompt_tokens)} in {text.prefill_seconds:.2g} s"
    outgrown = f"; outgrew the context of {cache.context}, whose later half was kept" if text.exceeds_context else ""
    return f"{_tokens(text.tokens)}{speed} ({read}); cache {size(cache.bytes)}{outgrown}"


def _tokens(number: int) -> str:
    return f"{number} token" if number == 1 else f"{number} tokens"
