"""For every type of layer that nets are made of: shapes of its tops and blobs, and multiply-adds, from its bottoms."""

import itertools
import math
from dataclasses import dataclass, field

from prototxt_gen.command_line import Invalid
from prototxt_gen.proto import pb

Shape = tuple[int, ...]


@dataclass
class Effect:
    """What a layer makes. statistics: how many of the first blobs are not learned; multiply_adds: of one image.

    convolution: its blobs of several axes are weights of convolutions.
    """

    tops: list[Shape]
    blobs: list[Shape] = field(default_factory=list)
    statistics: int = 0
    multiply_adds: int = 0
    convolution: bool = False


def _per_image(shape: Shape) -> int:
    return math.prod(shape[1:])


def _per_axis(param, field_name: str, axes: int, default: int) -> list[int]:
    """A field of ConvolutionParameter per spatial axis."""
    short = field_name.removesuffix("_size")
    if field_name != "dilation" and (param.HasField(f"{short}_h") or param.HasField(f"{short}_w")):
        return [getattr(param, f"{short}_h"), getattr(param, f"{short}_w")]
    values = list(getattr(param, field_name)) or [default]
    return values * axes if len(values) == 1 else values


def geometry(layer, axes: int) -> list[list[int]]:
    """kernel_size, stride, pad and dilation of a Convolution per spatial axis. Raises Invalid."""
    if not axes:
        raise Invalid(f"layer '{layer.name}' ({layer.type}) has a bottom without spatial axes")
    result = []
    for name, default in (("kernel_size", 0), ("stride", 1), ("pad", 0), ("dilation", 1)):
        values = _per_axis(layer.convolution_param, name, axes, default)
        if len(values) != axes:
            raise Invalid(
                f"layer '{layer.name}' has {len(values)} values of {name}: give one, or one for each of {axes} axes"
            )
        result.append(values)
    if not all(result[0]):
        raise Invalid(f"layer '{layer.name}' has no kernel_size")
    return result


def scales_channels(layer) -> bool:
    """True for a Scale by learned numbers, one for each channel."""
    param = layer.scale_param
    return layer.type == "Scale" and len(layer.bottom) == 1 and param.axis == 1 and param.num_axes == 1


