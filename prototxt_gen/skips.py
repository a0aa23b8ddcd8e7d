"""Skip connections in fused layers: a convolution hands on what it reads to those that read it later."""

from prototxt_gen.graph import Graph, phases
from prototxt_gen.proto import pb


def skip_by_convolutions(net: "pb.NetParameter") -> "pb.NetParameter":
    """The net with second tops wherever a convolution is the first of several readers of a batch norm's result."""
    graph = Graph(net)
    for i, layer in enumerate(graph.layers):
        if layer.type == "FusedBatchNorm":
            _skip_by_convolution(graph, i)
            _undo_rename(graph, i)
    result = pb.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    result.layer.extend(graph.layers)
    return result


def _skip_by_convolution(graph: Graph, i: int):
    """Where several layers read batch norm i's result, the first one, a convolution, hands it on to the others.

    It adds their gradients to its own, which spares Caffe's Split, and takes the ReLU's in the batch norm's stead.
    """
    norm, readers = graph.layers[i], graph.readers[i, graph.layers[i].top[0]]
    if not _can_skip(graph, i, readers):
        return
    convolution, blob = graph.layers[readers[0]], norm.top[0]
    convolution.top.append(f"{blob}_skip")
    graph.rename(i, blob, f"{blob}_skip", readers[1:])
    if norm.fused_batch_norm_param.relu:
        convolution.fused_group_convolution_param.bottom_relu = True
        norm.fused_batch_norm_param.relu_gradient = False
        if len(norm.bottom) > 1 and norm.bottom[0] == blob:
            graph.rename_input(i)  # whose gradient must not be written over the top's, which is the residual's now


def _can_skip(graph: Graph, i: int, readers: list[int]) -> bool:
    """True if the first of the readers of layer i's top is a convolution that can hand it on to the others.

    It must be there, and pass a gradient down, wherever the others are. What is written over the blob later would be
    written over the second top too, which is the same memory.
    """
    layers, blob = graph.layers, graph.layers[i].top[0]
    if len(readers) < 2 or layers[readers[0]].type != "FusedGroupConvolution":
        return False
    first = layers[readers[0]]
    return (
        len(first.top) == 1
        and first.bottom[0] == blob
        and readers.count(readers[0]) == 1
        and not (layers[i].loss_weight or first.loss_weight)
        and all(phases(layers[j]) == phases(layers[i]) and all(layers[j].propagate_down) for j in readers)
        and not any(blob in later.top for later in layers[i + 1 :])
        and not graph.has_blob(f"{blob}_skip")
    )


def _undo_rename(graph: Graph, i: int):
    """Undoes to_stock's X/in: layer X writes over it again or, where it must not, it is called like its writer."""
    layer = graph.layers[i]
    blob, top = layer.bottom[0], layer.top[0]
    if blob != f"{layer.name}/in":
        return
    writer = graph.writers[i].get(blob)  # None: an input of the net, or it was just renamed
    if writer is None or graph.readers[writer, blob] != [i]:
        return
    before = graph.layers[writer]
    if not layer.fused_batch_norm_param.relu_gradient:
        if not graph.has_blob(before.name):
            graph.rename(writer, blob, before.name)
    elif top not in before.bottom and graph.untouched(top, [writer, i], reading=True):
        graph.rename(writer, blob, top)
