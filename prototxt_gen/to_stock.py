"""Rewrites our fused layers as plain Caffe layers and ChannelPermutation; blobs and their param specs go along.

FusedGroupConvolution X becomes X/permute1, X/conv1, X/permute2, X/conv2, ..., X/permute_out, X/add, X/relu (a
permutation only where there is one; just X, X/add, X/relu if it is one convolution without permutations).
FusedBatchNorm X becomes X/norm, X/scale, X/add, X/relu. The last of them writes the fused layer's top, so the rest of
the net stays as it is, with two exceptions: what reads a FusedGroupConvolution's second top reads its bottom, and the
sum cannot be in place, so its input becomes X/in.
"""

from prototxt_gen.command_line import Invalid
from prototxt_gen.graph import Graph
from prototxt_gen.proto import pb


def to_stock(net: "pb.NetParameter") -> "pb.NetParameter":
    """The same net in plain layers.

    Raises Invalid, naming the layer, where its blobs do not fit its parameters or a name that it needs is taken.
    """
    result = pb.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    graph = Graph(_without_skips(net))
    scaled = {i: _scaled_blob(graph, i) for i, layer in enumerate(graph.layers) if layer.type == "FusedBatchNorm"}
    for i, layer in enumerate(graph.layers):
        if i in scaled:
            result.layer.extend(_expand_batch_norm(_Expansion(graph, i), scaled[i]))
        elif layer.type == "FusedGroupConvolution":
            result.layer.extend(_expand_convolutions(_Expansion(graph, i)))
        else:
            result.layer.append(layer)
    return result


def is_fused(layer) -> bool:
    return layer.type in ("FusedGroupConvolution", "FusedBatchNorm")


def _without_skips(net: "pb.NetParameter") -> "pb.NetParameter":
    """The net's layers without second tops: their readers read the bottom of the convolution."""
    graph = Graph(net)
    for i, layer in enumerate(graph.layers):
        if layer.type != "FusedGroupConvolution" or len(layer.top) < 2:
            continue
        blob, skip = layer.bottom[0], layer.top.pop()
        if any(blob in later.top for later in graph.layers[i + 1 :]):
            raise Invalid(
                f"layer '{layer.name}' has a second top, and a later layer writes over its bottom, '{blob}': "
                "rename one of them"
            )
        graph.rename(i, skip, blob, graph.readers[i, skip])
    return pb.NetParameter(layer=graph.layers)


def _scaled_blob(graph: Graph, i: int) -> str:
    """The blob that FusedBatchNorm i's Scale is to write: the top, or what is summed.

    Where that can be the input's memory, the input becomes X/in: no blob holds other values than in the fused net.
    """
    layer = graph.layers[i]
    if len(layer.bottom) < 2:
        return layer.top[0]
    out_of_place = not layer.fused_batch_norm_param.relu_gradient
    if layer.bottom[0] == layer.top[0] or (out_of_place and _is_spent(graph, i)):
        graph.rename_input(i)
        return layer.bottom[0]
    return graph.new_blob(layer.name, "scale")


def _is_spent(graph: Graph, i: int) -> bool:
    """True if layer i alone reads its first bottom, and a convolution has written it, which needs it no more."""
    blob = graph.layers[i].bottom[0]
    writer = graph.writers[i][blob]
    if writer is None or graph.readers[writer, blob] != [i] or graph.layers[writer].loss_weight:
        return False
    layer = graph.layers[writer]
    relu = layer.fused_group_convolution_param.relu
    return layer.type in ("Convolution", "FusedGroupConvolution") and not relu


class _Expansion:
    """Plain layers in a row in the place of one fused layer."""

    def __init__(self, graph: Graph, i: int):
        self.graph, self.place, self.fused, self.layers, self.used = graph, i, graph.layers[i], [], 0
        stages = self.fused.fused_group_convolution_param.stage
        blobs = 5 if self.fused.type == "FusedBatchNorm" else sum(1 + stage.bias_term for stage in stages)
        if self.fused.blobs and len(self.fused.blobs) != blobs:
            raise Invalid(
                f"layer '{self.fused.name}' has {len(self.fused.blobs)} blobs: its parameters ask for {blobs}"
            )

    def add(self, part: str, kind: str, bottom, top: str, blobs: int = 0):
        """Appends layer X/part, X without a part, which takes the next `blobs` blobs of the fused layer."""
        name = f"{self.fused.name}/{part}" if part else self.fused.name
        if part and self.graph.has_name(name, [self.place]):
            raise Invalid(f"layer '{self.fused.name}' needs a layer '{name}', but there is another one: rename it")
        layer = pb.LayerParameter(name=name, type=kind, bottom=bottom, top=[top])
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


def _expand_convolutions(expansion: _Expansion):
    fused = expansion.fused
    param = fused.fused_group_convolution_param
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
        top = fused.top[0] if last else expansion.graph.new_blob(fused.name, part)
        if part.startswith("conv"):
            name = part if len(parts) > 1 else ""
            layer = expansion.add(name, "Convolution", [bottom], top, 1 + message.bias_term)
            _stage_to_convolution(message, layer.convolution_param)
        else:
            expansion.add(part, "ChannelPermutation", [bottom], top).channel_permutation_param.CopyFrom(message)
        bottom = top
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


def _expand_batch_norm(expansion: _Expansion, scaled: str):
    fused = expansion.fused
    param = fused.fused_batch_norm_param
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
