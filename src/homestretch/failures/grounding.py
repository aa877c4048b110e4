"""Which of a text's numbers, dates, times and names the source supports, against how the references do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from homestretch.failures.base import fit_finder, fit_sample
from homestretch.ops.entities import Kind, Mention, is_supported
from homestretch.types import Corpus, Example, UserError

_PERCENTILE = 92.0
_MIN_COUNT = 3
_USUAL_UNSUPPORTED = 0.1


class Grounding:
    """Unsupported mentions of some kinds, judged by what is usual in the references.

    People write some things that the source does not say word for word ("today", the name of a country); a value that
    is unsupported in a tenth of the references that use it is not counted. Where references have unsupported mentions
    all the same, a text must have a larger share of them than 92 % of the references.
    """

    def __init__(self, kinds: Sequence[Kind], corpus: Corpus) -> None:
        """Learn from the corpus's labelled examples. Raises UserError if there are none."""
        examples = fit_sample(corpus)
        if not examples:
            raise UserError("failure modes: no labelled training example to learn from; add some")
        self.kinds = frozenset(kinds)
        self.finder = fit_finder(corpus)
        self.pool: dict[Kind, list[Mention]] = {kind: [] for kind in kinds}
        """Every supported mention in the references, for swaps: frequent values are drawn more often."""
        used: Counter[str] = Counter()
        unsupported: Counter[str] = Counter()
        for example in examples:
            for mention in (m for reference in example.references for m in self.mentions(example, reference)):
                used[mention.value] += 1
                if is_supported(mention, example.source):
                    self.pool[mention.kind].append(mention)
                else:
                    unsupported[mention.value] += 1
        self._usual = frozenset(
            value
            for value, n in unsupported.items()
            if used[value] >= _MIN_COUNT and n > _USUAL_UNSUPPORTED * used[value]
        )
        shares = [self._share(example, reference) for example in examples for reference in example.references]
        self._limit = float(np.percentile(shares, _PERCENTILE))

    def mentions(self, example: Example, text: str) -> list[Mention]:
        """The text's mentions of these kinds, found with the names of the task and of the example's source."""
        return [mention for mention in self.finder.mentions_for(example, text) if mention.kind in self.kinds]

    def unsupported(self, example: Example, text: str) -> list[Mention]:
        """Those that the source does not support and that are not usual in this task."""
        return [
            mention
            for mention in self.mentions(example, text)
            if mention.value not in self._usual and not is_supported(mention, example.source)
        ]

    def _share(self, example: Example, text: str) -> float:
        return len(self.unsupported(example, text)) / max(1, len(self.mentions(example, text)))

    def severity(self, example: Example, text: str) -> float:
        """1 if the share of unsupported mentions is beyond what references have (usually: any), else below 0.5."""
        share = self._share(example, text)
        return 1.0 if share > self._limit else 0.49 * share / max(self._limit, share, 1e-9)
