"""The native inference engine of espnetv2.

A `Model` is a file of `espnetv2 export --to native`; `model.open(...)` gives a `Context`, which
runs it at one size. NumPy arrays go in and come out.
"""

from espnetv2_native._native import Context, Model, instruction_set, peak, version

__all__ = ["Context", "Model", "instruction_set", "peak", "version"]
