"""Says which token ends a text of a checkpoint's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data.pack.vocabulary import END_TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def end_token(metadata: Mapping[str, Any], tokenizer: Tokenizer) -> int | None:
    """Return the id that ended the documents the model was trained on; None where none is known.

    That is what its data said, where all phases agree, or the first of the usual end tokens that the tokenizer has.
    """
    data = metadata.get("data")
    ends = data.get("ends") if isinstance(data, dict) else None
    recorded = [*ends.values()] if isinstance(ends, dict) else []
    end = recorded[0] if recorded and all(other == recorded[0] for other in recorded) else None
    if type(end) is int and 0 <= end < 1 << 32 and tokenizer.id_to_token(end) is not None:
        return end
    known = (tokenizer.token_to_id(token) for token in END_TOKENS)
    return next((id for id in known if id is not None), None)
