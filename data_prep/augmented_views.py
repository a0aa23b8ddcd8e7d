"""Records as the AugmentedData layer gives them to a training net."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.lmdb_io import LmdbWriter, record_key


class NotAvailable(Exception):
    """Why this Caffe cannot show augmented images."""


@dataclass(frozen=True)
class Augmentation:
    """AugmentedDataParameter's fields of these names; `scale` is (min_scale, max_scale), `black` the pad_mode."""

    crop: int
    pad: int
    black: bool
    mirror: bool
    scale: tuple[int, int] | None
    seed: int


def augmented_views(
    records: list[bytes], mean: list[float], std: list[float], augmentation: Augmentation, views: int
) -> np.ndarray:
    """(views, records, C, H, W) uint8: each serialized Datum in `views` epochs, brought back to 0-255.

    Raises NotAvailable without pycaffe or without the layer.
    """
    try:
        import caffe
    except ImportError as error:
        raise NotAvailable(f"pycaffe cannot be imported ({error})") from None
    if "AugmentedData" not in getattr(caffe, "layer_type_list", list)():
        raise NotAvailable("this Caffe has no AugmentedData layer")
    with tempfile.TemporaryDirectory() as folder:
        lmdb_path, prototxt = Path(folder, "lmdb"), Path(folder, "net.prototxt")
        with LmdbWriter(lmdb_path) as writer:
            writer.put([(record_key(row, "sample"), record) for row, record in enumerate(records)])
        net_parameter = _net(lmdb_path, len(records), mean, std, augmentation)
        prototxt.write_text(str(net_parameter))
        net = caffe.Net(str(prototxt), caffe.TRAIN)
        batches = [net.forward()["data"].copy() for _ in range(views)]
    column = (1, -1, 1, 1)
    pixels = np.stack(batches) * np.reshape(std, column) + np.reshape(mean, column)
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _net(lmdb_path: Path, count: int, mean: list[float], std: list[float], augmentation: Augmentation):
    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter()
    layer = net.layer.add(name="data", type="AugmentedData", top=["data", "label"])
    parameter = layer.augmented_data_param
    parameter.source = str(lmdb_path)
    parameter.batch_size = count
    parameter.mean.extend(mean)
    parameter.std.extend(std)
    parameter.crop_size = augmentation.crop
    parameter.pad = augmentation.pad
    parameter.pad_mode = parameter.BLACK if augmentation.black else parameter.NORMALIZED_ZERO
    parameter.mirror = augmentation.mirror
    if augmentation.scale:
        parameter.min_scale, parameter.max_scale = augmentation.scale
    parameter.shuffle = False
    parameter.seed = augmentation.seed
    return net
