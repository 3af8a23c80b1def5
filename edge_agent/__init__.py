"""The agent that runs on a device: it trains on what happened there and sends what it learned."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
"""The distribution's version; asking its metadata would cost a device a megabyte."""
