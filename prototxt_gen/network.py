"""A network's train_val.prototxt and deploy.prototxt as messages."""

from prototxt_gen.architecture import Plan
from prototxt_gen.datasets import Dataset
from prototxt_gen.layers import NetWriter
from prototxt_gen.proto import pb


def train_val_net(
    name: str, plan: Plan, dataset: Dataset, sources: dict[str, str], batch_size: int, test_batch_size: int, seed: int
) -> "pb.NetParameter":
    """Data layers of both phases, the network, loss and accuracy. sources: LMDBs by phase, TRAIN and TEST."""
    writer = NetWriter(name)
    for phase, batch in (("TRAIN", batch_size), ("TEST", test_batch_size)):
        layer = writer.layer("AugmentedData", "data", [], ["data", "label"])
        layer.include.add(phase=pb.Phase.Value(phase))
        param = layer.augmented_data_param
        param.source, param.batch_size, param.crop_size = sources[phase], batch, dataset.size
        param.mean.extend(dataset.mean)
        param.std.extend(dataset.std)
        if phase == "TRAIN":
            param.mirror, param.seed = dataset.augmented, seed
            if dataset.pad:
                param.pad = dataset.pad
            if dataset.max_scale:
                param.min_scale, param.max_scale = dataset.size, dataset.max_scale
    scores = writer.network(plan, dataset.classes)
    writer.layer("SoftmaxWithLoss", "loss", [scores, "label"])
    writer.layer("Accuracy", "accuracy", [scores, "label"])
    return writer.net


def deploy_net(name: str, plan: Plan, dataset: Dataset) -> "pb.NetParameter":
    """From normalised images, (x - mean) / std, to class probabilities."""
    writer = NetWriter(name)
    # Not named as AugmentedData is: Caffe would want to load that layer's blob, its place in the data, into this one.
    layer = writer.layer("Input", "input", [], ["data"])
    layer.input_param.shape.add(dim=[1, dataset.channels, dataset.size, dataset.size])
    writer.layer("Softmax", "prob", [writer.network(plan, dataset.classes)])
    return writer.net
