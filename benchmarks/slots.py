"""The slot modes on real data: how often they apply, what they find, and how often they are wrong.

    python -m benchmarks.slots --data DIR

DIR holds a folder for each set (`--sets e2e_nlg webnlg`) with `train` and `validation` files of documents and
references.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, Record, environment, save
from homestretch.config import RunConfig
from homestretch.data import load_splits
from homestretch.failures import SLOT_MODES, build_modes
from homestretch.ops.meaning import slots
from homestretch.ops.slots import SlotLexicon, slot_lexicon
from homestretch.types import Completion, Corpus, Example, FailureMode

FLAG = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write benchmarks/results/slots.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each set")
    parser.add_argument("--sets", nargs="+", default=["e2e_nlg", "webnlg"], help="the sets' folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "slots.json")
    options = parser.parse_args(arguments)
    sets = {name: measure(options.data / name, options.seed) for name in options.sets}
    for name, record in sets.items():
        print(name, {key: value for key, value in record.items() if key != "modes"})
        for mode, values in record["modes"].items():
            print(f"  {mode}: {values}")
    described = environment("cpu", 1) | {"command": ["benchmarks.slots", "--data", "DIR", "--sets", *options.sets]}
    save(options.out, {"environment": described, "settings": sets})


def measure(folder: Path, seed: int) -> Record:
    """The figures of one set: its lexicon's, and each mode's."""
    data = {"path": str(folder), "drop_overlaps": ["validation", "test"]}
    splits = load_splits(
        RunConfig.model_validate({"data": data, "model": {"path": "none"}, "seed": seed}, strict=False)
    )
    start = time.process_time()
    modes = build_modes(SLOT_MODES, Corpus(splits.train, seed))
    fitting = time.process_time() - start
    lexicon = slot_lexicon(splits.train, seed)
    unused, reworded = lexicon.unchecked()
    return {
        "train_documents": len(splits.train),
        "validation_documents": len(splits.validation),
        "validation_references": sum(len(example.references) for example in splits.validation),
        "slots": len(lexicon.values),
        "slots_not_used": len(unused),
        "slots_mostly_reworded": len(reworded),
        "values_checkable": _share_checkable(lexicon, splits.validation),
        "fit_cpu_seconds": round(fitting, 1),
        "slot_error_rate_of_references": _error_rate(lexicon, splits.validation),
        "modes": {mode.name: mode_figures(mode, lexicon, splits.validation, seed) for mode in modes},
    }


def mode_figures(mode: FailureMode, lexicon: SlotLexicon, examples: Sequence[Example], seed: int) -> Record:
    """How often a mode applies, makes an error that no reference has, finds its own edits, and flags references."""
    made = [(example, mode.corrupt(example, np.random.default_rng([seed, i]))) for i, example in enumerate(examples)]
    edits = [(example, edit.completion) for example, edit in made if edit is not None]
    found = [mode.detect(example, completion) for example, completion in edits]
    changed = [_differs(lexicon, example, completion.text) for example, completion in edits]
    alarms = [mode.detect(e, Completion(text)) for e in examples for text in e.references]
    judged = [severity for severity in alarms if severity is not None]
    return {
        "applies": _share([edit is not None for _, edit in made]),
        "recall": _share([severity is not None and severity >= FLAG for severity in found]),
        "unlike_every_reference": _share(changed),
        "flagged_references": _share([severity >= FLAG for severity in judged]),
        "judged_references": len(judged),
    }


def _differs(lexicon: SlotLexicon, example: Example, text: str) -> bool:
    """Whether the text lacks a value that every reference says, or has one that no reference and no document has."""
    own = lexicon.keys(example.source)
    said = _said(lexicon, example, text)
    by_references = [_said(lexicon, example, reference) for reference in example.references]
    lost = set.intersection(*by_references) & own - said
    return bool(lost or said - own - set.union(*by_references))


def _said(lexicon: SlotLexicon, example: Example, text: str) -> set[str]:
    return {key for match in lexicon.matches(example.source, text) for key in match.values}


def _share_checkable(lexicon: SlotLexicon, examples: Sequence[Example]) -> float:
    counts = [(len(lexicon.checkable(e.source)), len(lexicon.keys(e.source))) for e in examples if slots(e.source)]
    return round(sum(checked for checked, _ in counts) / max(1, sum(count for _, count in counts)), 4)


def _error_rate(lexicon: SlotLexicon, examples: Sequence[Example]) -> float:
    found = [lexicon.errors(example.source, text) for example in examples for text in example.references]
    return round(float(np.mean([errors.rate for errors in found if errors is not None])), 4)


def _share(flags: Sequence[bool]) -> float:
    return round(float(np.mean(flags)), 4) if flags else 0.0


if __name__ == "__main__":
    main()
