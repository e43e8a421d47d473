"""``python -m engine.train --run-dir DIR --attempt N``: the trainer process that a supervisor starts. Users start
``mla-tui train``.

``--worker`` is for ranks on other machines; rank 0 sends them the spec.
"""

import argparse
import os
import sys
from pathlib import Path

from engine.events.run_dir import RunDir
from engine.host.programs import TRAINER
from engine.train.main import run_trainer, run_worker

parser = argparse.ArgumentParser(prog=TRAINER)
parser.add_argument("--run-dir", type=Path)
parser.add_argument("--attempt", type=int, default=1)
parser.add_argument("--worker", action="store_true")
args = parser.parse_args()
if args.worker == (args.run_dir is not None):
    parser.error("give --run-dir or --worker")
first = os.environ.get("RANK", "0") == "0"
sys.exit(run_trainer(RunDir(args.run_dir.absolute()), args.attempt) if args.run_dir and first else run_worker())
