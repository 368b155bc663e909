"""Does an answer say that it does not know? A rule, not a model.

An answer *declines* when its first sentence says, in one of the phrases below, that the speaker does not know or that
the text does not tell, and neither this sentence nor the next goes on to answer ("I am not sure, but it is 14").
Apologies and fillers before the phrase do not matter, nor what follows from the third sentence on. Phrases are in
English, German, French, Spanish, Italian, Portuguese and Dutch; in other languages nothing counts as declining, and a
refusal of another kind ("as a language model I must not …") does not either. Quoted phrases do not count. It errs
towards "did not decline": an unanswerable question must be declined in plain words.
"""

from __future__ import annotations

import re

_TEXT = (
    r"(?:the|this|that|your|given|provided) (?:(?:given|provided|source|above) )?"
    r"(?:text|document|passage|article|context|source|material|documentation|information)s?(?: provided| given)?"
)
_TELLS = r"(?:say|state|mention|specify|tell|give|contain|include|provide|explain|describe|answer|indicate|cover)"
_PHRASES = (
    r"(?:i|we) (?:really |just |simply )?(?:do not|don't) (?:really |actually )?know",
    r"(?:i|we) (?:am|are|'m|'re)? ?(?:not sure|not certain|unsure|unaware)",
    r"(?:i'm|we're) (?:not sure|not certain|unsure|unaware)",
    r"(?:nobody|no one) knows",
    r"(?:i|we) have no (?:idea|knowledge|information)",
    r"(?:i|we) (?:do not|don't) have (?:any |enough |the |that |this |sufficient )*(?:information|knowledge|answer)",
    r"(?:i|we) (?:cannot|can't|can not|could not|couldn't) (?:answer|say|tell|find|determine)",
    rf"{_TEXT} (?:do|does|did)(?: not|n't) {_TELLS}",
    r"(?:it|this|that) (?:is|was)(?: not|n't) (?:said|stated|mentioned|specified|given|told|known)",
    r"(?:not|nothing) (?:\w+ ){0,2}(?:said|stated|mentioned|specified|given|known)",
    r"(?:there is|there's) (?:no|not enough) (?:information|mention|answer)",
    r"(?:this|that|the question|it) (?:cannot|can't|can not) be (?:answered|determined|known|said)",
    r"(?:the )?answer is (?:not known|unknown|not given|not in the text)",
    r"(?:it is |it's |that is )?(?:unknown|no idea|unanswerable)\W*$",
    r"(?:das )?(?:weiß|weiss) ich nicht|ich (?:weiß|weiss) (?:es |das )?nicht|keine ahnung",
    r"(?:das|es) (?:ist|wird) (?:\w+ ){0,3}nicht (?:bekannt|erwähnt|angegeben|gesagt|genannt)",
    r"(?:der|im|das|dieser|steht im) (?:text|dokument|abschnitt) [^.]{0,40}(?:nicht|nichts|keine)",
    r"je (?:ne )?sais pas|je l'ignore|je n'en sais rien|aucune idée",
    r"(?:le|ce) (?:texte|document|passage) ne [^.]{0,30}(?:pas|rien)",
    r"(?:yo )?no (?:lo )?sé(?=\W|$)|ni idea|lo desconozco",
    r"el (?:texto|documento|pasaje) no (?:lo )?(?:dice|menciona|indica|especifica)",
    r"non (?:lo )?so(?=\W|$)|il (?:testo|documento|brano) non (?:lo )?(?:dice|menziona|indica|specifica)",
    r"(?:eu )?não sei(?=\W|$)|o (?:texto|documento) não (?:o )?(?:diz|menciona|indica|especifica)",
    r"(?:dat )?weet ik niet|ik weet (?:het|dat) niet|geen idee|de tekst (?:zegt|vermeldt) [^.]{0,20}niet",
)
_BEFORE = (
    r"(?:(?:well|oh|sorry|unfortunately|regrettably|apologies|leider|désolée?|lo siento|mi dispiace|desculpe|helaas"
    r"|i(?:'m| am) (?:so |very |really )?(?:sorry|afraid)(?: that)?|according to [^,.]{1,40}|based on [^,.]{1,40}"
    r"|i (?:would|must|have to) say(?: that)?|the answer is that)(?:,? but)?[\s,.:;!–—-]+){0,3}"
)
_DECLINES = re.compile(rf"\W*{_BEFORE}(?:{'|'.join(_PHRASES)})")
_GOES_ON = re.compile(r"\b(?:but|however|though|although|still|aber|jedoch|mais|pero|però|ma|mas|maar)\b")
_QUOTES = "\"'“‘«„"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def declines(answer: str) -> bool:
    """Whether ``answer`` says that it does not know (see the module's rule)."""
    said = " ".join(answer.replace("’", "'").split()) if "\n" not in answer else answer.replace("’", "'")
    said = said.strip().lower()
    if not said or said[0] in _QUOTES:
        return False
    sentences = [part.strip() for part in _SENTENCE_END.split(said) if part.strip()]
    # A first sentence of apology alone ("Sorry.") belongs to the one behind it.
    first = " ".join(sentences[:2]) if len(sentences[0].split()) < 3 else sentences[0]
    found = _DECLINES.match(first)
    if not found:
        return False
    rest = first[found.end() :]
    after = sentences[1] if len(sentences) > 1 and first == sentences[0] else ""
    return not _GOES_ON.search(rest) and not _GOES_ON.match(after)
