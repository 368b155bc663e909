"""Passages that speak to a language model instead of a reader: "ignore all previous instructions", chat markers.

A list of phrasings in English, German, French and Spanish and of the control tokens of chat templates. It finds what
is written the usual way, not what somebody hides on purpose: a reason to look, never a proof that a text is safe
(Greshake and others, "Not what you've signed up for", 2023; OWASP LLM01). Every phrasing needs a verb, an object and
the thing that makes it an address to a model ("your", "previous", "system"), so that manuals are left alone.

Texts are compared in lower case without accents. Every repetition has a bound, so that the time is linear in the
text's length whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ACCENTS = str.maketrans("àáâãäåçèéêëìíîïñòóôõöùúûüýÿ’", "aaaaaaceeeeiiiinooooouuuuyy'")

# `_` between words stands for blanks, line ends, emphasis and quotation marks, but no end of a sentence.
_GAP = r"(?:[^a-z0-9.!?;<]{1,6})"
_AI = (
    r"(?:an?_)?(?:ai(?:_language)?|llm|gpt|chatgpt|(?:large_)?language_model|chatbot)"
    r"(?:_(?:assistant|model|agent|system|bot))?s?"
)
_KI = r"(?:ki|ki-\w{4,12}|sprachmodell|chatbot|llm)"
_IA_FR = r"(?:une_(?:ia|intelligence_artificielle)|un_(?:grand_)?modele_de_langage|un_(?:llm|chatbot))"
_IA_ES = r"(?:una_(?:ia|inteligencia_artificial)|un_(?:gran_)?modelo_de_lenguaje|un_(?:llm|chatbot))"
_FORGET = r"(?:ignor(?:e|ing)|disregard(?:ing)?|forget|overrid(?:e|ing)|bypass"

_ENGLISH = (
    # Set aside what was said before.
    _FORGET + r"|overrule|obey|do_not_follow|don't_follow|stop_following|pay_no_attention_to)_"
    r"(?:(?:all|any|every|each|the|these|those|of|my|and|other)_){0,4}"
    r"(?:(?:previous|previously|prior|above|earlier|preceding|foregoing|original|initial|system|existing|your|safety"
    r"|given|developer|past|former)_(?:or_|and_)?){1,3}(?:[a-z]{2,12}_)?(?:instruction|prompt|directive)s?\b",
    _FORGET + r")_(?:(?:all|any|every|the|of)_){0,3}your_(?:(?:own|safety|content|ethical|internal|usual)_)?"
    r"(?:instructions|guidelines|rules|training|programming|guardrails)\b",
    _FORGET + r")_(?:(?:all|any|every|the|of)_){0,3}(?:instructions|guidelines|rules)_(?:that_)?"
    r"(?:you_(?:were|have|are|had)_(?:been_)?(?:given|told)|above|before_this|so_far)\b",
    _FORGET + r")_(?:everything|anything|what|whatever|all)_(?:that_)?"
    r"(?:you_(?:were|have_been|'ve_been)_(?:told|taught|instructed)|above\b|before_this\b)",
    # A new role.
    r"you(?:_are|'re)_now_(?:an?|the|my|our)_(?:[a-z-]{2,16}_){0,3}"
    r"(?:ai|assistant|chatbot|bot|agent|model|persona|hacker|expert|character|pirate)\b",
    r"you(?:_are|'re)_now_(?:dan\b|in_(?:developer|debug|god|admin|jailbreak|unrestricted)_mode|unrestricted|unfiltered"
    r"|uncensored|jailbroken|free_(?:of|from)_(?:all|any|your)\b|no_longer_bound)",
    r"from_now_on,?_you_(?:are_(?:an?|my|no_longer)|(?:will|must|should|shall)_(?:(?:only|always|never|not)_){0,2}"
    r"(?:act|respond|answer|reply|behave|pretend|say|obey|speak|recommend|claim|tell))\b",
    r"(?:pretend|act_as_if|imagine)_(?:that_)?you_(?:are|were)_(?:not_)?(?:an?_)?"
    r"(?:ai|assistant|human|llm|unrestricted|language_model|dan|evil|jailbroken)\b",
    r"act_as_(?:an?_)?(?:unrestricted|unfiltered|uncensored|jailbroken|dan)\b",
    # Spoken to as a machine.
    rf"\b(?:as|if_you_are|if_you're|since_you_are|because_you_are)_{_AI},?_(?:you_(?:must|should|shall|will|have_to"
    r"|need_to|are_to|may_not|cannot)|please|then|always|never|do_not|don't|ignore|say|include|respond|reading"
    r"|processing|summari[sz]ing)\b",
    r"\b(?:note|message|instructions?|attention|notice|reminder|important|hint|request)_(?:(?:to|for)_)?"
    rf"(?:all_|any_|the_)?{_AI}(?:_(?:reading|processing|summari[sz]ing|parsing|evaluating|reviewing)\b"
    r"|[^a-z0-9]{0,3}[:!])",
    r"(?:reveal|print|show|repeat|output|display|disclose|leak|expose|recite|tell_me|give_me|what_is|what_are|begin|end"
    r"|new|updated)_(?:(?:me|us|the|all|of|full|entire|exact|verbatim|contents?|your)_){0,4}"
    r"(?:system_prompt|system_message|(?:initial|hidden)_(?:prompt|instructions))\b",
    r"\byour_(?:system_prompt|initial_prompt|hidden_instructions)\b",
    rf"\b(?:new|hidden|secret|real|actual)_(?:system_)?instructions?_(?:for|to)_(?:the_)?(?:assistant|model|{_AI})"
    r"[^a-z0-9]{0,3}:|\bsystem_override\b[^a-z0-9]{0,3}:",
    # Keep it from the user.
    r"(?:do_not|don't|never|must_not)_(?:(?:ever|also)_)?(?:tell|inform|mention|reveal|disclose|say|alert|warn|notify)_"
    r"(?:(?:this|that|it|any|of|these|anything|about|the|instructions?|to|message|text)_){0,5}(?:the|your|any)_"
    r"(?:user|human)s?_?(?:[.!,:;]|$|\b(?:that_you|about_(?:this|these)|what_you|you_(?:are|were|have))\b)",
)
_GERMAN = (
    r"(?:ignorier(?:e|en_sie|t)|vergiss|vergessen_sie|vergesst|missachte|missachten_sie|befolge_(?:nicht|keine))_"
    r"(?:(?:alle[rn]?|s(?:a|ae)mtlichen?|die|deine|ihre|jegliche|meine|der|von)_){0,3}(?:deine_|ihre_|system-?"
    r"|(?:bisherig|vorherig|vorig|fr(?:u|ue)her|obig|vorangegangen|vorangehend|vorstehend|urspr(?:u|ue)nglich|ander)"
    r"e[nr]?_){1,2}(?:anweisung|instruktion|befehl|vorgabe|prompt|systemprompt|systemanweisung)\w{0,3}\b",
    r"\b(?:vergiss|ignoriere)_(?:alle_)?deine_(?:anweisungen|instruktionen|regeln|vorgaben)\b",
    r"\bdu_bist_(?:ab_)?(?:jetzt|nun|sofort)_eine?_(?:[a-z]{2,16}_){0,2}"
    rf"(?:{_KI}|\w{{0,14}}assistent|hacker|experte|pirat)\w{{0,3}}\b",
    r"\bab_(?:jetzt|sofort|nun)_(?:bist|antwortest|verh(?:a|ae)ltst|sprichst)_du\b",
    rf"\bals_{_KI},?_(?:musst|sollst|darfst|wirst)_du\b|\bwenn_du_(?:eine?_)?{_KI}_bist\b",
    r"\b(?:sage?|verrate|erz(?:a|ae)hle|teile|verschweige|erw(?:a|ae)hne)_"
    r"(?:(?:es|dies|das|davon|nichts|niemals|dem|gegen(?:u|ue)ber)_){1,3}(?:be)?(?:nutzer|anwender|user)n?_"
    r"(?:nicht|nichts|niemals|davon|gegen(?:u|ue)ber)",
)
_FRENCH = (
    r"(?:ignore[zr]?|oublie[zr]?|ne_(?:tiens|tenez|tenir)_pas_compte_de|ne_(?:suis|suivez)_(?:pas|plus)|contourne[zr]?)_"
    r"(?:(?:toutes|tous|l'ensemble|de|des)_){0,2}(?:les|tes|vos|ces|des)_(?:autres_)?"
    r"(?:instruction|consigne|directive|ordre)s?_(?:qui_)?"
    r"(?:precedent|anterieur|ci-dessus|initial|recu|donne|du_systeme|systeme|original)",
    r"\b(?:tu_es|vous_etes)_(?:maintenant|desormais)_une?_(?:[a-z]{2,16}_){0,2}"
    r"(?:assistante?|ia|modele|chatbot|robot|pirate|expert)\b",
    r"\ba_partir_de_maintenant,?_(?:tu_(?:es|reponds|repondras|agis)|vous_(?:etes|repondez|repondrez|agissez))\b",
    r"\ben_tant_qu(?:e_modele_de_langage|'ia|'intelligence_artificielle),?_(?:tu|vous)_(?:ne_)?(?:dois|devez)\b",
    rf"\bsi_(?:tu_es|vous_etes)_{_IA_FR}\b",
    r"\bne_(?:dis|dites|revele|revelez|mentionne|mentionnez|parle|parlez|signale|signalez)_"
    r"(?:(?:rien|pas|jamais|cela|ceci|de|ca)_){1,3}(?:a_l'|aux_)utilisateurs?\b",
)
_SPANISH = (
    r"(?:ignor[ae]n?|ignorad|olvid[ae]n?|olvidad|descart[ae]|hag?[az]_caso_omiso_de|no_(?:hagas|haga)_caso_(?:a|de)"
    r"|no_sigas)_(?:(?:todas|todos|de)_){0,2}(?:las|los|tus|sus|estas)_(?:(?:demas|otras|anteriores|previas)_)?"
    r"(?:instrucciones|ordenes|indicaciones|directrices)_"
    r"(?:anterior|previ|precedente|inicial|recibid|original|de_arriba|del_sistema|dadas)",
    r"\b(?:ahora_eres|eres_ahora|(?:a_partir_de|desde)_ahora,?_eres)_una?_(?:[a-z]{2,16}_){0,2}"
    r"(?:asistente|ia|modelo|chatbot|robot|pirata|experto)\b",
    r"\b(?:a_partir_de|desde)_ahora,?_(?:actuas|actuaras|respondes|responderas|debes_responder)\b",
    r"\bcomo_(?:ia|modelo_de_lenguaje|inteligencia_artificial),?_(?:debes|tienes_que|deberas|no_debes|no_puedes)\b",
    rf"\bsi_eres_{_IA_ES}\b",
    r"\bno_(?:le_|se_lo_)?(?:digas|reveles|menciones|cuentes|informes)_(?:(?:nada|esto|eso|de|nunca)_){0,3}"
    r"al?_(?:l[oa]s?_)?usuari[oa]s?\b",
)
# Control tokens and turn markers of chat templates, perhaps with the backslashes of Markdown in them: ChatML, Llama 2
# to 4, Granite, Phi, DeepSeek, Gemma, Qwen and Hermes tools, Alpaca.
_MARKERS = re.compile(
    r"\\?<\\?[|｜](?:[\w▁-]|\\[_-]){1,40}\\?[|｜]\\?>"
    r"|\\?\[/?INST\\?\]|\\?<\\?<\\?/?SYS\\?>\\?>"
    r"|\\?<(?:start|end)\\?_of\\?_turn\\?>|\\?</?tool\\?_(?:call|response)s?\\?>"
    r"|^\#{2,4}[ ](?:Instruction|System|Human|Assistant|User)[ ]?:",
    re.MULTILINE,
)
_PHRASES = tuple(re.compile(text.replace("_", _GAP)) for text in (*_ENGLISH, *_GERMAN, *_FRENCH, *_SPANISH))


def speaking_to_models(text: str) -> Iterator[tuple[int, int]]:
    """The spans (start, end) of such passages in ``text``, in order; spans that touch are one."""
    plain = plainly(text)
    found = [match.span() for match in _MARKERS.finditer(text)]
    for phrase in _PHRASES:
        found += [match.span() for match in phrase.finditer(plain)]
    start, end = -1, -1
    for first, last in sorted(found):
        if first > end:
            if end >= 0:
                yield start, end
            start, end = first, last
        end = max(end, last)
    if end >= 0:
        yield start, end


def plainly(text: str) -> str:
    """``text`` in lower case without the accents of Latin letters, character for character as long as before."""
    return text.replace("İ", "i").lower().translate(_ACCENTS)  # `İ` alone would become longer
