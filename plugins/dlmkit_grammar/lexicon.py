"""The words and templates of the toy language.

Five templates, each with words that agree with a subject some words before:

    while     while SUBJECT slept , PRONOUN found the lamp .
    because   SUBJECT found the lamp because PRONOUN BE tired .
    gift      SUBJECT lent POSSESSIVE lamp to SOMEONE .
    beside    the SUBJECT near the SOMEONE BE tired .
    self      at dawn SUBJECT washed REFLEXIVE in the barn .

A subject is a woman's name, a man's name, an animal ("it") or a group of people ("they").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dlmkit_grammar.grammar import STOP, Grammar, Pattern, WordSlot, agreeing, choice, word

WOMEN = "ada bella clara dora elena freya greta helga ines judith"
MEN = "albert boris carlos dmitri edgar felix gustav hugo ivan jonas"
ANIMALS = "badger crow donkey ferret goat heron lizard mole otter squirrel"
GROUPS = "bakers farmers pilots sailors nurses painters tailors weavers miners hunters"
ADJECTIVES = "old young tall brave clever gentle quiet shy lazy proud"
HAPPENED = "slept laughed waited sang danced rested whistled shivered yawned wept"
DID = "found carried painted repaired borrowed polished counted dropped admired hid"
GAVE = "lent gave sold showed mailed offered"
SELF_VERBS = "washed hurt warmed praised blamed dried"
THINGS = "lamp basket ladder drum kettle mirror ribbon bucket hammer map"
PLACES = "barn harbour cellar orchard bridge tower market meadow chapel valley"
FEELINGS = "tired cold late thirsty lost curious afraid pleased"
TIMES = "dawn noon midnight dusk sunrise sunset"
NEAR = "near behind beside under"

TEMPLATES = {"while": 0.25, "because": 0.2, "gift": 0.2, "beside": 0.2, "self": 0.15}
CATEGORIES = {"she": 0.3, "he": 0.3, "it": 0.2, "they": 0.2}
POSSESSIVES = {"she": "her", "he": "his", "it": "its", "they": "their"}
REFLEXIVES = {"she": "herself", "he": "himself", "it": "itself", "they": "themselves"}
BE = {"she": "was", "he": "was", "it": "was", "they": "were"}
NOUNS = {"she": WOMEN, "he": MEN, "it": ANIMALS, "they": GROUPS}
ADJECTIVE_SHARE = 0.4
NAMED_SHARE = 0.5


def falling(words: str, share: float = 1.0) -> dict[str, float]:
    """Word weights that fall like 1 / (rank + 2), scaled to sum to ``share``."""
    weights = {text: 1.0 / (rank + 2) for rank, text in enumerate(words.split(), start=1)}
    total = sum(weights.values())
    return {text: share * weight / total for text, weight in weights.items()}


def one_of(words: str) -> WordSlot:
    """A word of a class; the first ones are the most frequent."""
    return choice(falling(words))


def noun_phrases(category: str) -> Iterator[tuple[float, tuple[WordSlot, ...]]]:
    """(probability, slots) of the ways to name a subject of ``category``."""
    noun = one_of(NOUNS[category])
    if category in ("she", "he"):
        yield 1.0, (noun,)
    else:
        yield 1.0 - ADJECTIVE_SHARE, (word("the"), noun)
        yield ADJECTIVE_SHARE, (word("the"), one_of(ADJECTIVES), noun)


def _agree(category: str, forms: Mapping[str, str]) -> WordSlot:
    return agreeing(forms[category], forms.values())


def _pronoun(category: str) -> WordSlot:
    return agreeing(category, CATEGORIES)


def _while(
    category: str, subject: tuple[WordSlot, ...]
) -> Iterator[tuple[float, tuple[WordSlot, ...]]]:
    clause = (word("while"), *subject, one_of(HAPPENED), word(","))
    yield 1.0, (*clause, _pronoun(category), one_of(DID), word("the"), one_of(THINGS))


def _because(
    category: str, subject: tuple[WordSlot, ...]
) -> Iterator[tuple[float, tuple[WordSlot, ...]]]:
    clause = (*subject, one_of(DID), word("the"), one_of(THINGS), word("because"))
    yield 1.0, (*clause, _pronoun(category), _agree(category, BE), one_of(FEELINGS))


def _gift(
    category: str, subject: tuple[WordSlot, ...]
) -> Iterator[tuple[float, tuple[WordSlot, ...]]]:
    gift = (*subject, one_of(GAVE), _agree(category, POSSESSIVES), one_of(THINGS), word("to"))
    named = choice(falling(WOMEN, 0.5) | falling(MEN, 0.5))
    yield NAMED_SHARE, (*gift, named)
    yield 1.0 - NAMED_SHARE, (*gift, word("the"), _someone())


def _beside(
    category: str, subject: tuple[WordSlot, ...]
) -> Iterator[tuple[float, tuple[WordSlot, ...]]]:
    place = (*subject, one_of(NEAR), word("the"), _someone())
    yield 1.0, (*place, _agree(category, BE), one_of(FEELINGS))


def _self(
    category: str, subject: tuple[WordSlot, ...]
) -> Iterator[tuple[float, tuple[WordSlot, ...]]]:
    act = (word("at"), one_of(TIMES), *subject, one_of(SELF_VERBS))
    yield 1.0, (*act, _agree(category, REFLEXIVES), word("in"), word("the"), one_of(PLACES))


def _someone() -> WordSlot:
    """Somebody else, whose number says nothing about the subject's."""
    return choice(falling(ANIMALS, 0.5) | falling(GROUPS, 0.5))


_BODIES = {
    "while": _while,
    "because": _because,
    "gift": _gift,
    "beside": _beside,
    "self": _self,
}


def _patterns() -> Iterator[Pattern]:
    for template, share in TEMPLATES.items():
        subjects = ("it", "they") if template == "beside" else tuple(CATEGORIES)
        total = sum(CATEGORIES[category] for category in subjects)
        for category in subjects:
            chance = CATEGORIES[category] / total
            for p_subject, subject in noun_phrases(category):
                for p_body, body in _BODIES[template](category, subject):
                    weight = share * chance * p_subject * p_body
                    yield Pattern(template, weight, (*body, word(STOP)), chance)


GRAMMAR = Grammar(tuple(_patterns()))
