"""Compiles the kernels for a GPU that need not be there; prints what they take of it as JSON.

In a process of its own, in which Triton does not interpret.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget

from espnetv2.kernels.depthwise_pyramid import launch
from espnetv2.kernels.depthwise_pyramid import triton as kernels
from espnetv2.kernels.norm_act import triton as norms

MAPS, WIDE = "*bf16", "*fp32"
POINTERS = {
    **dict.fromkeys(("x_ptr", "y_ptr", "z_ptr", "r_ptr", "g_ptr", "dx_ptr", "dr_ptr"), MAPS),
    **dict.fromkeys(("w_ptr", "factors_ptr", "mean_ptr", "square_ptr", "count_ptr"), WIDE),
    **dict.fromkeys(("var_ptr", "weight_ptr", "bias_ptr", "slope_ptr", "sums_ptr"), WIDE),
    **dict.fromkeys(("partial_ptr", "means_ptr", "squares_ptr"), WIDE),
}
EVEN = ("C", "x_p", "y_p", "g_p", "pixels", "image_step", "p_step")  # multiples of 16
ONES = ("x_c", "y_c", "g_c", "c_step")  # channels last
DILATIONS = (1, 2, 3, 4)


def build(kernel, constants, capability):
    usual = {**dict.fromkeys(ONES, 1), "K": 4, "DILATIONS": DILATIONS}
    usual |= {"ACC": tl.float32, "INDEX": tl.int32}
    taken = {name: value for name, value in usual.items() if name in kernel.arg_names}
    constants = {**taken, **constants}
    signature, even = {}, {}
    for place, name in enumerate(kernel.arg_names):
        signature[name] = "constexpr" if name in constants else POINTERS.get(name, "i32")
        if name in POINTERS or name in EVEN:
            even[(place,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(
        kernel, signature=signature, constexprs=constants, attrs=even
    )
    options = {"num_warps": 4, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def usage(cubin):
    """Registers of a thread, and bytes of the stack, where ptxas puts what does not fit."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return [int(re.search(rf"{name}:(\d+)", told)[1]) for name in ("REG", "STACK")]


def main():
    tile = {"BLOCK_W": 32, "BLOCK_C": 32}
    plain, both = {"ACT": False, "MOMENTS": False}, {"BLOCK_H": 2, **tile}
    found = {}
    for stride in (1, 2):
        for name, kernel, constants in (
            ("forward", kernels.forward_kernel, {**both, **plain}),
            ("act", kernels.forward_kernel, {**both, **plain, "ACT": True}),
            ("moments", kernels.forward_kernel, {**both, **plain, "MOMENTS": True, "BLOCK_H": 1}),
            ("grad_x", kernels.grad_x_kernel, {**tile, "FIRST": launch.nearest(list(DILATIONS))}),
            ("grad_weight", kernels.grad_weight_kernel, {"BLOCK_H": 1, **tile}),
        ):
            made = build(kernel, {**constants, "STRIDE": stride}, int(sys.argv[1]))
            vector = "ld.global.v4" in made.asm["ptx"]
            found[f"{name}, stride {stride}"] = [*usage(made.asm["cubin"]), vector]
    tile = {"BLOCK_P": 32, "BLOCK_C": 64}
    both = {"EPS": 1e-5, "RESIDUAL": True, "ACT": True}
    for name, kernel, constants in (
        ("norm moments", norms.moments_kernel, tile),
        ("norm join", norms.join_kernel, {"BLOCK_S": 1024, "BLOCK_C": 4}),
        ("norm forward", norms.forward_kernel, {**both, **tile}),
        ("norm sums", norms.sums_kernel, {**both, **tile}),
        ("norm grad", norms.grad_kernel, {"EPS": 1e-5, "ACT": True, **tile}),
    ):
        made = build(kernel, constants, int(sys.argv[1]))
        vector = "ld.global.v4" in made.asm["ptx"]
        found[name] = [*usage(made.asm["cubin"]), vector]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
