"""Which language a text is probably in: by its script, and where several languages share one, by small words.

A guess for a data card, not for decisions: a few words are too little to tell, and then nothing is said. Each
small word speaks for the languages that have it, the fewer they are the louder (the idea of Grefenstette, "Comparing
two language identification schemes", JADT 1995).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict

from ilab.sdg.text import words

UNKNOWN = "unknown"
LEAST = 1.2  # weight that must speak for a language: about two words that few others have
AHEAD = 1.25  # how many times as much as for the next
MOST = 3  # times that one word counts
SEEN = 4000  # characters that are looked at

_SMALL = {
    "en": "the made of and to a in is that it was for on are as with his they at be this from have or by one had not "
    "but what all were when we there can an your which their said if will each about how up out them then she "
    "many some so these would other into has more her two him could make than been its who now did get come "
    "does where why whom",
    "de": "der die das und ist nicht ein eine einer eines einem einen zu den dem des mit von auf für sich im auch "
    "es an er sie wird bei werden aus wie was wer wo wann warum welche welcher welches sind hat war nach oder "
    "über aber nur noch durch wenn am zum zur kann haben ihr ihre so als ich wir du dass man mehr sehr vor",
    "fr": "le la les de des du et est un une que qui dans pour pas sur au aux avec ce cette ces il elle ils elles "
    "on nous vous ne se sont par plus ou où mais comme été être avoir fait son sa ses leur leurs quel quelle "
    "quels quelles quand comment pourquoi combien à y en même aussi très si tout tous peut était ont",
    "es": "el la los las de del y es un una que en por para con no se su sus lo al como más o pero este esta estos "
    "estas fue son ha han cuando cuándo dónde donde qué quién cuál cuáles cómo cuánto porque muy también ya "
    "entre sin sobre está están ser tiene hasta desde todo todos ni hay puede era",
    "it": "il lo la i gli le di del della dei delle dello degli e è un una uno che in per con non si su al alla ai "
    "alle da dal dalla come più o ma questo questa sono ha hanno quando dove chi cosa quale quali quanto "
    "perché anche nel nella nei nelle sul sulla tra fra essere stato può suo sua suoi cui era ogni dell all "
    "nell",
    "pt": "o a os as de do da dos das e é um uma que em no na nos nas por para com não se seu sua seus suas ao à às "
    "como mais ou mas este esta isso são foi tem quando onde quem qual quais quanto porque também já entre "
    "sem sobre está ser pelo pela até muito ele ela eles há pode era num numa você",
    "nl": "de het een en van is in dat die te op niet met voor zijn aan er als bij ook om uit naar maar nog "
    "wel dan of wat wie waar wanneer waarom welke hoe hij zij ze wordt worden werd heeft hebben had kan deze "
    "dit over geen meer tot tussen onder zoals u je ik wij was naast moet",
    "sv": "och att det som en ett är av för på med den till i inte om har de var från vid kan så men eller när vad "
    "vem vilken vilket hur varför han hon sig ska skulle också efter mellan under över där mycket alla detta "
    "denna blev vara sin sitt sina man mot utan dessa hade finns",
    "da": "og at det som en et er af for på med den til i ikke om har de var fra ved kan så men eller når hvad hvem "
    "hvilken hvilket hvordan hvorfor hvor han hun sig skal skulle også efter mellem under over der meget alle "
    "dette denne blev være sin sit sine man mod uden disse havde findes bliver",
    "no": "og at det som en et er av for på med den til i ikke om har de var fra ved kan så men eller når hva hvem "
    "hvilken hvilket hvordan hvorfor hvor han hun seg skal skulle også etter mellom under over der mye alle "
    "dette denne ble være sin sitt sine man mot uten disse hadde finnes blir jeg",
    "pl": "i w na z do nie się jest to że o jak za od po dla co który która które przez są był była było oraz lub "
    "ale tak gdy kiedy gdzie kto czy ile dlaczego jego jej ich tego tej tym może być przy ma nad pod bez "
    "także już jako tylko",
    "cs": "a v na se je že z do to s o i k pro jako za po od jsou byl byla bylo který která které ale nebo není "
    "když kdy kde kdo co proč jak jaký jaká kolik jeho její jejich tento této být může při má nad pod bez "
    "také už ve ze aby",
    "fi": "ja on ei se että oli mutta ovat kuin myös joka jotka hän sen tai kun mitä mikä kuka missä milloin miksi "
    "miten ne ole jos niin vain voi sekä olla tämä nämä kanssa jälkeen ennen mukaan vuonna ollut sitä jossa",
    "tr": "ve bir bu da de için ile olarak çok daha en o ne nedir kim nerede nasıl neden niçin hangi kaç olan gibi "
    "kadar sonra önce ise değil var yok mi mı mu mü ya veya ama her tarafından üzerinde göre olduğu edilir "
    "olur",
    "ro": "și de la în a al ai ale cu pe nu este un o că din pentru care sunt mai se cel cea fi fost prin sau dar "
    "ce cine unde când cum cât cărui lui ei lor după fără între sub acest această acestea său sa poate are "
    "avea",
    "hu": "a az és hogy nem is egy ez van volt de meg csak már ki mi mit hol mikor miért hogyan melyik mely vagy "
    "mint ha el még minden lehet után között alatt szerint által lett voltak vannak ezt azt",
    "id": "yang dan di ke dari ini itu dengan untuk pada adalah tidak dalam akan oleh sebagai juga atau ada karena "
    "apa siapa mana kapan mengapa bagaimana dapat telah saat lebih para bisa sudah antara seperti tersebut",
    "ru": "и в не на что я быть он с а как это по но они к у из за то все так его от о для же вы бы какой какая "
    "какие где когда почему кто или при до был была было были который которая которые чем может также после",
    "uk": "і в не на що я бути він з а як це по але вони до у із за то все так його від про для ж ви би який яка "
    "які де коли чому хто або при був була було були та є чи може також після під",
    "bg": "и в не на че аз съм той с а като това по но те към у от за то всички така го о да ще се са е или при до "
    "беше който която които какво къде кога защо кой коя може също след със във",
}
_SPEAKS: dict[str, list[str]] = defaultdict(list)
for _language, _text in _SMALL.items():
    for _word in dict.fromkeys(_text.split()):
        _SPEAKS[_word].append(_language)
_CYRILLIC = frozenset({"ru", "uk", "bg"})
_SCRIPTS = {  # first word of a letter's Unicode name, for scripts that one language stands for
    "GREEK": "el",
    "HEBREW": "he",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
}


def guess_language(text: str) -> str:
    """The ISO 639-1 code of the language that ``text`` is probably in, or ``unknown``."""
    text = text[:SEEN]
    script, share = _script(text)
    if script not in ("LATIN", "CYRILLIC"):
        return _of_script(script, share, text)
    return _by_small_words(text, cyrillic=script == "CYRILLIC")


def _script(text: str) -> tuple[str, Counter[str]]:
    """The script of most letters, and how many letters there are of each."""
    letters = Counter(character for character in text if character.isalpha())
    found: Counter[str] = Counter()
    for character, count in letters.items():
        found[unicodedata.name(character, "NONE").split()[0]] += count
    # A Japanese text is told by its syllables although most of its signs may be Chinese.
    syllables = found["HIRAGANA"] + found["KATAKANA"]
    if syllables and syllables * 10 >= found["CJK"] and syllables + found["CJK"] > found["LATIN"]:
        return "HIRAGANA", found
    best = min(found, key=lambda name: (-found[name], name), default="NONE")
    return best, found


def _of_script(script: str, found: Counter[str], text: str) -> str:
    if script == "ARABIC" and re.search("[پچژگ]", text):
        return "ur" if re.search("[ٹڈڑںے]", text) else "fa"
    return _SCRIPTS.get(script, UNKNOWN) if found[script] >= 2 else UNKNOWN


def _by_small_words(text: str, *, cyrillic: bool) -> str:
    scores: dict[str, float] = defaultdict(float)
    for word, count in Counter(words(text)).items():
        speaking = [language for language in _SPEAKS.get(word, ()) if (language in _CYRILLIC) == cyrillic]
        for language in speaking:
            # A letter by itself may be a sign of something else, and one word often said is still one.
            scores[language] += min(count, MOST) * (0.5 if len(word) == 1 else 1) / len(speaking)
    for language, mark in _MARKS.items():
        if (language in _CYRILLIC) == cyrillic:
            scores[language] += 0.5 * len(mark.findall(text))
    ranked = sorted(scores, key=lambda language: (-scores[language], language))
    if not ranked or scores[ranked[0]] < LEAST:
        return UNKNOWN
    if len(ranked) > 1 and scores[ranked[0]] < AHEAD * scores[ranked[1]]:
        return UNKNOWN
    return ranked[0]


_MARKS = {  # letters that among these languages one alone has
    "de": re.compile("ß"),
    "es": re.compile("[ñ¿¡]"),
    "pt": re.compile("[ãõ]"),
    "pl": re.compile("[łąęźżśń]"),
    "cs": re.compile("[řěů]"),
    "tr": re.compile("[ığ]"),
    "ro": re.compile("[țșț]"),
    "hu": re.compile("[őű]"),
    "uk": re.compile("[іїєґ]"),
    "ru": re.compile("[ыэё]"),
}
