"""Languages are guessed from short questions and answers, and nothing is said where nothing can be known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.sdg.language import guess_language

# Each is a question with its answer, as short as samples are.
TEXTS = {
    "en": [
        "Who built the tower? It was built by Ada in 1871.",
        "What is the kiln made of? The casing is made of steel.",
    ],
    "de": ["Wer hat den Turm gebaut? Er wurde von Ada gebaut.", "Woraus ist der Ofen? Das Gehäuse ist aus Stahl."],
    "fr": [
        "Qui a construit la tour ? Elle a été construite par Ada.",
        "En quoi est le four ? Le boîtier est en acier.",
    ],
    "es": ["¿Quién construyó la torre? Fue construida por Ada.", "¿De qué está hecho el horno? La caja es de acero."],
    "it": [
        "Chi ha costruito la torre? È stata costruita da Ada.",
        "Di che cosa è fatto il forno? Il corpo è di acciaio.",
    ],
    "pt": ["Quem construiu a torre? Foi construída por Ada.", "De que é feito o forno? A caixa do forno não é de aço."],
    "nl": [
        "Wie heeft de toren gebouwd? Hij is door Ada gebouwd.",
        "Waar is de oven van gemaakt? De kast is van staal.",
    ],
    "sv": ["Vem byggde tornet? Det byggdes av Ada.", "Vad är ugnen gjord av? Höljet är inte gjort av stål."],
    "da": ["Hvem byggede tårnet? Det blev bygget af Ada.", "Hvad er ovnen lavet af? Kabinettet er ikke af træ."],
    "no": ["Hvem bygde tårnet? Det ble bygget av Ada.", "Hva er ovnen laget av? Kassen er ikke av tre, men av stål."],
    "pl": [
        "Kto zbudował wieżę? Została zbudowana przez Adę.",
        "Z czego jest piec? Obudowa jest ze stali, a nie z drewna.",
    ],
    "cs": ["Kdo postavil věž? Postavila ji Ada v roce 1871.", "Z čeho je pec? Její skříň je z oceli a ne ze dřeva."],
    "fi": [
        "Kuka rakensi tornin? Sen rakensi Ada vuonna 1871.",
        "Mistä uuni on tehty? Kuori on terästä eikä se ole puuta.",
    ],
    "tr": [
        "Kuleyi kim yaptı? Ada tarafından yapıldı.",
        "Fırın neden yapılmıştır? Gövde çelik için tasarlanmış bir kutudur.",
    ],
    "ro": ["Cine a construit turnul? A fost construit de Ada.", "Din ce este făcut cuptorul? Carcasa este din oțel."],
    "hu": ["Ki építette a tornyot? Az Ada volt, és nem más.", "Miből van a kemence? A ház acélból van, nem fából."],
    "id": ["Siapa yang membangun menara? Menara itu dibangun oleh Ada.", "Dari apa tungku ini? Tungku ini dari baja."],
    "ru": [
        "Кто построил башню? Её построила Ада в 1871 году.",
        "Из чего сделана печь? Корпус из стали, а не из дерева.",
    ],
    "uk": ["Хто збудував вежу? Її збудувала Ада в 1871 році.", "З чого зроблена піч? Корпус із сталі, а не з дерева."],
    "bg": ["Кой е построил кулата? Тя е построена от Ада.", "От какво е пещта? Корпусът е от стомана, а не от дърво."],
    "el": ["Ποιος έχτισε τον πύργο; Τον έχτισε η Άντα."],
    "he": ["מי בנה את המגדל? עדה בנתה אותו."],
    "ar": ["من بنى البرج؟ بنته آدا."],
    "fa": ["چه کسی برج را ساخت؟ آدا آن را ساخت."],
    "ur": ["مینار کس نے بنایا؟ اسے آدا نے بنایا ہے۔ یہ بڑا ہے اور چھوٹا نہیں"],
    "hi": ["मीनार किसने बनाई? इसे आदा ने बनाया।"],
    "ja": ["塔は誰が建てましたか。エイダが建てました。"],
    "zh": ["谁建造了这座塔？是艾达建造的。"],
    "ko": ["누가 탑을 지었습니까? 에이다가 지었습니다."],
    "th": ["ใครสร้างหอคอย"],
}


@pytest.mark.parametrize(("language", "text"), [(code, text) for code, texts in TEXTS.items() for text in texts])
def test_a_short_pair_is_enough(language: str, text: str) -> None:
    assert guess_language(text) == language


@pytest.mark.parametrize(
    "text", ["", "42", "steel", "→ 3.5 kg", "Ada Lovelace", "nails | library | August", "{}", "de", "x²"]
)
def test_too_little_is_not_guessed(text: str) -> None:
    assert guess_language(text) == "unknown"


def test_names_of_another_language_do_not_matter() -> None:
    assert guess_language("Who wrote “Die Leiden des jungen Werthers”? It was written by Goethe in 1774.") == "en"
    assert guess_language("Was heißt „Hello“ auf Japanisch? Es heißt こんにちは und ist ein Gruß.") == "de"


@given(st.text(max_size=200))
def test_any_text_has_an_answer(text: str) -> None:
    assert guess_language(text) in {*TEXTS, "bn", "ta", "te", "ka", "hy", "unknown"}
