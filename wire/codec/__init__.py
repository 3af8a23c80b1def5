"""The delta codec: what a device learned, in as few bytes as its error allows.

An encoded delta is the federated parameters' tensors one after the other, in manifest order,
without names or shapes: the manifest has those. Each tensor begins with a byte that names its form.
"""

from wire.codec.delta import decode_delta, encode_delta

__all__ = ["decode_delta", "encode_delta"]
