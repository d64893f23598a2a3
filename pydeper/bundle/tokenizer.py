"""A bundle's tokenizer, and tokenizers for texts that people wrote, in which no special token may be found."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydeper.bundle.layout import read_file
from pydeper.errors import BundleError
from pydeper.untrusted import shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MAX_TOKENIZER = 64 * 1024 * 1024  # Qwen2's has 7 MB


def open_tokenizer(path: Path) -> "Tokenizer":
    """Reads a bundle's `tokenizer.json`.

    Its padding and truncation are switched off: pydeper does both itself, and a file could ask for padding without end.

    Raises:
        BundleError: It is missing, too large, or not a tokenizer that the installed `tokenizers` reads.
    """
    from tokenizers import Tokenizer

    data = read_file(path, most=_MAX_TOKENIZER)
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # bare Exceptions, and of another base where the library's own code gives up
        reason = shown(str(error))
        raise BundleError(f"{path}: is not a tokenizer that this version of tokenizers reads: {reason}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # A user's own text never becomes special tokens.
    tokenizer.encode_special_tokens = True
    return tokenizer


def token_id(tokenizer: "Tokenizer", token: str) -> int:
    """The id of a token.

    Raises:
        ValueError: The tokenizer has no such token.
    """
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token}")
    return found


def literal_tokenizer(tokenizer: "Tokenizer") -> "Tokenizer":
    """Returns a tokenizer that never reads special tokens out of a text: itself, or a copy where it does.

    The tokenizer that is given stays as it is. A copy takes half a second where the vocabulary is large, so whoever
    encodes many texts makes it once.
    """
    if tokenizer.encode_special_tokens:
        return tokenizer
    literal = type(tokenizer).from_str(tokenizer.to_str())
    literal.encode_special_tokens = True
    return literal
