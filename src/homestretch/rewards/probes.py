"""Probes: simple classifiers that must *not* be able to do the reward's job.

If length alone, or the completion without its source, tells positives from negatives, a reward model will learn that
instead of the task, and RL will find out (method: artefacts of the edits are shortcuts).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.ops.drawing import drawn
from homestretch.ops.words import ngrams, words
from homestretch.rewards.judged import POSITIVE_MODES
from homestretch.rewards.length import word_counts
from homestretch.types import Example, Judged

MAX_ROWS_PER_LABEL = 3000
"""More rows than this do not change a linear probe's verdict, and cost time."""


def length_only(rows: Sequence[Judged], *, num_folds: int = 5) -> float | None:
    """AUC of telling labels by the text's length alone, cross-validated with a document's rows kept in one fold.

    Logistic regression on log(1 + words) and its square (both too short and too long can be told); the terminator is
    left out. Near 0.5 is good. None where a label has fewer than two documents, so that nothing can be held out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    probe = make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), LogisticRegression(class_weight="balanced")
    )
    return _held_out_auc(probe, np.log1p(word_counts([row.completion for row in rows]))[:, None], rows, num_folds)


def bag_of_words(rows: Sequence[Judged], examples: Sequence[Example], *, seed: int, num_folds: int = 5) -> float | None:
    """AUC of telling all good from all bad by which words there are, and how much of them is in the source.

    `examples[i]` is the document of `rows[i]`. Logistic regression on TF-IDF of the completion's words, order gone, and
    the shares of its words and word pairs that the source has; cross-validated with a document's rows kept in one fold.
    A reward that is worth its cost tells what this cannot. The terminator is left out. None where a label has fewer
    than two documents, so that nothing can be held out.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    rng = np.random.default_rng(seed)
    by_label = ([i for i, row in enumerate(rows) if (row.label > 0.5) == good] for good in (True, False))
    kept = sorted(i for side in by_label for i in drawn(side, MAX_ROWS_PER_LABEL, rng))
    pairs = np.array([(rows[i].completion.text, examples[i].source) for i in kept], dtype=object)
    probe = make_pipeline(
        make_union(
            TfidfVectorizer(analyzer=_completion_words, sublinear_tf=True, max_features=50_000),
            make_pipeline(FunctionTransformer(_overlaps), StandardScaler()),
        ),
        LogisticRegression(class_weight="balanced", solver="liblinear", random_state=0),
    )
    return _held_out_auc(probe, pairs, [rows[i] for i in kept], num_folds)


def _held_out_auc(probe: Any, features: NDArray[Any], rows: Sequence[Judged], num_folds: int) -> float | None:
    """AUC of the probe for the rows' labels, each document judged by a fit without it; None if that cannot be."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    labels = np.array([row.label > 0.5 for row in rows], dtype=bool)
    documents = np.array([row.example_id for row in rows], dtype=object)
    num_documents = min(len(set(documents[labels])), len(set(documents[~labels])))
    if num_documents < 2:
        return None
    folds = StratifiedGroupKFold(n_splits=min(num_folds, num_documents))
    scores = cross_val_predict(probe, features, labels, groups=documents, cv=folds, method="decision_function")
    return float(roc_auc_score(labels, scores))


def _completion_words(pair: Sequence[str]) -> list[str]:
    # An empty text has no word, and a vocabulary must have one.
    return words(pair[0]) or [""]


def _overlaps(pairs: NDArray[Any]) -> NDArray[np.float64]:
    """Per (completion, source) the shares of the completion's words and word pairs that are in the source."""
    return np.array([[_share(words(text), words(source), n) for n in (1, 2)] for text, source in pairs])


def _share(text: Sequence[str], source: Sequence[str], n: int) -> float:
    found, known = ngrams(text, n), set(ngrams(source, n))
    return sum(item in known for item in found) / max(1, len(found))


def source_blind(train: Sequence[Judged], validation: Sequence[Judged], *, seed: int) -> dict[str, float | None]:
    """Per class of negatives: AUC, on validation, of telling it from positives by the completion's text alone.

    Logistic regression on TF-IDF of words, word pairs and character 1-4-grams, trained on the class's train rows and
    all train positives (references, edited references, good own samples). On validation a class is compared with the
    positives of its own documents. Near 0.5 is what a class about *facts* must have: the wrong fact reads as well as
    the right one. A class about *form* (shuffled, repeated, cut off) is rightly seen without the source. The terminator
    is left out. None for a class without rows in train.
    """
    rng = np.random.default_rng(seed)
    positives = drawn([row for row in train if row.mode in POSITIVE_MODES], MAX_ROWS_PER_LABEL, rng)
    classes = sorted({row.mode for row in validation} - POSITIVE_MODES)
    negatives = {mode: drawn([row for row in train if row.mode == mode], MAX_ROWS_PER_LABEL, rng) for mode in classes}
    known = [mode for mode in classes if negatives[mode] and positives]
    if not known:
        return dict.fromkeys(classes)
    vectorizer = _vectorizer()
    vectorizer.fit([*_texts(positives), *(text for mode in known for text in _texts(negatives[mode]))])
    positive_features = vectorizer.transform(_texts(positives))
    aucs: dict[str, float | None] = dict.fromkeys(classes)
    for mode in known:
        probe = _fit(positive_features, vectorizer.transform(_texts(negatives[mode])))
        aucs[mode] = _validation_auc(probe, vectorizer, validation, mode)
    return aucs


def _validation_auc(probe: Any, vectorizer: Any, validation: Sequence[Judged], mode: str) -> float | None:
    from sklearn.metrics import roc_auc_score

    documents = {row.example_id for row in validation if row.mode == mode}
    rows = [
        row for row in validation if row.example_id in documents and (row.mode == mode or row.mode in POSITIVE_MODES)
    ]
    labels = [row.mode != mode for row in rows]
    if len(set(labels)) < 2:
        return None
    return float(roc_auc_score(labels, probe.decision_function(vectorizer.transform(_texts(rows)))))


def _fit(positive_features: Any, negative_features: Any) -> Any:
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    labels = np.repeat([True, False], [positive_features.shape[0], negative_features.shape[0]])
    # The dual problem: the same probe, ten times faster where there are more features than rows.
    probe = LogisticRegression(class_weight="balanced", solver="liblinear", dual=True, random_state=0)
    return probe.fit(vstack([positive_features, negative_features]), labels)


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    # Case and punctuation are kept: they are where an edit leaves its fingerprint.
    return make_union(
        TfidfVectorizer(
            lowercase=False, token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True, max_features=50_000
        ),
        TfidfVectorizer(
            lowercase=False, analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, max_features=50_000
        ),
    )


def _texts(rows: Sequence[Judged]) -> list[str]:
    return [row.completion.text for row in rows]
