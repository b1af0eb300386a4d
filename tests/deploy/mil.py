"""A Core ML program computed by torch, operation by operation, from the saved file.

Apple's runtime is on Apple's machines alone. This reads the package as written, weights and all,
and follows the definitions of MIL's operations, so that what remains untested is that runtime.
"""

import coremltools as ct
import numpy as np
import torch
import torch.nn.functional as F
from coremltools.converters.mil.frontend.milproto import load as milproto


class Program:
    """An .mlpackage."""

    def __init__(self, folder):
        self.model = ct.models.MLModel(str(folder), skip_model_load=True)
        self.spec = self.model.get_spec()
        program = milproto.load(
            self.spec, self.spec.specificationVersion, file_weights_dir=self.model.weights_dir
        )
        self.main = program.functions["main"]

    @property
    def kinds(self):
        return {one.op_type for one in self.main.operations}

    def __call__(self, **inputs):
        """Outputs by name."""
        values = {name: torch.from_numpy(one) for name, one in inputs.items()}

        def value(var):
            if isinstance(var, list | tuple):
                return [value(one) for one in var]
            if var.name not in values:
                found = var.val
                number = isinstance(found, np.ndarray | np.generic) and found.dtype.kind in "fiub"
                values[var.name] = torch.from_numpy(np.array(found)) if number else found
            return values[var.name]

        for one in self.main.operations:
            if one.op_type == "const":
                continue
            given = {name: value(var) for name, var in one.inputs.items() if var is not None}
            results = RULES[one.op_type](**given)
            results = results if isinstance(results, tuple) else (results,)
            for var, result in zip(one.outputs, results, strict=True):
                values[var.name] = result
        return {var.name: value(var) for var in self.main.outputs}


def numbers(x):
    return [int(one) for one in x]


def convolution(x, weight, strides, pad_type, pad, dilations, groups, bias=None):
    kernel = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], numbers(dilations), strict=True)]
    above, below, left, right = {
        "custom": numbers(pad),
        "valid": [0] * 4,
        "same": [(kernel[0] - 1) // 2, kernel[0] // 2, (kernel[1] - 1) // 2, kernel[1] // 2],
    }[str(pad_type)]
    x = F.pad(x, (left, right, above, below))
    rest = {"stride": numbers(strides), "dilation": numbers(dilations), "groups": int(groups)}
    return F.conv2d(x, weight, bias, **rest)


def transposed(x, weight, strides, pad_type, pad, dilations, groups, bias=None, output_shape=None):
    assert str(pad_type) in ("valid", "custom")
    above, below, left, right = numbers(pad)
    out = F.conv_transpose2d(x, weight, bias, stride=numbers(strides), groups=int(groups))
    return out[..., above : out.shape[2] - below, left : out.shape[3] - right]


def average(x, kernel_sizes, strides, pad_type, pad, exclude_padding_from_average, ceil_mode):
    assert not bool(ceil_mode)
    above, below, left, right = numbers(pad) if str(pad_type) == "custom" else [0] * 4
    assert (above, left) == (below, right)
    counted = not bool(exclude_padding_from_average)
    return F.avg_pool2d(
        x, numbers(kernel_sizes), numbers(strides), (above, left), count_include_pad=counted
    )


def largest(x, kernel_sizes, strides, pad_type, pad, ceil_mode):
    assert not bool(ceil_mode)
    above, below, left, right = numbers(pad) if str(pad_type) == "custom" else [0] * 4
    x = F.pad(x, (left, right, above, below), value=-torch.inf)
    return F.max_pool2d(x, numbers(kernel_sizes), numbers(strides))


def enlarged(x, scale_factor_height, scale_factor_width, align_corners, half_pixel_centers=None):
    assert bool(align_corners)
    height = int(np.floor(x.shape[2] * float(scale_factor_height) + 1e-4))
    width = int(np.floor(x.shape[3] * float(scale_factor_width) + 1e-4))
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)


def resized(x, target_size_height, target_size_width, sampling_mode):
    assert str(sampling_mode) in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS")
    size = (int(target_size_height), int(target_size_width))
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def sliced(x, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None):
    places = []
    for axis, (start, stop) in enumerate(zip(numbers(begin), numbers(end), strict=True)):
        start = None if begin_mask is not None and bool(begin_mask[axis]) else start
        stop = None if end_mask is not None and bool(end_mask[axis]) else stop
        step = None if stride is None else int(stride[axis])
        squeezed = squeeze_mask is not None and bool(squeeze_mask[axis])
        places.append(start if squeezed else slice(start, stop, step))
    return x[tuple(places)]


def batch_norm(x, mean, variance, epsilon, gamma=None, beta=None):
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def padded(x, pad, mode, constant_val):
    assert str(mode) == "constant"
    pairs = np.array(numbers(pad)).reshape(-1, 2)[::-1].reshape(-1).tolist()
    return F.pad(x, pairs, value=float(constant_val))


def dequantised(quantized_data, scale, axis, zero_point=None):
    shape = [1] * quantized_data.dim()
    shape[int(axis)] = -1
    scale = scale.view(shape) if scale.dim() else scale
    zero = 0 if zero_point is None else zero_point.view(shape if zero_point.dim() else [])
    return (quantized_data.to(scale.dtype) - zero) * scale


KINDS = {"fp32": torch.float32, "fp16": torch.float16, "int32": torch.int32, "bool": torch.bool}


RULES = {
    "add": lambda x, y: x + y,
    "avg_pool": average,
    "batch_norm": batch_norm,
    "cast": lambda x, dtype: x.to(KINDS[str(dtype)]),
    "classify": lambda probabilities, classes: (str(classes), probabilities),
    "concat": lambda values, axis, interleave: torch.cat(values, int(axis)),
    "constexpr_affine_dequantize": dequantised,
    "conv": convolution,
    "conv_transpose": transposed,
    "expand_dims": lambda x, axes: (
        x[(..., *[None] * len(axes))] if numbers(axes) == [-1] else x.unsqueeze(int(axes[0]))
    ),
    "gather": lambda x, indices, axis, **_: (
        x[indices.long()] if int(axis) == 0 else x.index_select(int(axis), indices.long().view(-1))
    ),
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": lambda x, y, transpose_x, transpose_y: (
        (x.mT if bool(transpose_x) else x) @ (y.mT if bool(transpose_y) else y)
    ),
    "max_pool": largest,
    "mul": lambda x, y: x * y,
    "pad": padded,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "prelu": lambda x, alpha: F.prelu(x, alpha),
    "real_div": lambda x, y: x / y,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(numbers(axes), keepdim=bool(keep_dims)),
    "relu": lambda x: F.relu(x),
    "reshape": lambda x, shape: x.reshape(numbers(shape)),
    "resize_bilinear": resized,
    "sigmoid": lambda x: x.sigmoid(),
    "slice_by_index": sliced,
    "softmax": lambda x, axis: x.softmax(int(axis)),
    "split": lambda x, axis, num_splits=None, split_sizes=None: x.split(
        numbers(split_sizes) if split_sizes is not None else x.shape[int(axis)] // int(num_splits),
        int(axis),
    ),
    "squeeze": lambda x, axes: x.squeeze(numbers(axes)),
    "sub": lambda x, y: x - y,
    "tile": lambda x, reps: x.tile(numbers(reps)),
    "tanh": lambda x: x.tanh(),
    "transpose": lambda x, perm: x.permute(numbers(perm)),
    "upsample_bilinear": enlarged,
}
"""MIL operation -> what it does."""
