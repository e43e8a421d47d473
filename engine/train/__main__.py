"""``python -m engine.train --job DIR --attempt N``: what a supervisor starts. People use ``mla-tui train``."""

import argparse
import sys
from pathlib import Path

from engine.jobs.store import Job
from engine.train.main import run_job

parser = argparse.ArgumentParser(prog="engine.train")
parser.add_argument("--job", type=Path, required=True)
parser.add_argument("--attempt", type=int, required=True)
args = parser.parse_args()
sys.exit(run_job(Job(args.job.absolute()), args.attempt))
