"""ops/entities.py and ops/quantities.py: mentions, their normal forms, and support in a source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homestretch.ops.entities import is_supported, mentions, with_names
from homestretch.ops.names import name_lexicon, speakers


def found(text: str, *names: str) -> list[tuple[str, str, str]]:
    return [(m.kind, m.text, m.value) for m in mentions(text, frozenset(names))]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("it costs 5", "number", "5"),
        ("it has five rooms", "number", "5"),
        ("twenty-five of them", "number", "25"),
        ("two hundred and ten people", "number", "210"),
        ("a thousand people", "number", "1000"),
        ("1,000 people", "number", "1000"),
        ("3.5 km", "number", "3.5"),
        ("20k people", "number", "20000"),
        ("a dozen eggs", "number", "12"),
        ("100 thousand", "number", "100000"),
        ("20minutes", "number", "20"),
        ("$3.50", "money", "3.5 usd"),
        ("30 bucks", "money", "30 usd"),
        ("twenty euros", "money", "20 eur"),
        ("£5", "money", "5 gbp"),
        ("on Friday", "date", "friday"),
        ("on Mondays", "date", "monday"),
        ("on 12th May", "date", "may 12"),
        ("on May 12th", "date", "may 12"),
        ("on the 12th of may", "date", "may 12"),
        ("2020-05-12", "date", "may 12 2020"),
        ("on May 12th, 2020", "date", "may 12 2020"),
        ("on 12 May 2020", "date", "may 12 2020"),
        ("in Sept. 2020", "date", "september 2020"),
        ("on 12.05.2020", "date", "12.05.2020"),
        ("5/12/20", "date", "5/12/20"),
        ("in the 1990s", "date", "1990s"),
        ("the 80's", "date", "80s"),
        ("in her 30s", "number", "30"),
        ("fiscal 1987", "date", "1987"),
        ("the end of 2019", "date", "2019"),
        ("in 2000 words", "number", "2000"),
        ("on Tue", "date", "tuesday"),
        ("last night", "date", "last night"),
        ("this  week", "date", "this week"),
        ("on New Year’s Eve", "date", "new years eve"),
        ("for Black Friday", "date", "black friday"),
        ("on weekends", "date", "weekend"),
        ("two hundred thousand people", "number", "200000"),
        ("half a million people", "number", "500000"),
        ("on the 2nd floor", "number", "2"),
        ("25 mln dlrs", "money", "25000000 usd"),
        ("USD 40,000", "money", "40000 usd"),
        ("50 cts", "money", "50 cent"),
        ("50 zloty", "money", "50 pln"),
        ("50 zł", "money", "50 pln"),
        ("until 4.", "time", "4:00?"),
        ("after 5 and before lunch", "time", "5:00?"),
        ("opens at seven", "time", "7:00?"),
        ("at seven people's request", "number", "7"),
        ("after 5 minutes", "number", "5"),
        ("before 7 people came", "number", "7"),
        ("in May", "date", "may"),
        ("tomorrow", "date", "tomorrow"),
        ("next week", "date", "next week"),
        ("in 2019", "date", "2019"),
        ("5 pm", "time", "17:00"),
        ("5pm", "time", "17:00"),
        ("5 p.m.", "time", "17:00"),
        ("5 : 30 pm", "time", "17:30"),
        ("17:00", "time", "17:00"),
        ("05:30", "time", "5:30"),
        ("12 am", "time", "0:00"),
        ("half past six", "time", "6:30?"),
        ("quarter to nine", "time", "8:45?"),
        ("quarter to one", "time", "12:45?"),
        ("quarter to 12 pm", "time", "11:45"),
        ("ten minutes to nine", "time", "8:50?"),
        ("ten past five pm", "time", "17:10"),
        ("at 7", "time", "7:00?"),
        ("five o'clock", "time", "5:00?"),
        ("five o ' clock", "time", "5:00?"),
        ("noon", "time", "12:00"),
    ],
)
def test_quantities(text: str, kind: str, value: str) -> None:
    assert [(m.kind, m.value) for m in mentions(text)] == [(kind, value)]


@pytest.mark.parametrize("text", ["I may go", "march on", "no one", "this one is fine", "she sat", "second"])
def test_not_a_quantity(text: str) -> None:
    assert mentions(text) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Yesterday Tom's brother met Anna.", ["Tom", "Anna"]),
        ("He lives in New York.", ["New York"]),
        ("The dog barks. Nobody knows Rex. Rex is old.", ["Rex", "Rex"]),
        ("The dog barks. However, it sleeps.", []),
        ("He met Dr. Smith and O'Brien's son.", ["Smith", "O'Brien"]),
        ("I think I'm OK.", []),
        ("He says Anna're late", ["Anna"]),
        ("Amanda: hi\nJerry: hello", ["Amanda", "Jerry"]),
    ],
)
def test_names_in_cased_text(text: str, names: list[str]) -> None:
    assert [m.text for m in mentions(text) if m.kind == "name"] == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Tom's late. Nina and Bo are not. Ada, Rex and Flo wait.", ["Tom", "Nina", "Bo", "Ada", "Rex", "Flo"]),
        ("Everything's fine. Meanwhile, Bo and Ada wait. Work and play.", ["Bo", "Ada"]),
        ("McNally met O'Brien.", ["McNally", "O'Brien"]),
        ("She left the Bank of England and Harlow & Finch.", ["Bank of England", "Harlow & Finch"]),
        (
            "I like Leonardo da Vinci, Luca De Santis and Ida van Dyck.",
            ["Leonardo da Vinci", "Luca De Santis", "Ida van Dyck"],
        ),
        ("He met President Adeyemi in St. Moritz.", ["Adeyemi", "St. Moritz"]),
        ("It is in the U.S. or on my iPhone.", ["U.S.", "iPhone"]),
        ("The London-based firm sells T-shirts to the CEO.", ["London"]),
        ("I know Jean-Éric from Aix-en-Provence.", ["Jean-Éric", "Aix-en-Provence"]),
        ("STORM KILLS MANY IN TEXAS", []),
        ("Ann: NO WAY\nBo: I saw the BBC", ["Ann", "Bo", "BBC"]),
        ("Merry Christmas Tom", ["Tom"]),
    ],
)
def test_what_stands_where_only_a_name_does(text: str, names: list[str]) -> None:
    assert [m.text for m in mentions(text) if m.kind == "name"] == names


def test_capitals_throughout_need_the_lexicon() -> None:
    assert found("STORM KILLS MANY IN TEXAS", "texas") == [("name", "TEXAS", "texas")]
    assert "kills" not in name_lexicon(["STORM KILLS MANY IN TEXAS", "It kills me"])


def test_a_range_of_times_is_two_times() -> None:
    assert found("between 2 and 4 pm") == [("time", "2", "2:00?"), ("time", "4 pm", "16:00")]


def test_a_name_that_covers_a_quantity_wins() -> None:
    text = "We took Voyager 1 on Friday"
    assert [m.text for m in with_names(text, [(8, 17), (21, 27)])] == ["Voyager 1", "Friday"]
    assert [m.kind for m in with_names(text, [(8, 17), (21, 27)])] == ["name", "date"]


def test_names_in_lower_cased_text_need_the_lexicon() -> None:
    text = "tom ' s friend will see anna ."
    assert found(text) == []
    assert found(text, "tom", "anna") == [("name", "tom", "tom"), ("name", "anna", "anna")]


def test_lexicon_settles_the_first_word() -> None:
    assert found("Grace is late.") == []
    assert found("Grace is late.", "grace") == [("name", "Grace", "grace")]


def test_lexicon_leaves_ordinary_words_out() -> None:
    texts = ["I saw Will today.", "she will come", "they will go", "I met Rosa in May."]
    assert name_lexicon(texts) == frozenset({"rosa"})


def test_speakers() -> None:
    source = "Tom: hi\nAnna Lee : what?\nTom: see http://x.org\r\nRe the thing: no 5:30\n<photo>"
    assert speakers(source) == ["Tom", "Anna Lee", "Re the thing"]
    assert speakers("no dialogue here. None: at all") == []
    assert speakers("From: Tom\nSubject: the car\n\nHi") == []


@pytest.mark.parametrize(
    ("text", "source", "supported"),
    [
        ("May 1", "We meet on May 12.", False),
        ("May 12", "We meet on May 12.", True),
        ("at 5 pm", "A: see you at 17:00", True),
        ("at 5 pm", "A: see you at 5", True),
        ("at 5 pm", "A: when? 5?", True),
        ("at 5:30 pm", "A: 530 ok?", True),
        ("at 8:15", "A: 8.15 then", True),
        ("at 5 pm", "A: at 5 am", False),
        ("at 6 pm", "A: see you at 17:00", False),
        ("five rooms", "it has 5", True),
        ("5 rooms", "it has five", True),
        ("6 rooms", "it has five", False),
        ("30 dollars", "give me 30", True),
        ("$40", "give me 30 dollars", False),
        ("two tickets", "a couple of tickets", True),
        ("on Monday", "see you mon", True),
        ("on Tuesday", "see you mon", False),
        ("on May 12", "12th of may", True),
        ("on May 13", "12th of may", False),
        ("on May 12, 2020", "12th of may 2020", True),
        ("on May 12, 2020", "12th of may", False),
        ("on May 12, 2020", "2020-05-12", True),
        ("on May 12", "2020-05-12", True),
        ("in May", "on May 12, 2020", True),
        ("the 3rd floor", "floor 3", True),
        ("with Tom", "tom: hi", True),
        ("with Tom", "that is tom's car", True),
        ("with tom", "Tomas: hi", False),
        ("with O'Brien", "o ' brien : hi", True),
    ],
)
def test_support(text: str, source: str, supported: bool) -> None:
    (mention,) = mentions(text, frozenset({"tom"}))
    assert is_supported(mention, source) is supported


@given(st.text(max_size=120) | st.text(alphabet="Tom 5:30pm$.,'half past Max9\n", max_size=60))
def test_mentions_are_where_they_say(text: str) -> None:
    end = 0
    for mention in mentions(text, frozenset({"tom", "max"})):
        assert text[mention.start : mention.end] == mention.text
        assert mention.start >= end, "mentions overlap"
        end = mention.end
        assert mention.start < mention.end
        assert mention.value
        assert isinstance(is_supported(mention, text), bool)


@given(st.integers(0, 999_999))
def test_digits_and_grouped_digits_are_one_number(value: int) -> None:
    assert [m.value for m in mentions(f"about {value} people")] == [
        m.value for m in mentions(f"about {value:,} people")
    ]


@given(st.integers(1, 12), st.sampled_from(["am", "pm"]))
def test_two_clocks_agree(hour: int, half: str) -> None:
    (twelve,) = mentions(f"{hour} {half}")
    (other,) = mentions(f"{hour % 12 + (12 if half == 'pm' else 0):02d}:00")
    assert is_supported(twelve, other.text)
