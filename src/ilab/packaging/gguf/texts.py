"""Fixed texts for the parity checks: many scripts, and what pre-tokenizers are known to cut differently.

All are composed (Unicode NFC), and none has a word in accented capitals: what llama.cpp is known to do otherwise there
is said with the name of the pre-tokenizer (``pretokenizers``).
"""

from __future__ import annotations

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and nobody has seen it since Tuesday.",
    "What is 7 + 5? It's 12; I'll say that we've 3.14159, 1,234,567 and 20251231 of them.",
    "IT'S what THEY'LL say: He's, she'D, we'Re, DON'T, o'clock, 'tis.",
    "    four spaces,\ttab,  two  spaces \n\n\n  new lines\r\n and an end  ",
    "def answer(x: int) -> int:\n    return x ** 2  # squared!\n\n\nprint(answer(42))\n",
    "Größe, café, naïve façade, Ærøskøbing, żółw, Ångström, señor, İstanbul.",
    "Быстрая лиса прыгает через ленивую собаку 25 раз.",
    "Η γρήγορη αλεπού πηδά πάνω από το σκυλί.",
    "敏捷的棕色狐狸跳过了懒狗。我想在apple工作1314151天～",
    "いろはにほへと ちりぬるを。カタカナと漢字、２０２５年。",
    "다람쥐 헌 쳇바퀴에 타고파.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول ١٢٣.",
    "השועל המהיר קופץ מעל הכלב העצלן.",
    "तेज़ लोमड़ी आलसी कुत्ते के ऊपर कूदती है।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅ 🦙🦙 👩🏽‍🚀",
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3",
    "------======= ''''''```````\"\"\"\"......!!!!!!?????? <>{}[]()|\\/",
    "camelCase snake_case SCREAMING_CASE HTTPServer2Client v1.2.3-rc4 a1b2c3",
    "https://example.org/path?q=1&r=%20#top mail@example.org C:\\Users\\me",
    "¹²³ ½ Ⅷ ℃ № ™ € £ ¥ ∑ ∫ √ ≤ ≠ → ⇒ α β γ",
    "zero\u200bwidth no\u00a0break em\u2003space soft\u00adhyphen \ufeffmark",
    "a",
    " ",
    " a b",
    "\n",
)
CONVERSATION = (
    {"role": "user", "content": "Who keeps the light at night?"},
    {"role": "assistant", "content": "Tobias Quill does, since 1932."},
    {"role": "user", "content": "  And how many steps has the tower?\n\n    (three lines)"},
)
