"""Engines that run a program on the device, behind one small protocol."""

from edge_agent.runtimes.protocol import Array, Program, ProgramFile, Runtime
from edge_agent.runtimes.registry import open_runtime

__all__ = ["Array", "Program", "ProgramFile", "Runtime", "open_runtime"]
