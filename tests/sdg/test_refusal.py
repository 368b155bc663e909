"""Answers that say nothing are found, and good ones that look like them are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ilab.data import Leaf, Message, Origin, Sample
from ilab.sdg.made import Made
from ilab.sdg.refusal import REFUSAL, drop_refusals, find_fault
from ilab.sdg.sieve import Limits, sieve

ASKED = "How long does the kiln take to cool down?"

SAYS_NOTHING = [
    (ASKED, "I'm sorry, but I cannot answer that question.", "refusal"),
    (ASKED, "I’m sorry, but I can’t assist with that request.", "refusal"),
    (ASKED, "I cannot provide information on this topic.", "refusal"),
    (ASKED, "I am unable to provide a specific answer.", "refusal"),
    (ASKED, "Unfortunately, I can't help with that.", "refusal"),
    (ASKED, "Sorry, I can't help you with that.", "refusal"),
    (ASKED, "I apologize, but I cannot fulfill this request.", "refusal"),
    (ASKED, "I apologize for the confusion, but I am not able to generate that content.", "refusal"),
    (ASKED, "I must decline to answer this question.", "refusal"),
    (ASKED, "I won't be able to help.", "refusal"),
    (ASKED, "I do not have access to the document.", "refusal"),
    (ASKED, "I don't have enough information to answer this.", "refusal"),
    (ASKED, "I don't have any information about the kiln.", "refusal"),
    (ASKED, "I do not know.", "refusal"),
    (ASKED, "I don't know the answer to this question.", "refusal"),
    (ASKED, "I'm not sure.", "refusal"),
    (ASKED, "Sorry, I don't know that.", "refusal"),
    (ASKED, "I was not given any document.", "refusal"),
    (ASKED, "This request violates my content policy.", "refusal"),
    (ASKED, "It would be inappropriate for me to say.", "refusal"),
    ("Write a poem about the sea.", "I'm sorry, I can't write that content.", "refusal"),
    ("Wie lange kühlt der Ofen ab?", "Es tut mir leid, aber ich kann diese Frage nicht beantworten.", "refusal"),
    ("Combien de temps ?", "Je suis désolé, mais je ne peux pas répondre à cette question.", "refusal"),
    ("¿Cuánto tarda?", "Lo siento, pero no puedo ayudar con eso.", "refusal"),
    (ASKED, "As an AI language model, I cannot know how long it takes.", "speaks as a model"),
    (ASKED, "As an AI, I don't have personal experience of kilns.", "speaks as a model"),
    (ASKED, "As a large language model, I can tell you that it takes an hour.", "speaks as a model"),
    (ASKED, "It depends. I am just an AI and have never used one.", "speaks as a model"),
    (ASKED, "I'm an AI language model trained to help.", "speaks as a model"),
    (ASKED, "According to my training data, it takes two hours.", "speaks as a model"),
    (ASKED, "It took two hours as of my last update.", "speaks as a model"),
    ("Wie lange?", "Als KI-Sprachmodell habe ich keine Erfahrung damit.", "speaks as a model"),
    ("Combien de temps ?", "En tant que modèle de langage, je ne sais pas.", "speaks as a model"),
    (ASKED, "The document does not mention how long it takes.", "not in the text"),
    (ASKED, "The provided passage doesn't specify the cooling time.", "not in the text"),
    (ASKED, "The text does not contain any information about cooling.", "not in the text"),
    (ASKED, "The passage does not explicitly state the time.", "not in the text"),
    (ASKED, "The cooling time is not mentioned in the document.", "not in the text"),
    (ASKED, "This is not explicitly stated in the given text.", "not in the text"),
    (ASKED, "There is no information about that in the provided context.", "not in the text"),
    (ASKED, "This cannot be determined from the given passage.", "not in the text"),
    (ASKED, "Not specified in the document.", "not in the text"),
    ("According to the passage, who built it?", "The passage does not say who built it.", "not in the text"),
    ("¿Quién?", "El documento no menciona quién lo construyó.", "not in the text"),
    (ASKED, "It takes {answer} hours.", "unfilled template"),
    (ASKED, "{{ answer }}", "unfilled template"),
    ("What is known about {topic}?", "It is a kiln.", "unfilled template"),
    ("What is [Insert topic here] made of?", "Steel.", "unfilled template"),
    (ASKED, "It takes [insert number] hours.", "unfilled template"),
    (ASKED, "<insert answer here>", "unfilled template"),
    ("{{question}}", "It takes two hours.", "unfilled template"),
    (ASKED, ASKED, "repeats the question"),
    (ASKED, "how long does the KILN take to cool down", "repeats the question"),
    (ASKED, "Question: " + ASKED, "repeats the question"),
    (ASKED, "[ANSWER] [/ANSWER]", "only tags"),
    (ASKED, "<answer></answer>", "only tags"),
    (ASKED, "<|im_end|>", "only tags"),
    (ASKED, "</s>", "only tags"),
    (ASKED, "[END]", "only tags"),
    (ASKED, "  ", "only tags"),
]
SAYS_SOMETHING = [
    (ASKED, "It takes two hours to cool down."),
    (ASKED, "Two hours."),
    # about refusals
    ("Which phrase does the assistant use to refuse?", "I'm sorry, but I can't help with that."),
    ("How does a support agent decline a refund?", "I'm sorry, but I cannot provide that refund information by phone."),
    ("What does the robot say when it is asked for a joke?", "I cannot provide jokes of that content."),
    ("Translate to English: Je ne peux pas répondre à cette question.", "I cannot answer this question."),
    ("Translate 'No lo sé' into English.", "I don't know."),
    ("Rewrite politely: No way, I won't do that.", "I'm sorry, but I can't help with that request."),
    ("Write a short note turning down an invitation.", "I'm sorry, but I can't give an answer before Friday."),
    ("How would you say no to a salesman?", "I'm sorry, I can't help you."),
    ("Correct the sentence: i cant answer this questions", "I can't answer these questions."),
    ("Quote the error that the terminal shows.", "I cannot access that file."),
    ("What is a typical disclaimer of a chatbot?", "As an AI language model, I cannot give legal advice."),
    ("Which phrase shows that a text was made by an AI?", "As an AI language model, I ..."),
    ("What are you?", "I am an AI assistant made for the museum."),
    ("Are you a person?", "No, I'm an AI."),
    ("Do you have feelings?", "As an AI, I don't have feelings."),
    ("What did he reply?", "“I cannot answer that question,” said the keeper."),
    ("How does the story end?", "'I cannot help you with that,' she said, and left."),
    ("What is shown when no model is found?", "The message “I cannot find the file” is shown."),
    # the first person
    ("Complete the song: Wise men say only fools rush in", "I can't help falling in love with you."),
    ("Write the line of a tired hero.", "I cannot go on, but I will."),
    ("Give an example of the present perfect.", "I have not seen the film."),
    ("What does the keeper tell the crew?", "I cannot see the lamp from here."),
    ("Write a line of a diary.", "I cannot believe that the summer is over."),
    ("What is the motto?", "I cannot be bought."),
    ("What is her excuse?", "I don't know the way."),
    ("What is the hero's fear?", "I can't breathe under water."),
    ("Describe your ideal holiday as a sailor.", "I can't think of anything better than an open sea."),
    ("Say where you are as a scout.", "I am not sure of the place, but it is north of the river."),
    # documents that lack something
    ("Does the passage mention a price?", "No, the passage does not mention a price."),
    ("Is the author's age stated in the article?", "It is not stated in the article."),
    ("What does the text not mention?", "The text does not mention the costs."),
    ("Which facts are missing?", "The document does not specify who pays."),
    ("Tell whether the context gives a date.", "The context does not mention any date."),
    ("Why was the application sent back?", "The document did not have a signature."),
    ("Why is the treaty disputed?", "The treaty does not mention the northern border."),
    ("What is left open by the contract?", "The contract does not specify a deadline."),
    ("What is odd about the map?", "The map does not show the mill."),
    ("What is the weakness of the theory?", "The theory does not say why the stars move."),
    ("Which rule applies to articles?", "An article does not contain advertising."),
    ("What must a material not be?", "The material must not be wet."),
    ("Why did the reader stop?", "The text did not interest him."),
    ("Why is it hard to date the text?", "No name is given in the first line."),
    # AI as a matter of fact
    ("What is ChatGPT?", "ChatGPT is an AI language model by OpenAI."),
    ("How is it sold?", "It is sold as an AI tool for accountants."),
    ("What did the firm do?", "It presented itself as an AI company."),
    ("Speak as the speaker.", "As an AI researcher, I cannot see the future of content."),
    ("Who is it?", "I am an AI engineer at the port."),
    ("Which skills grew?", "My programming grew with every game."),
    ("Who writes the captions?", "A language model writes them."),
    ("What is the update about?", "The last update mended the clock."),
    ("What are training data?", "Training data are what a model learns from."),
    # templates
    ("Which placeholder of the prompt template holds the question?", "{question}"),
    ("How is a variable printed in Jinja?", "{{ name }}"),
    ("Write a Python function that greets.", "def greet(name):\n    return f'Hello {name}'"),
    ("Write a letter template for a landlord.", "Dear [Insert name], the rent is due."),
    ("How is a set written in mathematics?", "{1, 2, 3}"),
    ("What is the JSON of an empty object?", "{}"),
    ("Which set contains a and b?", "{a, b}"),
    ("How is a citation marked?", "[1]"),
    ("What does the list of keys look like?", "[Enter] and [Shift]"),
    ("How is LaTeX text set in bold?", "\\textbf{text}"),
    # tags and short answers
    ("Which HTML element makes a line break?", "<br>"),
    ("Which token ends a turn, <|im_end|> or [END]?", "<|im_end|>"),
    ("Which HTML element is a text field?", "<input>"),
    ("Which tag closes strike-through text, <s> or </s>?", "</s>"),
    ("Which sign adds?", "+"),
    ("Which button is pressed first?", "[START] and then the red one"),
    ("Is it safe?", "No."),
    ("What is the value?", "Unknown"),
    ("Which city is the capital?", "Paris"),
    # repeats in part
    ("Sort: b a c", "a b c"),
    ("Who said 'know thyself'?", "Thales said 'know thyself'."),
    ("Write in capitals: hello world", "HELLO WORLD"),
]


def made(question: str, answer: str, teacher: str | None = "t", train_on: str = "assistant", **fields: object) -> Made:
    origin = Origin(leaf="k", leaf_digest="0", flow="f", block="b", teacher=teacher)
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    sample = Sample(id=f"k#{question}", leaf="k", messages=messages, train_on=train_on, origin=origin)
    return Made(sample, question, **fields)


def test_there_are_enough_cases() -> None:
    assert len(SAYS_NOTHING) >= 40
    assert len(SAYS_SOMETHING) >= 60
    assert len({case[:2] for case in SAYS_NOTHING} | set(SAYS_SOMETHING)) == len(SAYS_NOTHING) + len(SAYS_SOMETHING)


@pytest.mark.parametrize(("question", "answer", "kind"), SAYS_NOTHING)
def test_what_says_nothing_is_found(question: str, answer: str, kind: str) -> None:
    fault = find_fault(made(question, answer))
    assert fault is not None
    assert fault.partition(":")[0] == kind


@pytest.mark.parametrize(("question", "answer"), SAYS_SOMETHING)
def test_what_says_something_is_left_alone(question: str, answer: str) -> None:
    assert find_fault(made(question, answer)) is None


def test_rows_made_to_have_no_answer_may_say_so_and_nothing_else() -> None:
    said = "The passage does not say."
    assert find_fault(made(ASKED, said)) is not None
    assert find_fault(made(ASKED, said, unanswerable=True)) is None
    assert find_fault(made(ASKED, "I do not know.", unanswerable=True)) is None
    assert find_fault(made(ASKED, "{answer}", unanswerable=True)) is not None


def test_what_the_passage_itself_says_is_no_fault() -> None:
    said = "I'm sorry, but I can't help with that."
    rule = f'An agent without the right to refund says: "{said}" and passes the call on.'
    assert find_fault(made("Which words are laid down?", said)) is not None
    assert find_fault(made("Which words are laid down?", said, source=rule)) is None
    assert find_fault(made("What is it?", "{name} is greeted", context="The text is {name}.")) is None


def test_only_what_a_teacher_wrote_is_looked_at() -> None:
    said = "I cannot answer that question."
    rows = [made(ASKED, said), made("By rule?", said, teacher=None), made("A text", said, train_on="all")]
    kept, dropped = drop_refusals(rows, [])
    assert [one.question for one in kept] == ["By rule?", "A text"]
    assert [(entry.block, entry.reason) for entry in dropped] == [("refusal", f"refusal: {said.lower()}")]


def test_what_a_leaf_teaches_is_no_fault(make_leaf: Callable[..., Leaf]) -> None:
    seeds = [("Mail: the lamp is blue.", "Which price?", "The text does not mention it.")]
    row = made("Which colour?", "The text does not mention it.")
    assert drop_refusals([row], [make_leaf("k", "grounded", seeds)]) == ([row], [])
    assert drop_refusals([row], [make_leaf("k", "grounded")])[0] == []


def test_a_good_sample_does_not_give_way_to_one_that_is_refused(make_leaf: Callable[..., Leaf]) -> None:
    seeds = [("Mail: the lamp is blue.", "Which price?", "The text does not mention it.")]
    refused = made("Which colour?", "The text does not mention it.")
    identity = {"id": "taught#Which colour?", "leaf": "taught"}
    taught = Made(refused.sample.model_copy(update=identity), refused.question)
    sieved = sieve([refused, taught], Limits([make_leaf("k"), make_leaf("taught", "grounded", seeds)], (), 0.8))
    assert sieved.kept == [taught]
    assert [entry.id for entry in sieved.refused[REFUSAL]] == [refused.sample.id]
