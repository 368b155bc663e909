"""A conversation with a model, without the terminal.

    question ──▶ ChatSession ──▶ fitting (tokens) ──▶ Talker: a model in this process, or a server
                    │  ▲                                   │
       /commands ───┘  └── retrieve (passages, if any)     └──▶ the answer, piece by piece

Reading lines and drawing boxes is ``ilab.cli``'s. What a model says is untrusted: whoever shows it puts it through
:func:`ilab.chat.untrusted.neutral` first.
"""
