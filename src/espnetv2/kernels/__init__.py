"""Fused operators for GPUs: a folder each, with `reference.py` (the truth) and `triton.py`.

Importing any of it imports no Triton and touches no GPU; see docs/kernels.md.
"""
