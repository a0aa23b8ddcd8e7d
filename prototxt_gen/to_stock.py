"""Rewrites our fused layers as plain Caffe layers and ChannelPermutation; blobs and their param specs go along.

FusedGroupConvolution X becomes X/permute1, X/conv1, X/permute2, X/conv2, ..., X/permute_out, X/add, X/relu (a
permutation only where there is one; just X, X/add, X/relu if it is one convolution without permutations).
FusedBatchNorm X becomes X/norm, X/scale, X/add, X/relu. The last of them writes the fused layer's top, so the rest of
the net stays as it is, with two exceptions: what reads a FusedBatchNorm's second top reads the first, and the sum
cannot be in place, so its input becomes X/in.
"""

from prototxt_gen.command_line import Invalid
from prototxt_gen.graph import Graph
from prototxt_gen.proto import pb


def to_stock(net: "pb.NetParameter") -> "pb.NetParameter":
    """The same net in plain layers. Raises Invalid, naming the layer, where its blobs do not fit its parameters."""
    result = pb.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    graph = Graph(net)
    for i, layer in enumerate(graph.layers):
        if layer.type == "FusedBatchNorm":
            _join_tops(graph, i)
            _leave_place(graph, i)
    for layer in graph.layers:
        result.layer.extend(_EXPAND.get(layer.type, lambda other: [other])(layer))
    return result


def is_fused(layer) -> bool:
    return layer.type in _EXPAND


def _join_tops(graph: Graph, i: int):
    """Drops the second top: its readers read the first."""
    layer = graph.layers[i]
    if len(layer.top) < 2:
        return
    first, second = layer.top
    if any(first in later.top for later in graph.layers[i + 1 :]):
        raise Invalid(
            f"layer '{layer.name}' has a second top, and a later layer writes over the first: rename one of them"
        )
    graph.rename(i, second, first, graph.readers[i, second])
    del layer.top[1]


def _leave_place(graph: Graph, i: int):
    """Where an in-place layer adds a residual, gives its input a name of its own."""
    layer = graph.layers[i]
    if len(layer.bottom) == 2 and layer.bottom[0] == layer.top[0]:
        writer = graph.writers[i][layer.bottom[0]]
        graph.rename(writer, layer.bottom[0], f"{layer.name}/in")


class _Expansion:
    """Plain layers in a row in the place of one fused layer."""

    def __init__(self, fused, blobs: int):
        if fused.blobs and len(fused.blobs) != blobs:
            raise Invalid(f"layer '{fused.name}' has {len(fused.blobs)} blobs: its parameters ask for {blobs}")
        self.fused, self.layers, self.used = fused, [], 0

    def add(self, part: str, kind: str, bottom, top: str, blobs: int = 0):
        """Appends layer X/part, which takes the next `blobs` blobs of the fused layer."""
        layer = pb.LayerParameter(name=f"{self.fused.name}/{part}", type=kind, bottom=bottom, top=[top])
        layer.include.extend(self.fused.include)
        layer.exclude.extend(self.fused.exclude)
        taken = slice(self.used, self.used + blobs)
        layer.param.extend(self.fused.param[taken])
        layer.blobs.extend(self.fused.blobs[taken])
        self.used += blobs
        if not self.layers and self.fused.propagate_down:
            layer.propagate_down.append(self.fused.propagate_down[0])
        self.layers.append(layer)
        return layer

    def finish(self, relu: bool):
        """What both fused layers end with: the second bottom's addition, and a ReLU in place."""
        top = self.fused.top[0]
        if len(self.fused.bottom) > 1:
            add = self.add("add", "Eltwise", [self.layers[-1].top[0], self.fused.bottom[1]], top)
            if self.fused.propagate_down:
                add.propagate_down.extend([True, self.fused.propagate_down[1]])
        if relu:
            self.add("relu", "ReLU", [top], top)
        self.layers[-1].loss_weight.extend(self.fused.loss_weight[:1])
        return self.layers


def _expand_convolutions(fused):
    param = fused.fused_group_convolution_param
    expansion = _Expansion(fused, sum(1 + stage.bias_term for stage in param.stage))
    # (part, what it is, its parameter) in order, without permutations that do nothing
    parts = []
    for i, stage in enumerate(param.stage, 1):
        parts += [(f"permute{i}", stage.permutation), (f"conv{i}", stage)]
    parts.append(("permute_out", param.output_permutation))
    parts = [
        (part, message) for part, message in parts if part.startswith("conv") or message.index or message.interleave > 1
    ]
    bottom = fused.bottom[0]
    for part, message in parts:
        last = part == parts[-1][0] and len(fused.bottom) == 1
        top = fused.top[0] if last else f"{fused.name}/{part}"
        if part.startswith("conv"):
            layer = expansion.add(part, "Convolution", [bottom], top, 1 + message.bias_term)
            _stage_to_convolution(message, layer.convolution_param)
        else:
            expansion.add(part, "ChannelPermutation", [bottom], top).channel_permutation_param.CopyFrom(message)
        bottom = top
    if len(expansion.layers) == 1:
        expansion.layers[0].name = fused.name
    return expansion.finish(param.relu)


def _stage_to_convolution(stage, param):
    param.num_output = stage.num_output
    if stage.group > 1:
        param.group = stage.group
    param.kernel_size.append(stage.kernel_size)
    for field, default in (("stride", 1), ("pad", 0), ("dilation", 1)):
        if getattr(stage, field) != default:
            getattr(param, field).append(getattr(stage, field))
    if not stage.bias_term:
        param.bias_term = False
    for field in ("weight_filler", "bias_filler"):
        if stage.HasField(field):
            getattr(param, field).CopyFrom(getattr(stage, field))


def _expand_batch_norm(fused):
    param, top = fused.fused_batch_norm_param, fused.top[0]
    expansion = _Expansion(fused, 5)
    scaled = top
    if len(fused.bottom) > 1:
        scaled = fused.bottom[0] if fused.bottom[0] == f"{fused.name}/in" else f"{fused.name}/scale"
    norm = expansion.add("norm", "BatchNorm", [fused.bottom[0]], scaled, 3).batch_norm_param
    for field in ("use_global_stats", "moving_average_fraction", "eps"):
        if param.HasField(field):
            setattr(norm, field, getattr(param, field))
    scale = expansion.add("scale", "Scale", [scaled], scaled, 2).scale_param
    scale.bias_term = True
    if param.HasField("scale_filler"):
        scale.filler.CopyFrom(param.scale_filler)
    if param.HasField("bias_filler"):
        scale.bias_filler.CopyFrom(param.bias_filler)
    return expansion.finish(param.relu)


_EXPAND = {"FusedGroupConvolution": _expand_convolutions, "FusedBatchNorm": _expand_batch_norm}
