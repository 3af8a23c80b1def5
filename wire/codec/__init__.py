"""The delta codec: what a device learned, in as few bytes as its error allows.

An encoded delta is the federated parameters' tensors one after the other, in manifest order,
without names or shapes: the manifest has those. The modules, from the bits up:

- ``stream``: bits; ``golomb``: numbers; ``index_set``: sets; ``drawn``: places drawn from a seed;
- ``levels``, ``forms``: what a block of rows can be on the wire;
- ``quantise``, ``low_rank``, ``fixed``, ``auto``, ``choice``: how a sender picks a form;
- ``tensor``, ``delta``: the whole.
"""

from wire.codec.delta import (
    MAX_DECODED_VALUES,
    decode_delta,
    encode_and_decode,
    encode_delta,
    encode_multiples,
)

__all__ = [
    "MAX_DECODED_VALUES",
    "decode_delta",
    "encode_and_decode",
    "encode_delta",
    "encode_multiples",
]
