"""A phone's side of sessioncap.

``preview`` reads a link, ``Preview.accept`` or ``reopen`` makes a ``Connection``, and ``Phone`` runs it on an asyncio
loop over a WebSocket and a keychain of the caller's. The library starts no thread and opens no socket.
"""

from . import generated as _generated
from .generated import (
    Connection,
    ConnectionState,
    Event,
    Failed,
    Failure,
    PairingInfo,
    Pairings,
    Preview,
    key_names,
    new_pairings,
    preview,
    reopen,
)
from .phone import Closed, Keychain, PermissionDenied, Phone, WebSocket

# The generator leaves this call out: a library of another signature would be called wrongly.
_generated._uniffi_check_api_checksums(_generated._UniffiLib)

__all__ = [
    "Closed",
    "Connection",
    "ConnectionState",
    "Event",
    "Failed",
    "Failure",
    "Keychain",
    "PairingInfo",
    "Pairings",
    "PermissionDenied",
    "Phone",
    "Preview",
    "WebSocket",
    "key_names",
    "new_pairings",
    "preview",
    "reopen",
]
