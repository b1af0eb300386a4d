"""Compiles the kernels for a GPU that need not be there; prints what they take of it as JSON.

In a process of its own, in which Triton does not interpret.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget

from espnetv2.kernels import nvrtc
from espnetv2.kernels.depthwise_pyramid import triton as kernels
from espnetv2.kernels.depthwise_pyramid import walk
from espnetv2.kernels.grouped_pointwise import triton as pointwise
from espnetv2.kernels.norm_act import triton as norms

MAPS, WIDE = "*bf16", "*fp32"
POINTERS = {
    **dict.fromkeys(("x_ptr", "y_ptr", "z_ptr", "r_ptr", "g_ptr", "dx_ptr", "dr_ptr"), MAPS),
    **dict.fromkeys(("w_ptr", "factors_ptr", "mean_ptr", "square_ptr", "count_ptr"), WIDE),
    **dict.fromkeys(("var_ptr", "weight_ptr", "bias_ptr", "slope_ptr", "sums_ptr"), WIDE),
    **dict.fromkeys(("partial_ptr", "means_ptr", "squares_ptr"), WIDE),
}
EVEN = ("C", "image_step", "p_step", "x_i", "y_i", "g_i")  # multiples of 16
ONES = ("x_c", "y_c", "g_c", "c_step")  # channels last
DILATIONS = (1, 2, 3, 4)
THREADS = 128


def build(kernel, constants, capability, *, short=(), **options):
    usual = {**dict.fromkeys(ONES, 1), "K": 4, "DILATIONS": DILATIONS, "ACC": tl.float32}
    usual |= {"x_p": 64, "y_p": 256, "g_p": 256, "PRECISION": "tf32"}
    taken = {name: value for name, value in usual.items() if name in kernel.arg_names}
    constants = {**taken, **constants}
    signature, even = {}, {}
    for place, name in enumerate(kernel.arg_names):
        kind = MAPS if name in short else POINTERS.get(name, "i32")
        signature[name] = "constexpr" if name in constants else kind
        if name in POINTERS or name in EVEN:
            even[(place,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(
        kernel, signature=signature, constexprs=constants, attrs=even
    )
    options = {"num_warps": 4, "enable_fp_fusion": True, **options}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def report(made, values):
    """Of what Triton made; see `told_of`."""
    single = re.search(r"ld\.global\.[bu]16", made.asm["ptx"]) is not None
    return told_of(made.asm["cubin"], made.metadata.shared, single, values)


def told_of(cubin, shared, single, values):
    """Registers of a thread, bytes of its stack, where ptxas puts what does not fit, bytes that a
    program shares, and whether halves are loaded one by one; of a loop's `values` the instructions
    for one."""
    told = disassembled(cubin, "-res-usage")
    taken = [int(re.search(rf"{name}:(\d+)", told)[1]) for name in ("REG", "STACK")]
    loop = longest_loop(disassembled(cubin, "-sass"))
    return [*taken, shared, single, round(loop / values, 1)]


def walks(capability):
    """The same of the kernels for warps, each of whose threads has four values of a row of y."""
    found, seen = {}, []
    walk.launch = lambda text, name, *_, shared, **__: seen.append((text, shared))
    for dtype, dilations in ((torch.bfloat16, DILATIONS), (torch.float16, (1, 1, 2, 3))):
        x, small, grad = (
            torch.empty(2, c, side, side, dtype=dtype).to(memory_format=torch.channels_last)
            for c, side in ((64, 28), (64, 14), (256, 14))
        )
        weight = torch.empty(4, 64, 3, 3)
        walk.forward(x, weight, dilations)
        walk._forward(x, weight, dilations, moments=True)
        walk.backward(grad, small, weight, dilations, 1)
        walk.backward(grad, x, weight, dilations, 2)
        steps = 2 * max(dilations) + 1, max(dilations) + 1  # of a loop's body
        names = "forward", "moments", "backward, stride 1", "backward, stride 2"
        for name, (text, shared) in zip(names, seen, strict=True):
            cubin = nvrtc.cubin(text, divmod(capability, 10))
            kind = str(dtype).removeprefix("torch.")
            values = 4 * steps[name.endswith("2")]
            found[f"walk {name}, {kind}"] = told_of(cubin, shared, False, values)
        seen.clear()
    return found


def disassembled(cubin, how):
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, how, file.name], capture_output=True, text=True, check=True)
    return done.stdout


def longest_loop(sass):
    """Instructions from the target of a branch back to it, of loops without another inside."""
    places = re.findall(r"/\*([0-9a-f]{4,})\*/ +([^;]+);", sass)
    back = [
        (int(target[1], 16), int(place, 16))
        for place, text in places
        if (target := re.search(r"BRA.* 0x([0-9a-f]+)", text))
        and int(target[1], 16) < int(place, 16)
    ]
    inner = [
        (begin, end) for begin, end in back if not any(begin <= b and e < end for b, e in back)
    ]
    return max(((end - begin) // 16 + 1 for begin, end in inner), default=0)


def main():
    found, capability = {}, int(sys.argv[1])
    for stride in (1, 2):
        tile = {"STRIP": 7, "BLOCK_C": 32, "WHOLE": True}
        plain, small = {"ACT": False, "MOMENTS": False, "BLOCK_S": 16}, {"BLOCK_S": 8}
        for name, kernel, constants in (
            ("forward", kernels.forward_kernel, plain),
            ("act", kernels.forward_kernel, {**plain, "ACT": True}),
            ("moments", kernels.forward_kernel, {**plain, "MOMENTS": True}),
            ("grad_x", kernels.grad_x_kernel, {**small, "STRIP": 6 + stride}),
            ("grad_weight", kernels.grad_weight_kernel, small),
        ):
            constants = {**tile, **constants}
            made = build(kernel, {**constants, "STRIDE": stride}, capability)
            columns = constants["STRIP"] * (stride if name == "grad_x" else 1)
            values = columns * constants["BLOCK_S"] * constants["BLOCK_C"] / THREADS
            found[f"{name}, stride {stride}"] = report(made, values)
    tile = {"BLOCK_P": 32, "BLOCK_C": 64}
    both = {"EPS": 1e-5, "RESIDUAL": True, "ACT": True}
    for name, kernel, constants in (
        ("norm moments", norms.moments_kernel, tile),
        ("norm join", norms.join_kernel, {"BLOCK_S": 1024, "BLOCK_C": 4}),
        ("norm forward", norms.forward_kernel, {**both, **tile}),
        ("norm sums", norms.sums_kernel, {**both, **tile}),
        ("norm grad", norms.grad_kernel, {"EPS": 1e-5, "ACT": True, **tile}),
    ):
        made = build(kernel, constants, capability)
        values = constants.get("BLOCK_P", constants.get("BLOCK_S", 1)) * constants["BLOCK_C"]
        found[name] = report(made, values / THREADS)
    for ks, ns in ((64, 16), (128, 128), (256, 256)):
        block_k, block_n = min(ks, 128), min(ns, 128)
        usual = {"GROUPS": 4, "KS": ks, "NS": ns, "BLOCK_K": block_k, "BLOCK_N": block_n}
        usual |= {"x_p": 4 * ks, "y_p": 4 * ns, "g_p": 4 * ns, "BLOCK_P": 8192 // block_k}
        usual |= {"w_n": ks, "w_k": 1, "ACT": False, "RESIDUAL": False, "MOMENTS": False}
        for name, kernel, constants in (
            ("forward", pointwise.forward_kernel, {"MOMENTS": True}),
            ("act", pointwise.forward_kernel, {"ACT": True, "RESIDUAL": True}),
            ("grad_weight", pointwise.grad_weight_kernel, {"BLOCK_P": 64}),
        ):
            taken = {key: one for key, one in usual.items() if key in kernel.arg_names}
            loops = ks > block_k and name != "grad_weight"
            options = {"num_warps": 8 if block_n > 32 else 4, "num_stages": 2 if loops else 3}
            constants = {**taken, **constants}
            made = build(kernel, constants, capability, short=("w_ptr",), **options)
            values = constants["BLOCK_P"] * block_n / (32 * options["num_warps"])
            found[f"pointwise {name}, {ks} to {ns}"] = report(made, values)
    found |= walks(capability)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
