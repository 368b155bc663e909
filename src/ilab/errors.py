"""The tree of errors.

    IlabError                 message, hint, where
    ├── InputError      2     your file, flag or taxonomy is wrong
    ├── SetupError      3     this machine lacks something: package, disk, port, permission
    ├── ServiceError    4     somebody else's server failed (``retryable`` says whether to try again)
    ├── GateError       5     the model is not good enough, or nobody can know yet
    └── Stopped         6     stopped on purpose; the work is saved and the same command goes on

They are sorted by *who has to act*. Foreign exceptions are wrapped once, in the adapter that calls the foreign
library. Nobody but ``cli/app.py`` catches ``IlabError``; anything else that reaches it is a bug of ours: traceback,
exit 1.
"""

from __future__ import annotations


class IlabError(Exception):
    """An error a person can act on.

    ``message`` says what is wrong, ``where`` the file and line (``qna.yaml:12``) or the address, ``hint`` what to
    do or type next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  {self.hint}" if self.hint else head


class InputError(IlabError):
    """A file, flag or taxonomy of the user's is wrong."""

    exit_code = 2


class InputErrors(InputError):
    """Several ``InputError`` found in one pass, so that an author mends them in one go."""

    def __init__(self, errors: list[InputError]) -> None:
        files = {error.where.split(":")[0] for error in errors if error.where}
        count = f"{len(errors)} errors" if len(errors) != 1 else "1 error"
        places = f"{len(files)} files" if len(files) != 1 else "1 file"
        super().__init__(f"{count} in {places}" if files else count)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join([*(str(error) for error in self.errors), self.message])


class SetupError(IlabError):
    """The machine lacks something: a package, disk space, a free port, a permission."""

    exit_code = 3


class ServiceError(IlabError):
    """A server that is not ours failed or gave unusable answers."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str = "", where: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint=hint, where=where)
        self.retryable = retryable


class GateError(IlabError):
    """The evaluated model may not be published."""

    exit_code = 5


class Stopped(IlabError):
    """Stopped on purpose (budget, cancel). Work is saved; running the same command again goes on."""

    exit_code = 6
