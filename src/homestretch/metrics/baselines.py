"""What needs no learning and may rank summaries as well as a learned reward does: the baselines of `reward-check`.

Every score is turned beforehand so that higher should be more faithful; docs/trust.md says why each may be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from homestretch.config import RunConfig
from homestretch.metrics.extractive import novel_bigrams
from homestretch.metrics.faithfulness import entity_precision, number_precision
from homestretch.metrics.length import num_words
from homestretch.metrics.overlap import rouge_l, rouge_precision
from homestretch.metrics.scoring import MetricContext, MetricFactory
from homestretch.types import Completion, Example

Floats = NDArray[np.float64]


def lexical_baselines(
    config: RunConfig, examples: Sequence[Example], completions: Sequence[Completion]
) -> dict[str, Floats]:
    """Name -> scores, shape (n,); names are known from these documents and references alone.

    A summary that mentions nothing has precision 1, and one without word pairs is all copied: nothing in it is
    unsupported. `rouge_l_reference` alone may be NaN, where a row has no reference; it is absent if none has one.
    """
    context = MetricContext(config, examples)

    def scores(factory: MetricFactory, undefined: float = np.nan) -> Floats:
        found = np.asarray(factory(context).scorer(examples, completions), dtype=np.float64)
        return np.where(np.isnan(found), undefined, found)

    length = scores(num_words)
    pairs = zip(examples, completions, strict=True)
    rouge_N3 = np.array([rouge_precision(example.source, completion.text) for example, completion in pairs])
    against_reference = {"rouge_l_reference": scores(rouge_l)} if any(e.references for e in examples) else {}
    return {
        "shorter": -length,
        "longer": length,
        "rouge_1_precision": rouge_N3[:, 0],
        "rouge_2_precision": rouge_N3[:, 1],
        "rouge_l_precision": rouge_N3[:, 2],
        **against_reference,
        "entity_precision": scores(entity_precision, undefined=1.0),
        "number_precision": scores(number_precision, undefined=1.0),
        "copied_bigrams": 1 - scores(novel_bigrams, undefined=0.0),
    }
