"""The words of the `chats` task: closed vocabularies of noun phrases, and the beats that every scenario shares.

Every text is a template. X and Y are the two speakers, either way round.
"""

from __future__ import annotations

Beat = tuple[tuple[str, str], ...]
"""Consecutive lines of a chat: (speaker, template)."""


def _nouns(words: str) -> tuple[str, ...]:
    return tuple(f"the {word}" for word in words.split())


def _names(words: str) -> tuple[str, ...]:
    return tuple(words.split())


NAMES = _names(
    "Mia Tom Nina Paul Emma Leo Anna Ben Clara David Eva Felix Greta Hugo Ida Jonas Kate Lucas Maria Noah "
    "Olga Peter Rita Sam Tara Victor Wendy Adam Bella Carlos Diana Eric Fiona Henry Irene Jack Laura Oscar Sara Theo"
)
DAYS = _names("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
HOURS = (8, 9, 10, 11, 1, 2, 3, 4, 5, 6, 7)
"""Those from 8 are in the morning, the others in the afternoon."""
TIMES = tuple(f"{hour} {'am' if hour >= 8 else 'pm'}" for hour in HOURS)
PLACES = _nouns("cafe library station gym park museum market cinema harbor airport school office bakery pool theater")
CITIES = _names("Rome Paris Oslo Lisbon Madrid Vienna Prague Berlin Dublin Athens")
THINGS = _nouns("umbrella bike camera tent ladder drill guitar jacket lamp laptop scarf suitcase")
FOODS = _nouns("salad cake bread juice cheese soup pasta fruit")
PAPERS = _nouns("report essay form contract budget poster")
PARTIES = _nouns("picnic party dinner barbecue wedding")
SHOWS = _nouns("concert match musical festival race")
VEHICLES = _nouns("train bus ferry plane")
PRICES = tuple(f"${amount}" for amount in (15, 20, 25, 30, 35, 40, 45, 50, 60, 80))
COUNTS = tuple(f"{number} tickets" for number in range(2, 8))

MISSTATED: tuple[Beat, ...] = (
    (("X", "Sorry, I meant {new}, not {old}."), ("Y", "Okay, {new}.")),
    (("X", "Wait, not {old}. I meant {new}."), ("Y", "Good to know.")),
    (("X", "You said {old}, right?"), ("Y", "No, {new}. I was wrong."), ("X", "Okay.")),
    (("X", "Sorry, it is {new}, not {old}."), ("Y", "Thanks.")),
)
"""One of the two said `old` by mistake; `new` holds."""

CHANGED: tuple[Beat, ...] = (
    (("X", "Can we change {old} to {new}?"), ("Y", "Sure.")),
    (("X", "{Old} does not work. How about {new}?"), ("Y", "Okay, {new} then.")),
    (("X", "I would like {new} better than {old}."), ("Y", "Fine.")),
    (("X", "Make it {new}, please."), ("Y", "No problem.")),
    (("X", "Wait, {new} is better."), ("Y", "All right, {new}.")),
)
"""Both agree to go from `old` to `new`."""

REJECTED: tuple[Beat, ...] = (
    (("X", "Can we change it to {new}?"), ("Y", "No, sorry, it has to be {old}."), ("X", "Okay.")),
    (("X", "How about {new}?"), ("Y", "No, {new} does not work."), ("X", "Fine, then {old}.")),
    (("X", "I would like {new} better."), ("Y", "Sorry, that does not work."), ("X", "No problem.")),
    (("X", "Is {new} okay?"), ("Y", "No, it has to be {old}.")),
)
"""`new` is proposed and turned down; `old` holds."""

DENIED: tuple[Beat, ...] = (
    (("X", "You said {new}, right?"), ("Y", "No, {old}."), ("X", "Okay.")),
    (("X", "Is it {new}?"), ("Y", "No, it is {old}.")),
)
"""`new` is a misunderstanding; `old` holds."""

DISTRACTORS: tuple[Beat, ...] = (
    (("X", "I saw {person} at {place} on {day}."), ("Y", "Nice.")),
    (("X", "{person} was here at {time}."), ("Y", "I know.")),
    (("X", "I was at {place} with {person}."), ("Y", "Nice.")),
    (("X", "I have to work on {day} at {time}."), ("Y", "What a pity.")),
    (("X", "{person} has {object} now."), ("Y", "Good to know.")),
    (("X", "I paid {price} at {place}."), ("Y", "That is a lot.")),
    (("X", "{person} took {vehicle} to {city}."), ("Y", "Nice.")),
    (("X", "How was {event}?"), ("Y", "Good. {person} was there.")),
)
"""Small talk that names things of the same kinds and changes nothing."""

GREETINGS: tuple[Beat, ...] = (
    (("X", "Hi {y}!"), ("Y", "Hi {x}!")),
    (("X", "Hello {y}, how are you?"), ("Y", "Fine, thanks.")),
    (("X", "Hi!"), ("Y", "Hello!")),
    (("X", "Are you there?"), ("Y", "Yes, what is it?")),
)

CLOSINGS: tuple[Beat, ...] = (
    (("X", "Thanks, {y}!"), ("Y", "See you!")),
    (("X", "See you soon."), ("Y", "Bye!")),
    (("X", "Thank you."), ("Y", "You are welcome.")),
    (("X", "Bye, {y}!"), ("Y", "Bye, {x}!")),
)
