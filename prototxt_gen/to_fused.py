"""Rewrites plain Caffe layers as our fused ones, in any net; blobs and their param specs go along.

Convolution and ChannelPermutation layers in a row, where nothing else reads what lies between, become one
FusedGroupConvolution; BatchNorm and Scale one FusedBatchNorm; either takes an Eltwise sum and a ReLU behind it along.
The fused layer is called X if to_stock would call its parts as they are called (X/conv1, X/norm, ...) and nothing else
is called X, else like its first convolution or its BatchNorm. Where a convolution and later layers read a batch norm's
result, the later ones read the convolution's second top.
"""

import itertools
import re

from prototxt_gen.command_line import Invalid
from prototxt_gen.complexity import known_counts
from prototxt_gen.graph import Graph, meet, prefix
from prototxt_gen.layer_shapes import scales_channels
from prototxt_gen.proto import pb
from prototxt_gen.skips import skip_by_convolutions

_PART = re.compile(r"(.+)/(?:permute(?:\d+|_out)|conv\d+|norm|scale|add|relu)")  # as to_stock calls them


def to_fused(net: "pb.NetParameter") -> "pb.NetParameter":
    """The same net in fused layers. Raises Invalid, naming the layer, where only some of the parts have blobs."""
    not_images = {name for name, count in known_counts(net).items() if count.tops and len(count.tops[0]) != 4}
    result = pb.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    result.layer.extend(_fused_layers(Graph(net), not_images))
    return skip_by_convolutions(result)


def _fused_layers(graph: Graph, not_images: set[str]) -> "list[pb.LayerParameter]":
    """Each chain as one layer, with the names of its blobs as they were, between the layers that are in no chain."""
    written, gone = {}, set()  # place in the net -> (how to fuse, its parts); all parts
    for i in range(len(graph.layers)):
        if i in gone:
            continue
        if chain := _convolution_chain(graph, i, not_images):
            longer = _with_finish(graph, chain, gone)
            written[chain[0] if longer == chain else longer[-1]] = (_fuse_convolutions, longer)
            chain = longer
        elif chain := _batch_norm_chain(graph, i, gone):
            written[chain[-1]] = (_fuse_batch_norm, chain)
        gone.update(chain)
    names = _names(graph, [chain for _, chain in written.values()])
    result = []
    for i, layer in enumerate(graph.layers):
        if i in written:
            fuse, chain = written[i]
            fused = fuse([graph.layers[j] for j in chain])
            fused.name = names.get(chain[0], fused.name)
            result.append(fused)
        elif i not in gone:
            result.append(layer)
    return result


def _names(graph: Graph, chains: list[list[int]]) -> dict[int, str]:
    """First place of a chain -> X, for those of X/conv1, X/relu, ... that can be called so: none else is to be X."""
    wanted, result = {}, {}
    for chain in chains:
        parts = [_PART.fullmatch(graph.layers[i].name) for i in chain]
        names = {part[1] if part else None for part in parts}
        if len(chain) > 1 and len(names) == 1 and (name := names.pop()):
            wanted.setdefault(name, []).append(chain)
    for name, rivals in wanted.items():
        firsts = [graph.layers[chain[0]] for chain in rivals]
        if not any(meet(*pair) for pair in itertools.combinations(firsts, 2)):
            result.update({chain[0]: name for chain in rivals if not graph.has_name(name, chain)})
    return result


def _convolution_chain(graph: Graph, i: int, not_images: set[str]) -> list[int]:
    """Places of the layers from i on that make up one FusedGroupConvolution, written in the place of the first."""
    chain, layers = [], graph.layers
    while i is not None:
        last = layers[chain[-1]].type if chain else ""
        permutation = layers[i].type == "ChannelPermutation" and last != "ChannelPermutation"
        stage = _is_square(layers[i]) and layers[i].name not in not_images
        if not (permutation or stage) or not graph.untouched(layers[i].top[0], [*chain, i], reading=True):
            break
        chain.append(i)
        i = graph.next(i)
    return chain if any(layers[j].type == "Convolution" for j in chain) else []


def _is_square(layer) -> bool:
    """True for a Convolution that can be a stage: one bottom, one top, square odd kernel, equal in both directions."""
    param = layer.convolution_param
    if layer.type != "Convolution" or len(layer.bottom) != 1 or len(layer.top) != 1 or param.axis != 1:
        return False
    return all(_square(param, field) is not None for field in ("kernel_size", "stride", "pad", "dilation")) and (
        _square(param, "kernel_size") % 2 == 1
    )


def _square(param, field: str) -> int | None:
    """The one value of a field that Caffe allows per direction; None where the directions differ."""
    short = field.removesuffix("_size")
    values = set(getattr(param, field))
    if field != "dilation" and (param.HasField(f"{short}_h") or param.HasField(f"{short}_w")):
        values |= {getattr(param, f"{short}_h"), getattr(param, f"{short}_w")}
    if not values and field != "kernel_size":
        return 0 if field == "pad" else 1
    return values.pop() if len(values) == 1 else None


def _batch_norm_chain(graph: Graph, i: int, gone: set[int]) -> list[int]:
    """Places of BatchNorm, Scale [, Eltwise] [, ReLU] from i on: one FusedBatchNorm, in the place of the last."""
    layers = graph.layers
    scale = graph.next(i) if layers[i].type == "BatchNorm" else None
    if scale is None or not (scales_channels(layers[scale]) and layers[scale].scale_param.bias_term):
        return []
    chain = _with_finish(graph, [i, scale], gone)
    return chain if graph.untouched(layers[i].bottom[0], chain) else []


