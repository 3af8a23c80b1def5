"""What crosses the network: manifest, messages, topics and the delta codec.

Every other part speaks through this package. It needs numpy and cbor2 and nothing else, so that
it fits on a device.
"""
