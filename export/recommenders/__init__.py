"""The recommenders that ship with the project; each module is one model and its paper."""
