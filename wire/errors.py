"""Errors of the wire. What arrives is untrusted, so each kind of refusal has its own type."""

__all__ = [
    "BundleError",
    "CodecError",
    "ManifestError",
    "MessageError",
    "NotFiniteError",
    "PolicyError",
    "WireError",
]


class WireError(ValueError):
    """Something that crossed the network, or is about to, is not what the format allows."""


class ManifestError(WireError):
    """A manifest is refused; the message names the field, the value and what was expected."""


class PolicyError(WireError):
    """A training or codec policy is refused; the message names the key, the value and the range."""


class BundleError(WireError):
    """A bundle on disk is incomplete or was changed after it was written."""


class MessageError(WireError):
    """An MQTT body is not a message of this format version."""


class CodecError(WireError):
    """An encoded delta does not fit the manifest, or is not well formed."""


class NotFiniteError(CodecError):
    """An encoded delta decodes to NaN or infinity."""
