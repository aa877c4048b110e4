"""The scenarios of the `chats` task: who may arrange what, and how the summary says it.

In openings and references A is the person who acts, B the other one.
"""

from __future__ import annotations

from dataclasses import dataclass

from homestretch.tasks.chats_text import (
    CITIES,
    COUNTS,
    DAYS,
    FOODS,
    NAMES,
    PAPERS,
    PARTIES,
    PLACES,
    PRICES,
    SHOWS,
    THINGS,
    TIMES,
    VEHICLES,
    Beat,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scenario:
    """One family of chats."""

    name: str
    slots: dict[str, tuple[str, ...]]
    """Role -> its values as noun phrases."""
    openings: tuple[Beat, ...]
    """Beats that say who does what, with every slot's first value."""
    references: tuple[str, ...]
    """Paraphrases of the summary."""
    reversals: tuple[Beat, ...] = ()
    """Openings in which the one who is asked hands the job back, or an offer is turned round."""
    verbs: frozenset[str] = frozenset()
    """Forms of the verb whose subject is the agent; empty for a scenario whose two people have the same role."""
    inverse_verbs: frozenset[str] = frozenset()
    """Forms of the verb that has the agent after it (lend for borrow, buy for sell)."""
    fixed: frozenset[str] = frozenset()
    """Slots that can be misstated and set right, but not agreed on anew."""

    @property
    def has_agent(self) -> bool:
        """Whether the two people have different roles."""
        return bool(self.verbs)


def _forms(words: str) -> frozenset[str]:
    return frozenset(words.split())


_MEET = Scenario(
    name="meet",
    slots={"place": PLACES, "day": DAYS, "time": TIMES},
    openings=(
        (("A", "Shall we meet at {place} on {day} at {time}?"), ("B", "Good idea.")),
        (("A", "Are you free on {day}?"), ("B", "Yes. Let us meet at {place} at {time}."), ("A", "Sounds good.")),
        (
            ("A", "We should talk soon. Does {day} work?"),
            ("B", "Yes, at {time}."),
            ("A", "Then I will see you at {place}."),
        ),
    ),
    references=(
        "{a} and {b} will meet at {place} on {day} at {time}.",
        "{a} will meet {b} at {place} on {day} at {time}.",
        "On {day} at {time} {a} and {b} will meet at {place}.",
    ),
)

_BRING = Scenario(
    name="bring",
    slots={"object": FOODS, "event": PARTIES, "day": DAYS},
    openings=(
        (("B", "Can you bring {object} to {event} on {day}?"), ("A", "Sure, I can do that.")),
        (
            ("A", "{Event} is on {day}. What should I bring?"),
            ("B", "Just {object}, please."),
            ("A", "Okay."),
        ),
    ),
    reversals=(
        (
            ("A", "Can you bring {object} to {event} on {day}?"),
            ("B", "Sorry, I have no time. Can you do it?"),
            ("A", "All right, I will."),
        ),
        (
            ("B", "I could bring {object} to {event} on {day}."),
            ("A", "No, I will bring it. You did it last time."),
            ("B", "Thank you."),
        ),
    ),
    references=(
        "{a} will bring {object} to {event} on {day}.",
        "On {day} {a} will bring {object} to {event}.",
        "{a} is going to bring {object} to {event} on {day}.",
    ),
    verbs=_forms("bring brings bringing brought"),
    fixed=frozenset({"event"}),
)

_TICKETS = Scenario(
    name="tickets",
    slots={"count": COUNTS, "event": SHOWS, "day": DAYS},
    openings=(
        (("B", "Can you buy {count} for {event} on {day}?"), ("A", "Yes, I will do it.")),
        (("A", "Shall I buy {count} for {event} on {day}?"), ("B", "Yes, please.")),
    ),
    reversals=(
        (
            ("A", "{Event} is on {day}. Can you buy {count}?"),
            ("B", "I have no money. Can you do it?"),
            ("A", "Okay, I will."),
        ),
        (
            ("B", "We need {count} for {event} on {day}. Shall I buy them?"),
            ("A", "No, I will buy them."),
            ("B", "Thank you."),
        ),
    ),
    references=(
        "{a} will buy {count} for {event} on {day}.",
        "{a} is going to buy {count} for {event} on {day}.",
    ),
    verbs=_forms("buy buys buying bought get gets"),
    fixed=frozenset({"event"}),
)

_CANCEL = Scenario(
    name="cancel",
    slots={"event": PARTIES + SHOWS, "day": DAYS, "time": TIMES},
    openings=(
        (("A", "I am sorry, I can not come to {event} on {day} at {time}."), ("B", "Oh, what a pity.")),
        (("B", "Are you coming to {event} on {day} at {time}?"), ("A", "No, I have to work.")),
        (
            ("B", "See you at {event} on {day} at {time}."),
            ("A", "Sorry, I will not be there. I am ill."),
            ("B", "Get well soon."),
        ),
    ),
    reversals=(
        (
            ("A", "Are you coming to {event} on {day} at {time}?"),
            ("B", "Yes, of course. And you?"),
            ("A", "I can not come, I have to work."),
        ),
    ),
    references=(
        "{a} can not come to {event} on {day} at {time}.",
        "{a} will miss {event} on {day} at {time}.",
    ),
    verbs=_forms("come comes coming miss misses missing missed attend attends cancel cancels cancelled"),
    fixed=frozenset({"event", "day", "time"}),
)

_BORROW = Scenario(
    name="borrow",
    slots={"object": THINGS, "day": DAYS},
    openings=(
        (("A", "Can I borrow {object}?"), ("B", "Sure, but I need it back on {day}.")),
        (
            ("B", "Do you still need {object}?"),
            ("A", "Yes, can I have it until {day}?"),
            ("B", "Of course."),
        ),
        (
            ("B", "I do not need {object} now. Do you want it?"),
            ("A", "Yes, please. You get it back on {day}."),
        ),
    ),
    reversals=(
        (
            ("A", "Do you need {object} this week?"),
            ("B", "No, you can have it."),
            ("A", "Thanks. I will bring it back on {day}."),
        ),
    ),
    references=(
        "{a} will borrow {object} from {b} until {day}.",
        "{b} will lend {object} to {a} until {day}.",
        "{a} can borrow {object} from {b} until {day}.",
    ),
    verbs=_forms("borrow borrows borrowing borrowed"),
    inverse_verbs=_forms("lend lends lending lent"),
    fixed=frozenset({"object"}),
)

_PICKUP = Scenario(
    name="pickup",
    slots={"place": PLACES, "day": DAYS, "time": TIMES},
    openings=(
        (("B", "Can you pick me up at {place} on {day} at {time}?"), ("A", "Of course.")),
        (("A", "When do you arrive?"), ("B", "On {day} at {time}."), ("A", "I will pick you up at {place}.")),
        (("A", "Shall I pick you up at {place} on {day} at {time}?"), ("B", "Yes, please.")),
    ),
    reversals=(
        (
            ("B", "Shall I pick you up at {place} on {day} at {time}?"),
            ("A", "No, I have the car. I will pick you up."),
            ("B", "Thank you."),
        ),
    ),
    references=(
        "{a} will pick up {b} at {place} on {day} at {time}.",
        "{b} will be picked up by {a} at {place} on {day} at {time}.",
        "On {day} at {time} {a} will pick up {b} at {place}.",
    ),
    verbs=_forms("pick picks picking picked"),
)

_FETCH = Scenario(
    name="fetch",
    slots={"person": NAMES, "place": PLACES, "day": DAYS, "time": TIMES},
    openings=(
        (("B", "Can you pick up {person} at {place} on {day} at {time}?"), ("A", "No problem.")),
        (
            ("B", "{person} arrives on {day} at {time}."),
            ("A", "I can pick up {person} at {place}."),
        ),
    ),
    reversals=(
        (
            ("A", "Who can pick up {person} at {place} on {day} at {time}?"),
            ("B", "I have to work."),
            ("A", "Then I will do it."),
        ),
        (
            ("A", "Can you pick up {person} at {place} on {day} at {time}?"),
            ("B", "I have no car. Can you do it?"),
            ("A", "Okay, I will."),
        ),
    ),
    references=(
        "{a} will pick up {person} at {place} on {day} at {time}.",
        "{person} will be picked up by {a} at {place} on {day} at {time}.",
    ),
    verbs=_forms("pick picks picking picked"),
)

_TRAVEL = Scenario(
    name="travel",
    slots={"vehicle": VEHICLES, "city": CITIES, "day": DAYS, "time": TIMES},
    openings=(
        (("B", "When do you go to {city}?"), ("A", "On {day}. I take {vehicle} at {time}.")),
        (
            ("A", "I am going to {city} on {day}."),
            ("B", "By car?"),
            ("A", "No, I take {vehicle} at {time}."),
        ),
        (
            ("B", "I would like to see {city}."),
            ("A", "I am going there on {day}. I take {vehicle} at {time}."),
        ),
        (
            ("A", "Do you know {city}?"),
            ("B", "No, why?"),
            ("A", "I will take {vehicle} there on {day} at {time}."),
        ),
    ),
    references=(
        "{a} will take {vehicle} to {city} on {day} at {time}.",
        "{a} is going to take {vehicle} to {city} on {day} at {time}.",
        "On {day} at {time} {a} will take {vehicle} to {city}.",
    ),
    verbs=_forms("take takes taking took go goes travel travels"),
    fixed=frozenset({"vehicle", "city", "day", "time"}),
)

_LOST = Scenario(
    name="lost",
    slots={"object": THINGS, "place": PLACES, "day": DAYS},
    openings=(
        (
            ("A", "I can not find {object}. I think I left it at {place}."),
            ("B", "I found it. I will bring it on {day}."),
        ),
        (
            ("B", "Did you leave {object} at {place}?"),
            ("A", "Yes, it is mine."),
            ("B", "You get it back on {day}."),
        ),
        (
            ("B", "I found {object} at {place}."),
            ("A", "Oh, I left it there."),
            ("B", "I will bring it on {day}."),
        ),
        (
            ("A", "Did I leave {object} at {place}?"),
            ("B", "Yes, I have it. I will bring it on {day}."),
        ),
    ),
    references=(
        "{a} left {object} at {place} and {b} will bring it back on {day}.",
        "{b} found {object} that {a} left at {place} and will bring it back on {day}.",
    ),
    verbs=_forms("left leave leaves forgot forgets lost loses"),
    fixed=frozenset({"object", "place"}),
)

_SELL = Scenario(
    name="sell",
    slots={"object": THINGS, "price": PRICES, "day": DAYS},
    openings=(
        (
            ("A", "Do you want to buy {object}? It costs {price}."),
            ("B", "Yes, I can come on {day}."),
        ),
        (
            ("B", "Are you still selling {object}?"),
            ("A", "Yes, for {price}."),
            ("B", "Good, I will get it on {day}."),
        ),
        (
            ("A", "I do not need {object} now."),
            ("B", "I would buy it. Is {price} okay?"),
            ("A", "Yes. You can have it on {day}."),
        ),
        (
            ("B", "How much is {object}?"),
            ("A", "{price}. You can have it on {day}."),
            ("B", "Good, I will buy it."),
        ),
    ),
    references=(
        "{a} will sell {object} to {b} for {price} on {day}.",
        "{b} will buy {object} from {a} for {price} on {day}.",
    ),
    verbs=_forms("sell sells selling sold"),
    inverse_verbs=_forms("buy buys buying bought get gets"),
    fixed=frozenset({"object"}),
)

_SEND = Scenario(
    name="send",
    slots={"object": PAPERS, "person": NAMES, "day": DAYS, "time": TIMES},
    openings=(
        (("B", "Please send {object} to {person} by {day} at {time}."), ("A", "Okay, I will.")),
        (
            ("A", "Who wants {object}?"),
            ("B", "{person}. You have to send it by {day} at {time}."),
        ),
    ),
    reversals=(
        (
            ("A", "Can you send {object} to {person}?"),
            ("B", "Sorry, I have no time. Can you do it?"),
            ("A", "All right, I will send it by {day} at {time}."),
        ),
        (
            ("B", "Shall I send {object} to {person}?"),
            ("A", "No, I will send it by {day} at {time}."),
        ),
    ),
    references=(
        "{a} has to send {object} to {person} by {day} at {time}.",
        "By {day} at {time} {a} has to send {object} to {person}.",
        "{a} will send {object} to {person} by {day} at {time}.",
    ),
    verbs=_forms("send sends sending sent"),
    fixed=frozenset({"object"}),
)

_CALL = Scenario(
    name="call",
    slots={"person": NAMES, "object": PAPERS + THINGS, "day": DAYS, "time": TIMES},
    openings=(
        (("B", "Can you call {person} about {object}?"), ("A", "Yes, I will do it on {day} at {time}.")),
        (("A", "Shall I call {person} about {object}?"), ("B", "Yes, please, on {day} at {time}.")),
    ),
    reversals=(
        (
            ("A", "Can you call {person} about {object} on {day} at {time}?"),
            ("B", "I have no time. Can you do it?"),
            ("A", "Okay, I will."),
        ),
        (
            ("B", "Shall I call {person} about {object} on {day} at {time}?"),
            ("A", "No, I will do it."),
            ("B", "Thank you."),
        ),
    ),
    references=(
        "{a} will call {person} about {object} on {day} at {time}.",
        "On {day} at {time} {a} will call {person} about {object}.",
    ),
    verbs=_forms("call calls calling called phone phones"),
    fixed=frozenset({"object"}),
)

SCENARIOS: tuple[Scenario, ...] = (
    _MEET, _BRING, _TICKETS, _CANCEL, _BORROW, _PICKUP, _FETCH, _TRAVEL, _LOST, _SELL, _SEND, _CALL,
)  # fmt: skip
