# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Kernels in C: each does what the NumPy code beside its caller does, to the last bit, without Python's lock."""
