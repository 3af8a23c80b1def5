"""Scenarios side by side: every run kept, summed up over seeds, and shown in one report."""
