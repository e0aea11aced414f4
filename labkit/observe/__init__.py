"""Beside the floors: reading what the kernel holds, and nothing but reading.

Sampling gives plain data; comparing and drawing are done by others from that data.
"""
