"""``python -m engine.train --job DIR --attempt N``: what a supervisor starts. People use ``mla-tui train``.

``--worker`` is for the ranks of other machines, which are told everything by the first.
"""

import argparse
import os
import sys
from pathlib import Path

from engine.events.run_dir import Job
from engine.host.programs import TRAINER
from engine.train.main import run_job, run_worker

parser = argparse.ArgumentParser(prog=TRAINER)
parser.add_argument("--job", type=Path)
parser.add_argument("--attempt", type=int, default=1)
parser.add_argument("--worker", action="store_true")
args = parser.parse_args()
if args.worker == (args.job is not None):
    parser.error("give --job or --worker")
first = os.environ.get("RANK", "0") == "0"
sys.exit(run_job(Job(args.job.absolute()), args.attempt) if args.job and first else run_worker())