def _convolution(layer, bottoms, transposed=False):
    param, shape = layer.convolution_param, bottoms[0]
    channel_axis = param.axis % len(shape)
    inputs, size = shape[channel_axis], shape[channel_axis + 1 :]
    _check_groups(layer, inputs, param.num_output, param.group)
    kernel, stride, pad, dilation = geometry(layer, len(size))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if transposed:
        out = [s * (n - 1) + e - 2 * p for n, e, s, p in zip(size, extent, stride, pad, strict=True)]
        weight, places = (inputs, param.num_output // param.group, *kernel), size
    else:
        out = [(n + 2 * p - e) // s + 1 for n, e, s, p in zip(size, extent, stride, pad, strict=True)]
        weight, places = (param.num_output, inputs // param.group, *kernel), out
    if min(out) < 1:
        raise Invalid(f"layer '{layer.name}': a kernel of {'x'.join(map(str, kernel))} leaves nothing of {shape}")
    blobs = [weight] + [(param.num_output,)] * param.bias_term
    tops = [(*shape[:channel_axis], param.num_output, *out) for _ in layer.top]
    return Effect(tops, blobs, 0, math.prod(weight) * math.prod(places), not transposed)


def _check_groups(layer, inputs, outputs, group):
    if not outputs:
        raise Invalid(f"layer '{layer.name}' has no num_output")
    if inputs % group or outputs % group:
        raise Invalid(
            f"layer '{layer.name}': {group} groups do not divide {inputs} input and {outputs} output channels"
        )


def _fused_group_convolution(layer, bottoms):
    shape, effect = bottoms[0], Effect([], convolution=True)
    for stage in layer.fused_group_convolution_param.stage:
        one = pb.LayerParameter(name=layer.name, top=layer.top)
        param = one.convolution_param
        param.num_output, param.group, param.bias_term = stage.num_output, stage.group, stage.bias_term
        for name in ("kernel_size", "stride", "pad", "dilation"):
            getattr(param, name).append(getattr(stage, name))
        step = _convolution(one, [shape])
        shape = step.tops[0]
        effect.blobs += step.blobs
        effect.multiply_adds += step.multiply_adds
    effect.tops = [shape, bottoms[0]][: len(layer.top)]  # y, x again
    return effect


def _inner_product(layer, bottoms):
    param, shape = layer.inner_product_param, bottoms[0]
    axis = param.axis % len(shape)
    inputs = math.prod(shape[axis:])
    weight = (inputs, param.num_output) if param.transpose else (param.num_output, inputs)
    blobs = [weight] + [(param.num_output,)] * param.bias_term
    return Effect([(*shape[:axis], param.num_output)], blobs, 0, math.prod(weight) * math.prod(shape[1:axis]))


def _pooling(layer, bottoms):
    param, shape = layer.pooling_param, bottoms[0]
    if param.global_pooling:
        return Effect([(*shape[:2], 1, 1) for _ in layer.top])
    kernels, strides, pads = (
        [getattr(param, f"{name}_{axis}" if param.HasField(f"{name}_{axis}") else field) for axis in "hw"]
        for name, field in (("kernel", "kernel_size"), ("stride", "stride"), ("pad", "pad"))
    )
    out = []
    for n, kernel, stride, pad in zip(shape[2:], kernels, strides, pads, strict=False):
        steps = (n + 2 * pad - kernel) / stride
        size = (math.floor(steps) if param.round_mode == pb.PoolingParameter.FLOOR else math.ceil(steps)) + 1
        out.append(size - 1 if any(pads) and (size - 1) * stride >= n + pad else size)
    return Effect([(*shape[:2], *out) for _ in layer.top])


def _batch_norm(layer, bottoms):
    channels = bottoms[0][1] if len(bottoms[0]) > 1 else 1
    return Effect([bottoms[0]], [(channels,), (channels,), (1,)], 3, _per_image(bottoms[0]))


def _fused_batch_norm(layer, bottoms):
    norm = _batch_norm(layer, bottoms)
    return Effect(norm.tops, norm.blobs + norm.blobs[:2], 3, 2 * norm.multiply_adds)


def _scale(layer, bottoms):
    param, shape = layer.scale_param, bottoms[0]
    axis = param.axis % len(shape)
    own = bottoms[1] if len(bottoms) > 1 else shape[axis : len(shape) if param.num_axes < 0 else axis + param.num_axes]
    return Effect([shape], ([] if len(bottoms) > 1 else [own]) + [own] * param.bias_term, 0, _per_image(shape))


def _bias(layer, bottoms):
    param, shape = layer.bias_param, bottoms[0]
    axis = param.axis % len(shape)
    own = shape[axis : len(shape) if param.num_axes < 0 else axis + param.num_axes]
    return Effect([shape], [own] if len(bottoms) == 1 else [])


def _prelu(layer, bottoms):
    return Effect(
        [bottoms[0]], [() if layer.prelu_param.channel_shared else (bottoms[0][1],)], 0, _per_image(bottoms[0])
    )


def _embed(layer, bottoms):
    param = layer.embed_param
    return Effect(
        [(*bottoms[0], param.num_output)],
        [(param.input_dim, param.num_output)] + [(param.num_output,)] * param.bias_term,
    )


def _same(layer, bottoms):
    return Effect([bottoms[0] for _ in layer.top])


def _eltwise(layer, bottoms):
    if len(set(bottoms)) > 1:
        raise Invalid(f"layer '{layer.name}' combines different shapes: {', '.join(map(str, bottoms))}")
    return Effect([bottoms[0]])


def _concat(layer, bottoms):
    param = layer.concat_param
    axis = (param.concat_dim if param.HasField("concat_dim") else param.axis) % len(bottoms[0])
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in bottoms}
    if len(rest) > 1:
        raise Invalid(
            f"layer '{layer.name}' joins shapes that differ beside axis {axis}: {', '.join(map(str, bottoms))}"
        )
    return Effect([(*bottoms[0][:axis], sum(shape[axis] for shape in bottoms), *bottoms[0][axis + 1 :])])


def _slice(layer, bottoms):
    param, shape = layer.slice_param, bottoms[0]
    axis = (param.slice_dim if param.HasField("slice_dim") else param.axis) % len(shape)
    step = shape[axis] // len(layer.top)
    cuts = [0, *(param.slice_point or [step * i for i in range(1, len(layer.top))]), shape[axis]]
    return Effect([(*shape[:axis], b - a, *shape[axis + 1 :]) for a, b in itertools.pairwise(cuts)])


def _flatten(layer, bottoms):
    param, shape = layer.flatten_param, bottoms[0]
    start, end = param.axis % len(shape), param.end_axis % len(shape)
    return Effect([(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])])


def _reshape(layer, bottoms):
    param, shape = layer.reshape_param, bottoms[0]
    start = param.axis if param.axis >= 0 else len(shape) + 1 + param.axis
    end = len(shape) if param.num_axes < 0 else start + param.num_axes
    dims = [shape[start + i] if d == 0 else d for i, d in enumerate(param.shape.dim)]
    if -1 in dims:
        dims[dims.index(-1)] = math.prod(shape[start:end]) // -math.prod(dims)
    return Effect([(*shape[:start], *dims, *shape[end:])])


def _tile(layer, bottoms):
    shape = list(bottoms[0])
    shape[layer.tile_param.axis] *= layer.tile_param.tiles
    return Effect([tuple(shape)])


def _reduction(layer, bottoms):
    return Effect([bottoms[0][: layer.reduction_param.axis % len(bottoms[0])]])


def _crop(layer, bottoms):
    axis = layer.crop_param.axis % len(bottoms[0])
    return Effect([(*bottoms[0][:axis], *bottoms[1][axis:])])


def _loss(layer, bottoms):
    return Effect([(), bottoms[0]][: len(layer.top)])


def _accuracy(layer, bottoms):
    return Effect([(), (bottoms[0][layer.accuracy_param.axis],)][: len(layer.top)])


_NEURONS = (
    "AbsVal",
    "BNLL",
    "ChannelPermutation",
    "Clip",
    "Dropout",
    "ELU",
    "Exp",
    "LRN",
    "Log",
    "MVN",
    "Power",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Split",
    "Swish",
    "TanH",
    "Threshold",
)
_LOSSES = (
    "ContrastiveLoss",
    "EuclideanLoss",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss",
    "SoftmaxWithLoss",
)

EFFECTS = {
    "Accuracy": _accuracy,
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Concat": _concat,
    "Convolution": _convolution,
    "Crop": _crop,
    "Deconvolution": lambda layer, bottoms: _convolution(layer, bottoms, transposed=True),
    "Eltwise": _eltwise,
    "Embed": _embed,
    "Flatten": _flatten,
    "FusedBatchNorm": _fused_batch_norm,
    "FusedGroupConvolution": _fused_group_convolution,
    "InnerProduct": _inner_product,
    "PReLU": _prelu,
    "Pooling": _pooling,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Scale": _scale,
    "Silence": lambda layer, bottoms: Effect([]),
    "Slice": _slice,
    "Tile": _tile,
    **dict.fromkeys(_NEURONS, _same),
    **dict.fromkeys(_LOSSES, _loss),
}
