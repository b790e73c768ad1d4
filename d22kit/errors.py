"""Every error d22kit raises on purpose. One root, few branches; standard library only.

A message says what was wrong, where, what is known to be right, and what to do next. Text that comes
from a row is masked before it enters a message.
"""

from __future__ import annotations

__all__ = [
    "AuthError",
    "ConfigError",
    "D22kitError",
    "EndpointError",
    "ExtractError",
    "InputError",
    "ProtocolError",
    "RetriesExhaustedError",
    "StoreError",
    "StoreFormatError",
    "StoreLockedError",
    "StoreMismatchError",
    "StoreNotFoundError",
    "VersionNotFoundError",
]


class D22kitError(Exception):
    """The root of all errors that d22kit raises."""


class ConfigError(D22kitError):
    """Where the service is, or who we are, is missing or contradictory."""


class InputError(D22kitError, ValueError):
    """An argument is wrong: an unknown column, zone, period or range. Lists what is known."""


class EndpointError(D22kitError):
    """The service could not answer.

    Parameters
    ----------
    message
        What happened, in one paragraph.
    status_code
        The HTTP status, or None where no response came.
    request_id
        The service's `requestId`: its support asks for it.
    retryable
        Whether the same request may succeed later.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.request_id = request_id
        self.retryable = retryable


class AuthError(EndpointError):
    """Login, refresh or permission was refused."""


class RetriesExhaustedError(EndpointError):
    """The service kept failing until the retry budget was spent; what was fetched is kept."""


class ProtocolError(EndpointError):
    """The service broke its own contract: a cursor in a circle, a body past the limit."""


class StoreError(D22kitError):
    """The store on disk, or in object storage, cannot be used as asked."""


class StoreNotFoundError(StoreError):
    """There is no store at that place."""


class StoreLockedError(StoreError):
    """Another process is writing to the store."""


class StoreMismatchError(StoreError):
    """The store belongs to another service or lender."""


class StoreFormatError(StoreError):
    """The store was written by a newer d22kit, or is not one."""


class VersionNotFoundError(StoreError):
    """That version is not in the store, or was vacuumed away."""


class ExtractError(D22kitError):
    """An extract could not be written, opened or verified."""
