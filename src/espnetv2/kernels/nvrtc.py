"""Compiles CUDA kernels for the GPU at hand, by the compiler that torch brings, and launches them.

For what Triton cannot say: products of a warp whose operands lie in shared memory where the kernel
puts them. Only NVIDIA's compiler and driver are asked, through their C interfaces, and no header.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from espnetv2.cache import cache_folder

_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_PRIMITIVES = Path(__file__).with_name("warp.cuh")


@cache
def ready(device: torch.device) -> bool:
    """Whether kernels for warps compile and run on this device."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    major, minor = torch.cuda.get_device_capability(device)
    try:
        _driver()
        return major >= 8 and 10 * major + minor in _known()
    except OSError:  # not where the loader looks
        return False


@cache
def source(*files: Path, **defined: int | str) -> str:
    """A kernel's text: what it wants defined, the primitives, and its files."""
    lines = [f"#define {name} {value}" for name, value in defined.items()]
    return "\n".join([*lines, *(file.read_text("utf-8") for file in (_PRIMITIVES, *files))])


@cache
def cubin(text: str, capability: tuple[int, int]) -> bytes:
    """Compile for a GPU, which need not be there; the cache folder keeps it for the next process.

    Raises:
        RuntimeError: The compiler finds fault; with what it said.
    """
    options = ["--gpu-architecture=sm_{}{}".format(*capability), "--std=c++17"]
    key = hashlib.sha256("\n".join([_version(), *options, text]).encode()).hexdigest()
    name, none = f"{key[:32]}.cubin", (OSError, RuntimeError)  # no home, no room, no leave
    with suppress(*none):
        return (cache_folder() / "kernels" / name).read_bytes()
    made = _compiled(text, options)
    with suppress(*none):  # where nothing can be kept it is compiled again
        folder = cache_folder() / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as scratch:
            (Path(scratch) / name).write_bytes(made)
            (Path(scratch) / name).replace(folder / name)
    return made


def _compiled(text: str, options: list[str]) -> bytes:
    nvrtc, program = _compiler(), ctypes.c_void_p()
    given = (ctypes.c_char_p * len(options))(*map(str.encode, options))
    made = nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"", 0, None, None)
    _fine("nvrtcCreateProgram", made)
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), given):
            said = _bytes(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            raise RuntimeError(f"NVRTC: {said.rstrip(bytes(1)).decode()}")
        return _bytes(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _known() -> list[int]:
    """Compute capabilities that the compiler makes code for, such as 90."""
    count = ctypes.c_int()
    counted = _compiler().nvrtcGetNumSupportedArchs(ctypes.byref(count))
    _fine("nvrtcGetNumSupportedArchs", counted)
    known = (ctypes.c_int * count.value)()
    _fine("nvrtcGetSupportedArchs", _compiler().nvrtcGetSupportedArchs(known))
    return list(known)


def _version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _fine("nvrtcVersion", _compiler().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def launch(
    text: str,
    name: str,
    arguments: Sequence[Tensor | int],
    *,
    blocks: int,
    threads: int,
    shared: int,
) -> None:
    """Launch a kernel on the current stream of its first argument's device, which is current.

    Args:
        text: As `source` gives it; compiled once for a device.
        arguments: In the kernel's order; tensors as pointers, numbers as `int`.
        shared: Bytes of shared memory of a block.
    """
    first = arguments[0]
    assert isinstance(first, Tensor)
    _enter(first.device)
    function = _function(text, name, first.device, shared)
    held = [_argument(one) for one in arguments]
    places = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
    stream = torch.cuda.current_stream(first.device).cuda_stream if first.is_cuda else None
    _fine(
        "cuLaunchKernel",
        _driver().cuLaunchKernel(
            *(function, blocks, 1, 1, threads, 1, 1, shared),
            *(ctypes.c_void_p(stream), places, None),
        ),
    )


def _enter(device: torch.device) -> None:
    """Give a thread the device's context, which torch does when it first works there itself.

    A thread of autograd may begin with a gradient of ours.
    """
    driver, context = _driver(), ctypes.c_void_p()
    _fine("cuCtxGetCurrent", driver.cuCtxGetCurrent(ctypes.byref(context)))
    if not context:
        index = device.index or 0
        kept = driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), index)
        _fine("cuDevicePrimaryCtxRetain", kept)
        _fine("cuCtxSetCurrent", driver.cuCtxSetCurrent(context))


def _argument(one: Tensor | int) -> Any:
    return ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else ctypes.c_int(one)


@cache
def _function(text: str, name: str, device: torch.device, shared: int) -> ctypes.c_void_p:
    driver, module, function = _driver(), ctypes.c_void_p(), ctypes.c_void_p()
    image = _image(text, device)
    _fine("cuModuleLoadData", driver.cuModuleLoadData(ctypes.byref(module), image))
    found = driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
    _fine("cuModuleGetFunction", found)
    _fine("cuFuncSetAttribute", driver.cuFuncSetAttribute(function, _SHARED_BYTES, shared))
    return function


def _image(text: str, device: torch.device) -> bytes:
    return cubin(text, torch.cuda.get_device_capability(device))


def _bytes(size_of: Any, contents_of: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _fine(size_of.__name__, size_of(program, ctypes.byref(size)))
    contents = ctypes.create_string_buffer(size.value)
    _fine(contents_of.__name__, contents_of(program, contents))
    return contents.raw


def _fine(call: str, result: int) -> None:
    if result:
        raise RuntimeError(f"{call} failed with {result}")


@cache
def _compiler() -> ctypes.CDLL:
    version = str(torch.version.cuda).partition(".")[0]
    return ctypes.CDLL(f"libnvrtc.so.{version}")  # torch has loaded it


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")
