"""What counts as saying that one does not know."""

from __future__ import annotations

import pytest

from ilab.evaluation.declines import declines
from ilab.taxonomy.items import UNKNOWN

YES = [
    UNKNOWN,
    "I do not know.",
    "I don’t know",
    "Sorry, I don't know the answer to that.",
    "Sorry. I have no information on this.",
    "Unfortunately, the text does not mention when the bridge was built.",
    "The provided document doesn't say.",
    "This passage does not contain that information. It speaks of boats.",
    "I'm afraid I cannot tell from this.",
    "I am not sure.",
    "It is not stated.",
    "Not mentioned in the document.",
    "Unknown.",
    "There is no information about this in the text.",
    "The answer is not given.",
    "Nobody knows.",
    "Das weiß ich nicht.",
    "Leider steht im Text dazu nichts; der Text sagt dazu nichts.",
    "Der Text erwähnt das nicht.",
    "Je ne sais pas.",
    "Le texte ne le dit pas.",
    "No lo sé.",
    "El texto no lo dice.",
    "Non lo so.",
    "Não sei.",
    "Dat weet ik niet.",
    "  \n I do not know.\n",
]
NO = [
    "",
    "14",
    "Tavishall",
    "The boat sails from Vellsay.",
    "I am not sure, but it is 14.",
    "I don't know exactly. However, it should be 14.",
    "“I do not know” is what the keeper said.",
    "The keeper did not know the hour.",
    "Unknown Pleasures is an album.",
    "The lamp was lit, although the text does not say by whom.",
    "He asked: I do not know?",
    "Notably, 14.",
    "Non solo i libri.",
    "No seas, only lakes.",
]


@pytest.mark.parametrize("answer", YES)
def test_it_declines(answer: str) -> None:
    assert declines(answer)


@pytest.mark.parametrize("answer", NO)
def test_it_does_not(answer: str) -> None:
    assert not declines(answer)
