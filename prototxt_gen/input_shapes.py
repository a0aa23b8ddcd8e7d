"""Shapes of what enters a net: its inputs and data layers."""

from prototxt_gen.command_line import Invalid
from prototxt_gen.layer_shapes import Shape


def net_inputs(net) -> dict[str, Shape]:
    """Inputs of the old kind: `input` with input_shape or input_dim at the top of the net."""
    if net.input_shape:
        return {name: tuple(shape.dim) for name, shape in zip(net.input, net.input_shape, strict=False)}
    dims = list(net.input_dim)
    return {name: tuple(dims[4 * i : 4 * i + 4]) for i, name in enumerate(net.input)}


def is_data_layer(layer) -> bool:
    return layer.type in _DATA


def data_shapes(layer, image: Shape | None) -> list[Shape] | None:
    """Shapes of a data layer's tops, None if it is none. image: C x H x W, for layers that do not tell it."""
    if not is_data_layer(layer):
        return None
    return _DATA[layer.type](layer, image)


def _input(layer, image):
    shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
    return shapes * len(layer.top) if len(shapes) == 1 else shapes


def _dummy(layer, image):
    param = layer.dummy_data_param
    shapes = [tuple(shape.dim) for shape in param.shape] or list(
        zip(param.num, param.channels, param.height, param.width, strict=False)
    )
    return shapes * len(layer.top) if len(shapes) == 1 else shapes


def _memory(layer, image):
    param = layer.memory_data_param
    return [(param.batch_size, param.channels, param.height, param.width), (param.batch_size,)]


def _records(batch: int, told: Shape, layer, image):
    """Data and label. The records' size is not in the prototxt, but crop and means tell it in most nets: no zeros."""
    if image is None and all(told):
        image = told
    if image is None:
        raise Invalid(f"the shape of layer '{layer.name}' ({layer.type}) is not in the prototxt: give --input C,H,W")
    return [(batch, *image), *[(batch,)] * (len(layer.top) - 1)]


def _data(layer, image):
    transform = layer.transform_param
    size = (transform.crop_size, transform.crop_size)
    if layer.type == "ImageData":
        param = layer.image_data_param
        channels = 3 if param.is_color else 1
        size = size if transform.crop_size else (param.new_height, param.new_width)
    else:
        # an image of means is of colours as a rule
        param, channels = layer.data_param, 3 if transform.mean_file else _told_by(transform.mean_value)
    return _records(param.batch_size, (channels, *size), layer, image)


def _told_by(means) -> int:
    """Channels, if there is a mean for each: a single one may be for all. 0: not told."""
    return len(means) if len(means) > 1 else 0


def _augmented(layer, image):
    param = layer.augmented_data_param
    return _records(param.batch_size, (_told_by(param.mean), param.crop_size, param.crop_size), layer, image)


def _hidden(layer, image):
    return _records(1, (0, 0, 0), layer, image)


_DATA = {
    "Input": _input,
    "DummyData": _dummy,
    "MemoryData": _memory,
    "Data": _data,
    "ImageData": _data,
    "AugmentedData": _augmented,
    "HDF5Data": _hidden,
    "WindowData": _hidden,
}
