"""Beside the floors: pure functions from a sample to SVG and to its plain-text twin.

Nothing here reads the machine: the same data gives the same picture, anywhere.
"""
