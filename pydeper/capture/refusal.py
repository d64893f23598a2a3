"""Why the capture page's server does not do what it was asked."""

import errno

from pydeper.errors import PydeperError

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class RefusalError(PydeperError):
    """A request that is refused; its message says what to do.

    Attributes:
        code: A short, stable key of the reason, which the page may translate.
        status: The HTTP status that says the same.
    """

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def not_written(error: OSError) -> RefusalError:
    """The refusal that explains why a file could not be written."""
    if error.errno in _FULL:
        return RefusalError(
            "no-space",
            507,
            "There is no space left on the disk of the computer that records. Nothing was lost: make space there, and "
            "send it again.",
        )
    return RefusalError("not-written", 500, f"The recording could not be written ({error.strerror}). Send it again.")
