"""A failure mode of one's own: the output is not a JSON object."""

from __future__ import annotations

import json

import numpy as np

from homestretch.types import Completion, Edit, Example, FailureMode


class InvalidJSON(FailureMode):
    """The output is not a JSON object: a bracket, quote, colon or comma is missing, or there is text around it."""

    name = "invalid_json"

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        text = example.reference
        places = [i for i, mark in enumerate(text) if mark in '{}[]":,']
        places = [i for i in places if not is_object(text[:i] + text[i + 1 :])]
        if not places:
            return None
        i = int(rng.choice(places))
        return Edit(Completion(text[:i] + text[i + 1 :]), (i, i), f"without {text[i]}")

    def detect(self, example: Example, completion: Completion) -> float:
        return 0.0 if is_object(completion.text) else 1.0

    def repair(self, example: Example, completion: Completion) -> Completion:
        """The longest start of the text that is an object once it is closed; what stood behind it is lost."""
        text = completion.text
        closed = (text[:end].rstrip() + tail for end in range(len(text), 0, -1) for tail in ("", "}", '"}'))
        return completion if is_object(text) else next(map(Completion, filter(is_object, closed)), completion)


def is_object(text: str) -> bool:
    """Whether the text is one JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
