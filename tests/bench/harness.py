"""Compares ``mla-tui eval`` with lm-evaluation-harness on the export of the same model, question by question.

    python -m tests.bench harness               compare; needs pip install 'mla-tui[harness]'
    python -m tests.bench.harness --record      write what the harness says to the fixture of the suite

``HARNESS_PYTHON`` may name another Python that has the harness.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.train.evaluation.benchmark import Benchmark, task_benchmark, text_benchmark
from engine.train.evaluation.loaded import LoadedModel, load_model
from engine.train.evaluation.scoring import score
from engine.train.models.export import export
from tests.unit.train.evaluation_files import write_model, write_tasks

EXPECTED = Path(__file__).parents[1] / "unit" / "train" / "harness_expected.json"
_SCRIPT = Path(__file__).with_name("harness_script.py")


def bench_harness(folder: Path) -> None:
    """Print for each format the metrics of both, and the largest relative difference of a log-likelihood."""
    theirs = measure_with_harness(folder)
    if theirs is None:
        print("harness: lm_eval is not installed; pip install 'mla-tui[harness]', or set HARNESS_PYTHON")
        return
    for name, (metrics, likely) in measure_here(folder).items():
        other = theirs[name]
        apart = max(abs(a - b) / abs(b) for a, b in zip(likely, other["log_likelihoods"], strict=True))
        print(f"{name}: {len(likely)} log-likelihoods, at most {apart:.1e} apart")
        for metric, value in other["metrics"].items():
            print(f"  {metric:13} here {metrics[metric]:.8g}  harness {value:.8g}")


def measure_here(folder: Path) -> dict[str, tuple[dict[str, float], list[float]]]:
    """Return metrics and log-likelihoods by format."""
    loaded = load_model(write_model(folder / "models"))
    found = {}
    for name, path in write_tasks(folder / "tasks").items():
        one = _benchmark(loaded, name, path)
        answers = score(loaded.model, one.requests)
        likely = [answer.log_probability for answer in answers]
        found[name] = one.metrics(answers), [sum(likely)] if name == "text" else likely
    return found


def _benchmark(loaded: LoadedModel, name: str, path: Path) -> Benchmark:
    return text_benchmark(loaded, path, None) if name == "text" else task_benchmark(loaded, path, None, None)


def measure_with_harness(folder: Path) -> dict[str, Any] | None:
    """Return metrics and log-likelihoods by format, or None where the harness is not installed."""
    python = os.environ.get("HARNESS_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import lm_eval"], capture_output=True, check=False).returncode:
        return None
    hf = export(write_model(folder / "exported"), folder / "hf").path
    write_tasks(folder / "tasks")
    answer = folder / "answer.json"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    command = [python, str(_SCRIPT), str(hf), str(folder / "tasks"), str(answer)]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        if sys.argv[1:] != ["--record"]:
            bench_harness(Path(home))
        elif recorded := measure_with_harness(Path(home)):
            EXPECTED.write_text(json.dumps(recorded, indent=1) + "\n")
