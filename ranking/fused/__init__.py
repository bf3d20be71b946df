"""The user tower and the ranker as one compiled function each, for the CPU.

Torch computes either as some forty small operations; for one shopper each costs more to start than to compute, and
their code does not stay in the core's cache from one request to the next (docs/decisions/0007).
"""
