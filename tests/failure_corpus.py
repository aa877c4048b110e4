"""Dialogues with summaries and boats with descriptions, written for the tests; the failure modes fitted to them."""

from __future__ import annotations

from functools import cache

import numpy as np

from homestretch.failures import SLOT_MODES, build_modes
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

NAMES = (
    "Ada Boris Carla Dmitri Elif Farid Greta Hugo Ines Jonas Katja Luis Mona Nils Olga Pavel Quentin Rosa Stefan Tilda "
    "Ugo Vera Wanda Xenia Yusuf Zoe"
)
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
CITIES = "Lisbon Oslo Prague Dublin Turin Ghent Krakow Porto"
THINGS = "bicycle sofa printer tent guitar camera ladder carpet drill kettle"
# (dialogue, summary); {a} and {b} talk, {c} is talked about.
SCENES = (
    (
        "{a}: are you coming to {city} on {day}?\n{b}: yes, my train gets in at {n} pm\n{a}: I will pick you up",
        "{b} arrives in {city} on {day} at {n} pm. {a} will pick her up at the station.",
    ),
    (
        "{a}: I need to sell my old {thing}\n{b}: how much do you want?\n{a}: {m} dollars\n{b}: deal, I come on {day}",
        "{a} is selling an old {thing} for {m} dollars. {b} will come and get it on {day}.",
    ),
    (
        "{a}: the boss is ill\n{b}: who runs the meeting on {day} then?\n{a}: {c}, it starts at {n}\n{b}: oh dear",
        "{a} tells {b} that the boss is ill, so {c} will run the meeting on {day} at {n}.",
    ),
    (
        "{a}: did you feed the cat?\n{b}: no, I forgot, sorry\n{a}: {c} can do it tomorrow\n{b}: thanks, I owe {c} one",
        "{b} forgot to feed the cat. {a} says that {c} can do it tomorrow.",
    ),
    (
        "{a}: look what {c} sent me from {city}\n{b}: wow, that {thing} is huge\n{a}: it was only {m} euros",
        "{c} sent {a} a {thing} from {city} that was only {m} euros. {b} thinks it is huge.",
    ),
    (
        "{a}: my flight is cancelled, I'm stuck in {city}\n{b}: can you get another one?\n{a}: not before {day}",
        "{a} is stuck in {city} because of a cancelled flight, and does not get another one before {day}.",
    ),
    (
        "{a}: I passed the exam!!!\n{b}: congrats! how many points?\n{a}: {m}, more than {c}\n{b}: let's celebrate",
        "{a} passed the exam with {m} points and did better than {c}. {b} wants to celebrate.",
    ),
    (
        "{a}: can you lend me your {thing}?\n{b}: {c} has it until {day}\n{a}: ok, I ask {c}\n{b}: good luck",
        "{a} would like to borrow the {thing}, but {c} has it until {day}. {b} wishes good luck.",
    ),
    (
        "{a}: doctor Frank says I need rest\n{b}: for how long?\n{a}: {n} days, no work\n{b}: I tell {c}",
        "{a} was told by the doctor to rest for {n} days. {b} is going to tell {c}.",
    ),
    (
        "{a}: where do we eat?\n{b}: the new place in {city} street, they say the soup is great\n{a}: ok at {n} pm",
        "{a} and {b} are going to eat at the new place in {city} street at {n} pm. It is known for its soup.",
    ),
)

BOATS = "Sea Otter|Grey Goose|Lady Maud|Old Tom|Blue Heron|Saint Olaf|Red Rover|Marigold|Pelican|Northern Star"
HARBOURS = "Port Ellen|Skagen|Old Harbour|Trondheim|Hanko|Saint Malo|Leith|Cork Quay"
KINDS = "ferry|trawler|tugboat|sailing yacht"
# {paint} is colour in other words in half of the descriptions, so it is no slot to be taken for missing.
DESCRIPTIONS = (
    "{boat} is a {kind} in {harbour}. It carries {crew} people and is painted {paint}.",
    "{boat} is a {kind} from {harbour} and carries {crew} people.",
    "In {harbour} there is a {kind} called {boat}. It carries {crew} people.",
    "There is a {kind} called {boat} in {harbour}.",
    "{boat}, a {kind} from {harbour}, is painted {paint}. It carries {crew} people.",
    "{boat} is a {kind} from {harbour}.",
    "{boat} is a {kind} and carries {crew} people.",
    "{boat} is a {kind}. It carries {crew} people.",
    "There is a {kind} called {boat}.",
    "{boat} is a {kind} in {harbour}.",
    "{boat} is a {kind}.",
)
COLOURS = {"scarlet": "bright red", "navy": "dark blue", "ivory": "nearly white"}


def boat(index: int, rng: np.random.Generator) -> Example:
    """A boat and one description; every slot that the description names is in the document, and no other."""
    description = DESCRIPTIONS[index % len(DESCRIPTIONS)]
    colour = str(rng.choice(list(COLOURS)))
    values = {"boat": rng.choice(BOATS.split("|")), "kind": rng.choice(KINDS.split("|")),
              "harbour": rng.choice(HARBOURS.split("|")), "crew": rng.integers(3, 60)}  # fmt: skip
    said = {"paint": colour if rng.random() < 0.5 else COLOURS[colour], **values}
    told = [f"{name}[{value}]" for name, value in values.items() if f"{{{name}}}" in description]
    told += [f"paint[{colour}]"] if "{paint}" in description else []
    return make_example(f"boat-{index}", ", ".join(told), description.format(**said))


def scene(index: int, rng: np.random.Generator) -> Example:
    dialogue, summary = SCENES[index % len(SCENES)]
    a, b, c = rng.permutation(NAMES.split())[:3]
    slots = {
        "a": a,
        "b": b,
        "c": c,
        "day": rng.choice(WEEKDAYS.split()),
        "city": rng.choice(CITIES.split()),
        "thing": rng.choice(THINGS.split()),
        "n": rng.integers(2, 10),
        "m": rng.integers(11, 99),
    }
    return make_example(f"scene-{index}", dialogue.format(**slots), summary.format(**slots))


def make_example(name: str, source: str, *references: str) -> Example:
    prompt = f"Summarise this chat.\n{source}\nSummary:"
    start = prompt.index(source)
    return Example(name, source, prompt, (start, start + len(source)), references)


@cache
def corpus(name: str = "") -> Corpus:
    """What the mode of this name is about: boats for the slot modes, else chats."""
    rng = np.random.default_rng(7)
    return Corpus(tuple(boat(i, rng) if name in SLOT_MODES else scene(i, rng) for i in range(80)))


@cache
def unseen(name: str = "") -> tuple[Example, ...]:
    rng = np.random.default_rng(8)
    return tuple(boat(i, rng) if name in SLOT_MODES else scene(i, rng) for i in range(60))


@cache
def fitted(name: str) -> FailureMode:
    return build_modes([name], corpus(name))[0]


@cache
def edits(name: str) -> tuple[tuple[Example, Edit], ...]:
    mode = fitted(name)
    examples = 3 * corpus(name).examples
    made = [(example, mode.corrupt(example, np.random.default_rng(i))) for i, example in enumerate(examples)]
    return tuple((example, edit) for example, edit in made if edit is not None)


def flagged(mode: FailureMode, example: Example, completion: Completion) -> bool:
    severity = mode.detect(example, completion)
    return severity is not None and severity >= 0.5
