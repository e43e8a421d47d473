"""Runs lm-evaluation-harness on question files: HF_DIR TASKS ANSWER. Imports nothing of mla-tui."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

CHOICE = [
    {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm", "acc_bytes")
]
CLOZE = [
    {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
]
TEXT = [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}]


def main(model: str, tasks: Path, answer: Path) -> None:
    """Write metrics and log-likelihoods by format. The wording is that of the tasks that the harness has."""
    lm_eval = importlib.import_module("lm_eval")
    hellaswag = importlib.import_module("lm_eval.tasks.hellaswag.utils")
    (tasks / "text.jsonl").write_text(json.dumps({"text": (tasks / "text.txt").read_text()}) + "\n")
    wording: dict[str, dict[str, Any]] = {
        "hellaswag": {
            "output_type": "multiple_choice",
            "process_docs": hellaswag.process_docs,
            "doc_to_text": "{{query}}",
            "doc_to_target": "{{label}}",
            "doc_to_choice": "choices",
            "metric_list": CHOICE,
        },
        "arc": {
            "output_type": "multiple_choice",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{choices.label.index(answerKey)}}",
            "doc_to_choice": "{{choices.text}}",
            "metric_list": CHOICE,
        },
        "piqa": {
            "output_type": "multiple_choice",
            "doc_to_text": "Question: {{goal}}\nAnswer:",
            "doc_to_target": "label",
            "doc_to_choice": "{{[sol1, sol2]}}",
            "metric_list": CHOICE,
        },
        "lambada": {
            "output_type": "loglikelihood",
            "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
            "doc_to_target": "{{' '+text.split(' ')[-1]}}",
            "metric_list": CLOZE,
        },
        "text": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": TEXT,
        },
    }
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={model},dtype=float32",
        tasks=[
            {
                "task": f"local_{name}",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(tasks / f"{name}.jsonl")}},
                "test_split": "test",
                **words,
            }
            for name, words in wording.items()
        ],
        device="cpu",
        batch_size=8,
        bootstrap_iters=0,
    )
    result = {}
    for name, words in wording.items():
        values = found["results"][f"local_{name}"]
        samples = sorted(found["samples"][f"local_{name}"], key=lambda sample: sample["doc_id"])
        likely = [_number(response[0]) for sample in samples for response in sample["resps"]]
        metrics = {one["metric"]: values[f"{one['metric']},none"] for one in words["metric_list"]}
        result[name] = {"metrics": metrics, "log_likelihoods": likely}
    answer.write_text(json.dumps({**result, "version": lm_eval.__version__}))


def _number(response: Any) -> float:
    """Return the log-likelihood of a response, which may also say whether it is greedy."""
    return float(response[0] if isinstance(response, (list, tuple)) else response)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
