"""The phrases by which :mod:`ilab.sdg.refusal` knows a refusal. One alternative a line; texts are in lower case."""

from __future__ import annotations

import re


def _any(lines: str, **parts: str) -> str:
    """One of ``lines``, in which ``<name>`` stands for one of ``parts``."""
    found = "(?:" + "|".join(line.strip() for line in lines.strip().split("\n")) + ")"
    for name, part in parts.items():
        found = found.replace(f"<{name}>", part)
    return found


SOFT = (
    _any(r"""
    well|oh|unfortunately|sorry|my apologies|apologies|i regret
    (?:i am|i'm) (?:so |very |truly |really )?(?:sorry|afraid)
    i apologi[sz]e(?: for [^.,;:!]{0,60})?
    thank you for [^.!]{0,60}
    """)
    + r"(?:,? (?:but|that|however))?[\s,.:;!–—-]*"
)
UNABLE = (
    _any(r"""
    (?:i|we)(?: simply| really| just| currently)? (?:cannot|can not|can't|could not|couldn't|won't be able to|won't)
    (?:i|we) (?:will not be able to|must decline to|have to decline to|refuse to|would rather not)
    (?:i|we)(?: am| are|'m|'re) (?:unable|not able|not programmed|not designed|not allowed|not permitted) to
    """)
    + r"(?: in good conscience)?"
)
THING = r"(?:\w+[ -]){0,4}" + _any(r"""
    information|answers?|assistance|instructions?|advice|guidance|details?|responses?|help|opinions?|explanations?
    examples?|questions?|requests?|tasks?|quer(?:y|ies)|recommendations?|summary|content|context|that|this
    text|passage|document|code|stor(?:y|ies)|images?|files?|links?|pairs?|data
    """)
DOING = _any(
    r"""
    (?:assist|comply)\b|help(?! (?:\w+ing|but|it|my\w*)\b)\b
    (?:answer|provide|fulfil|fulfill|generate|create|offer|give|produce|complete|share|determine|discuss) <thing>\b
    (?:respond to|engage in|engage with|process|access|view|see|open|find|write|do|continue with|browse) <thing>\b
    (?:browse|access) the (?:internet|web)
    (?:answer|respond|determine|say|tell)(?=[.!?]|$| (?:from|based)\b)
    """,
    thing=THING,
)
LACKING = (
    _any(r"""
    (?:i|we) (?:do not|don't) have (?:access to|any|enough|sufficient|the necessary|real-time|personal|the ability)
    (?:i|we) (?:do not|don't) have(?= information)
    (?:i|we) (?:was|were) (?:not given|not provided with|given no|provided with no)
    """)
    + r"[^.]{0,60}\b(?:information|context|details|document|passage|text|experiences?|opinions?|feelings|data|to)\b"
)
ABROAD = _any(r"""
    (?:es tut mir leid,? |leider )(?:aber )?(?:ich )?kann [^.]{0,60}(?:nicht|keine)
    (?:je suis désolée?,? |désolée?,? )(?:mais )?je ne peux pas
    (?:lo siento|disculpa),? (?:pero )?no puedo
    mi dispiace,? (?:ma )?non posso
    (?:sinto muito|desculpe),? (?:mas )?não posso
    """)
REFUSES = _any(
    r"""
    <soft>{0,3}(?:<unable> <doing>|<lacking>)
    <abroad>
    <soft>{0,3}(?:i am|i'm) not (?:sure|certain)\W*$
    <soft>{0,3}i (?:do not|don't)(?: actually)? know(?: the answer| that| this)?(?: to (?:that|this)(?: question)?)?\W*$
    (?:this|your|the) (?:request|prompt|question|content) (?:violates|goes against|is against)\b
    <soft>{0,3}(?:it is|it's|it would be) (?:not (?:appropriate|ethical|possible)|inappropriate|unethical) for me to\b
    """,
    soft=f"(?:{SOFT})",
    unable=UNABLE,
    doing=DOING,
    lacking=LACKING,
    abroad=ABROAD,
)
MODEL = _any(r"""
    \bas an? (?:\w+[ -]){0,3}(?:ai|artificial intelligence)(?: (?:assistant|model|system|program|language model))?,? i\b
    \bas an? (?:\w+[ -]){0,3}(?:language model|llm|chatbot)(?: \w+){0,6},? i\b
    \bi(?:'m| am) (?:just |only |merely )?an? (?:\w+[ -]){0,3}(?:language model|llm)\b
    \bi(?:'m| am) (?:just |only |merely )?an? ai(?: (?:assistant|model|chatbot|system|language|and|who)\b|[.,;!]|$)
    \b(?:my training data|my knowledge cut-?off|as of my last (?:knowledge )?update|my last knowledge update)\b
    \bals (?:eine? )?(?:ki\b(?:-[\w-]+)?|sprachmodell) (?:kann|habe|bin|weiß) ich\b
    \ben tant (?:que |qu')(?:modèle de langage|ia\b|intelligence artificielle)
    \bcomo (?:un |una |um |uma )?(?:modelo de (?:lenguaje|linguagem)|ia|inteligencia artificial),
    \bcome modello linguistico\b
    """)
