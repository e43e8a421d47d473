"""Commands that use checkpoints: list them, write text with it, write it for other programs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import SpecError, UserError

if TYPE_CHECKING:
    from engine.train.models.sample import Text, Writer
    from model.latent_cache import LatentCache


def sample(args: argparse.Namespace) -> int:
    """Write one text, or one for each line typed at a terminal. Nothing but text goes to stdout."""
    if args.tokens < 1:
        raise SpecError(f"--tokens: {args.tokens} is not at least 1")
    # Read when torch loads. Its threads wait for one another some hundred times a token; awake, they do so many times
    # longer on cores that others use too, a training for one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from engine.checkpoints.checkpoint import find
    from engine.train.models.sample import Writer
    from model.generate import Sampling

    sampling = Sampling(args.temperature, args.top_p, args.seed)
    writer = Writer(find(args.checkpoint, Path("models")))
    if isinstance(sys.stdout, TextIOWrapper):  # a model writes what it likes, whatever the terminal can show
        sys.stdout.reconfigure(errors="replace")
    if isinstance(sys.stdin, TextIOWrapper):  # what cannot be read comes as far as the check of the prompt
        sys.stdin.reconfigure(errors="surrogateescape")
    if args.prompt is None and sys.stdin is not None and sys.stdin.isatty():
        for turn, prompt in enumerate(_typed()):
            # Another seed each time: the same prompt gives another text, the same session the same texts.
            _show(writer, prompt, writer.write(prompt, args.tokens, replace(sampling, seed=sampling.seed + turn)))
        return 0
    prompt = _piped() if args.prompt is None else args.prompt
    return 0 if _show(writer, prompt, writer.write(prompt, args.tokens, sampling)) else 130


def export(args: argparse.Namespace) -> int:
    """Write the checkpoint in another program's format; the directory goes to stdout."""
    from engine.checkpoints.checkpoint import find
    from engine.train.models.export import export as write
    from tui.text.format import size

    written = write(find(args.checkpoint, Path("models")), Path(args.out), args.dtype)
    print(written.path)
    print(f"step {written.step}, {written.dtype}, {size(written.bytes)}", file=sys.stderr)
    if not written.tokenizer:
        print("mla-tui: the checkpoint holds no tokenizer.json: readers will ask for one", file=sys.stderr)
    return 0


def listing(args: argparse.Namespace) -> int:
    """The checkpoints of a run; with ``--verify`` damaged content makes the status 1, as damaged sizes always do."""
    from engine.checkpoints.checkpoint import verify
    from engine.checkpoints.inventory import inventory
    from engine.runs.store import RunStore
    from tui.text import format as words

    run = RunStore().find(args.run)
    kept = inventory(run)
    if args.verify:
        for i, one in enumerate(kept):
            try:
                verify(Path(one.path))
            except UserError as error:
                kept[i] = replace(one, damage=str(error).partition(";")[0])
    if args.json:
        print(json.dumps([one.to_dict() for one in kept], indent=1))
    for one in kept if not args.json else ():
        marks = [word for word, is_so in (("newest", one.newest), ("best", one.best)) if is_so]
        facts = [words.moment(one.written), words.size(one.bytes), f"loss {words.loss(one.loss)}"]
        facts += [f"val {words.loss(one.val_loss)}", *filter(None, (one.why,)), *marks]
        print(f"step {words.exact(one.step)}  {one.path}  {', '.join(facts)}")
    for one in kept:
        if one.damage:
            print(f"mla-tui: {one.path}: {one.damage}", file=sys.stderr)
    if not kept:
        print(f"mla-tui: {run.name} has no checkpoint; write one with: mla-tui checkpoint {run.id}", file=sys.stderr)
    return 1 if any(one.damage for one in kept) else 0


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


def _show(writer: Writer, prompt: str, text: Text) -> bool:
    """Print the text as it comes, and what it cost; False where Ctrl-C stopped it."""
    context = writer.cache.context
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
    print(_cost(text, writer.cache), file=sys.stderr)
    return whole


def _cost(text: Text, cache: LatentCache) -> str:
    from tui.text.format import size

    speed = f", {text.tokens_per_second:.3g} tokens/s" if text.tokens_per_second else ""
    read = f"prompt: {_tokens(text.prompt_tokens)} in {text.prompt_seconds:.2g} s"
    outgrown = f"; outgrew the context of {cache.context}, whose later half was kept" if text.outgrown else ""
    return f"{_tokens(text.tokens)}{speed} ({read}); cache {size(cache.bytes)}{outgrown}"


def _tokens(number: int) -> str:
    return f"{number} token" if number == 1 else f"{number} tokens"