def _with_finish(graph: Graph, chain: list[int], gone: set[int]) -> list[int]:
    """The chain with the sum and the ReLU that follow it, as far as all can be done in the place of the last.

    gone: layers that are part of another chain already. X/add belongs to X; else a sum to the first of its two.
    """
    layers, first, last = graph.layers, graph.layers[chain[0]], chain[-1]
    after, residual = graph.next(last), None
    if after is not None and layers[after].type == "Eltwise":
        residual = _residual(layers[after], layers[last].top[0])
        ours = after not in gone and prefix(layers[after].name) in ("", prefix(first.name) or first.name)
        if not ours or residual is None or not graph.untouched(first.bottom[0], [*chain, after]):
            return chain
        chain, last, after = [*chain, after], after, graph.next(after)
    if after is not None and layers[after].type == "ReLU" and layers[after].relu_param.negative_slope == 0:
        longer = [*chain, after]
        if graph.untouched(first.bottom[0], longer) and (not residual or graph.untouched(residual, [last, after])):
            chain = longer
    return chain


def _residual(eltwise, scaled: str) -> str | None:
    """The other blob of the sum; None if it is not a plain sum of two."""
    param, others = eltwise.eltwise_param, [bottom for bottom in eltwise.bottom if bottom != scaled]
    plain = param.operation == pb.EltwiseParameter.SUM and all(c == 1 for c in param.coeff)
    return (
        others[0] if plain and len(eltwise.bottom) == 2 and len(others) == 1 and others[0] != eltwise.top[0] else None
    )


def _fused_layer(kind: str, parts, named_after) -> "pb.LayerParameter":
    fused = pb.LayerParameter(name=named_after.name, type=kind, bottom=parts[0].bottom, top=parts[-1].top)
    fused.include.extend(parts[0].include)
    fused.exclude.extend(parts[0].exclude)
    fused.propagate_down.extend(parts[0].propagate_down)
    fused.loss_weight.extend(parts[-1].loss_weight)
    return fused


def _gather(fused, parts, counts, default=None):
    """Gives `fused` the param specs and blobs of its parts, `counts` of them each.

    Three param of a BatchNorm count for nothing: Caffe itself leaves them out of such old nets.
    """
    params = [[] if part.type == "BatchNorm" and len(part.param) == 3 else part.param for part in parts]
    if any(params):
        for part, param, count in zip(parts, params, counts, strict=True):
            fused.param.extend(param)
            fill = default.get(part.type, {}) if default else {}
            fused.param.extend(pb.ParamSpec(**fill) for _ in range(count - len(param)))
    if any(part.blobs for part in parts):
        for part, count in zip(parts, counts, strict=True):
            if len(part.blobs) != count:
                raise Invalid(f"layer '{part.name}' has {len(part.blobs)} blobs: its parameters ask for {count}")
            fused.blobs.extend(part.blobs)


def _finish(fused, param, parts):
    """Gives `fused` the residual and the ReLU of what follows parts[0] .. in _with_finish."""
    last = None
    for part in parts:
        if part.type == "Eltwise":
            residual = _residual(part, last.top[0])
            fused.bottom.append(residual)
            if fused.propagate_down or part.propagate_down:
                wanted = dict(zip(part.bottom, part.propagate_down, strict=False)).get(residual, True)
                fused.propagate_down[:] = [*(fused.propagate_down or [True]), wanted]
        elif part.type == "ReLU":
            param.relu = True
        last = part


def _fuse_convolutions(parts):
    convolutions = [part for part in parts if part.type == "Convolution"]
    fused = _fused_layer("FusedGroupConvolution", parts, convolutions[0])
    param, permutation = fused.fused_group_convolution_param, None
    for part in parts:
        if part.type == "ChannelPermutation":
            permutation = part.channel_permutation_param
        elif part.type == "Convolution":
            stage = param.stage.add()
            _convolution_to_stage(part.convolution_param, stage)
            if permutation is not None:
                stage.permutation.CopyFrom(permutation)
                permutation = None
    if permutation is not None:
        param.output_permutation.CopyFrom(permutation)
    _finish(fused, param, parts)
    _gather(fused, convolutions, [1 + part.convolution_param.bias_term for part in convolutions])
    return fused


def _convolution_to_stage(param, stage):
    stage.num_output = param.num_output
    if param.group > 1:
        stage.group = param.group
    for field, default in (("kernel_size", 1), ("stride", 1), ("pad", 0), ("dilation", 1)):
        if _square(param, field) != default:
            setattr(stage, field, _square(param, field))
    if not param.bias_term:
        stage.bias_term = False
    for field in ("weight_filler", "bias_filler"):
        if param.HasField(field):
            getattr(stage, field).CopyFrom(getattr(param, field))


def _fuse_batch_norm(parts):
    norm, scale = parts[:2]
    fused = _fused_layer("FusedBatchNorm", parts, norm)
    param = fused.fused_batch_norm_param
    for field in ("use_global_stats", "moving_average_fraction", "eps"):
        if norm.batch_norm_param.HasField(field):
            setattr(param, field, getattr(norm.batch_norm_param, field))
    _finish(fused, param, parts)
    if scale.scale_param.HasField("filler"):
        param.scale_filler.CopyFrom(scale.scale_param.filler)
    if scale.scale_param.HasField("bias_filler"):
        param.bias_filler.CopyFrom(scale.scale_param.bias_filler)
    _gather(fused, [norm, scale], [3, 2], {"BatchNorm": {"lr_mult": 0, "decay_mult": 0}})
    return fused
