"""The errors raised on purpose. Each says what is wrong, the value, what is accepted, and the way out."""


class PluralignError(Exception):
    """Base of every error raised on purpose; the command line prints these without a traceback.

    `hint`, where it is given, is the way out, on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DataError(PluralignError, ValueError):
    """A row, a column or a file is not what it should be."""


class ConfigError(PluralignError, ValueError):
    """A setting has a value that is not accepted."""


class NoComparisonsError(PluralignError, ValueError):
    """Users without a single comparison where one is needed; `users` lists them."""

    def __init__(self, users: list[int]) -> None:
        shown = ", ".join(map(str, users[:10])) + (", ..." if len(users) > 10 else "")
        super().__init__(f"users [{shown}] have no comparisons; drop them, or place them with `adapt`")
        self.users = users


class NotFittedError(PluralignError, RuntimeError):
    """A result was asked of something that has not been fitted, or of a user it does not know."""


class CacheError(PluralignError, RuntimeError):
    """A cache or a saved model on disk cannot be used."""