TEXT = (
    r"(?:(?:provided|given|above|supplied|source|original) )?"
    r"(?:document|passage|text|context|article|excerpt|source|material|information|content)s?"
    r"(?: (?:provided|given|above|supplied))?"
)
TOLD = _any(
    r"(?:mention|specif|stat|provid|contain|includ|indicat|discuss|describ|address|clarif|explain)\w*|give[ns]?|sa(?:y|id)"
)
SILENT = _any(
    r"""
    <the> (?:also |only |itself )?<not> (?:\w+ly )?(?:mention|specify|state|say|indicate|discuss)\b
    <the> <not> (?:\w+ly )?(?:contain|provide|include|give|offer|have)(?: \w+){0,2} <piece>\b
    (?:is|are|was|were)(?: not|n't) (?:\w+ly )?<told>(?: \w+){0,2} (?:in|by|within|from) <the>\b
    (?:there is|there's|there are) (?:no|not enough|insufficient) (?:\w+ )?<piece>[^.]{0,80}(?:in|from) <the>\b
    ^(?:this|it|that)? ?(?:cannot|can't|can not) be (?:determined|answered|inferred)[^.]{0,40}(?:from|by) <the>\b
    ^(?:not|none|nothing) <told> (?:in|by) <the>\b
    ^(?:based on|according to|from) <the>,? (?:(?:i|we|it) (?:cannot|can't|can not)|it is (?:not |im)possible)
    (?:das dokument|der text) (?:erwähnt|enthält|nennt)[^.]{0,60}(?:nicht|keine)
    le (?:document|texte|passage) ne (?:mentionne|précise|contient|dit) pas
    el (?:documento|texto|pasaje) no (?:menciona|especifica|contiene|dice)
    il (?:documento|testo|brano) non (?:menziona|specifica|contiene|dice)
    o (?:documento|texto|trecho) não (?:menciona|especifica|contém|diz)
    """,
    the=rf"(?:the|this|that|your) {TEXT}",
    told=TOLD,
    piece=r"(?:information|mention|details?|answers?|references?|context)",
)
SILENT = SILENT.replace("<not>", "(?:does not|doesn't|do not|don't|did not|didn't)")

# Questions in which the phrase is what is asked for.
ASKS_REFUSAL = _any(r"""
    \b(?:refus|declin|apolog|disclaim|reject|translat|rephras|paraphras|rewrit|pretend|quot|summari[sz])\w*
    \b(?:excuses?|phrases?|wording|role-?play|correct the|complete the)\b
    \bturn(?:s|ed|ing)? (?:\w+ ){0,4}down\b|\bsay(?:s|ing)? (?:\w+ ){0,3}no\b
    \bhow (?:do|would|should|can|could) (?:i|you|we|one|a \w+) (?:say|answer|reply|respond)
    \b(?:write|draft|compose|give|suggest)\b[^.?!]{0,60}\b(?:note|message|letter|e-?mail|repl(?:y|ies)|responses?)\b
    \b(?:write|draft|compose|give|suggest)\b[^.?!]{0,60}\b(?:dialogue|scene|lines?|sentences?|scripts?|text)\b
    \bwhat (?:does|do|did|would|will|should|is) [^?]{0,60}\b(?:say|reply|answer|respond|message)\b
    """)
ASKS_MODEL = _any(r"""
    \b(?:are you|who are you|what are you|do you|your (?:name|training|limits|purpose|opinion))\b
    \b(?:ai|chatbots?|language models?|llms?|phrases?|sentences?|role-?play)\b
    \b(?:disclaim|translat|rewrit|pretend|quot)\w*
    """)
ASKS_SILENCE = _any(
    r"""
    ^\W*(?:does|do|did|is|are|was|were|has|have|can|could)\b[^?]*\b<told>
    \b(?:whether|if|not|never|missing|absent|silent|unclear|unspecified)\b|n't\b
    \b(?:lack|omit|translat|rewrit|rephras|paraphras|summari[sz])\w*
    """,
    told=TOLD,
)
ASKS_TEMPLATE = _any(r"""
    \b(?:templates?|placeholders?|variables?|formats?|f-?strings?|markup|syntax|code|snippet|function|script|prompt)\b
    \b(?:macro|field|braces?|brackets?|latex|mustache|forms?|letter|e-?mail|curly|expression|regex)\b
    \b(?:jinja|substitut|interpolat)\w*
    """)
NAMES = (
    r"(?:question|answer|response|context|document|passage|text|topic|domain|task_description|document_outline|seed_\w+"
    r"|icl_\w+|instruction|input|output|name|subject|raw_document)"
)
UNFILLED = _any(
    r"""
    \{\{-? ?<names> ?-?\}\}|(?<![\w$\\{])\{<names>\}(?!\})
    \{%-? ?(?:if|for|endif|endfor)\b[^}\n]{0,60}%\}
    \[(?:insert|enter|fill in|add|put) [^\]\n]{1,60}\]|<(?:insert|enter) [^>\n]{1,60}>
    \[(?:placeholder|your answer|your question|question here|answer here)\]|<(?:your answer|your question)>
    """,
    names=NAMES,
)
TAG = _any(r"""
    \[/?(?:answer|question|response|context|output|input|text|passage|document|score|verdict|end|start|inst|why)\]
    </?(?:answer|question|response|context|passage|document|think|s|eos|bos|pad|score|verdict)>|<\|[a-z0-9_]+\|>
    """)

PATTERNS = {
    "speaks as a model": (re.compile(MODEL), re.compile(ASKS_MODEL)),
    "refusal": (re.compile(rf"^\W*{REFUSES}"), re.compile(ASKS_REFUSAL)),
    "not in the text": (re.compile(SILENT), re.compile(ASKS_SILENCE)),
}  # by kind: what shows it, and the questions that ask for it
UNFILLED_PART = re.compile(UNFILLED, re.IGNORECASE)
ABOUT_TEMPLATES = re.compile(ASKS_TEMPLATE)
TAGS = re.compile(TAG, re.IGNORECASE)
