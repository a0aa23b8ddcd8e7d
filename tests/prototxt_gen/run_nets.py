"""Runs nets in Caffe, in a process of its own since Caffe aborts on errors.

Standard input: a JSON list of lists of [prototxt, phase]; the nets of a list share the first one's weights, as Caffe's
test nets do. For each net a line of JSON: number of values in its blobs, whether all gradients and outputs are finite,
number of layers with a gradient, standard deviations of the blobs.
"""

import json
import sys

import caffe
import numpy as np

caffe.set_random_seed(1)
for group in json.load(sys.stdin):
    first = None
    for path, phase in group:
        print(f"{path} {phase}", file=sys.stderr, flush=True)
        net = caffe.Net(path, getattr(caffe, phase))
        if first:
            net.share_with(first)  # moving averages too: without any, batch norm blows up
        first = first or net
        outputs = net.forward()
        if "loss" in outputs:
            net.backward()
        blobs = {name: list(blobs) for name, blobs in net.params.items()}
        arrays = [blob.diff for own in blobs.values() for blob in own] + list(outputs.values())
        result = {
            "values": sum(blob.data.size for own in blobs.values() for blob in own),
            "finite": all(bool(np.isfinite(array).all()) for array in arrays),
            "moved": sum(any(blob.diff.any() for blob in own) for own in blobs.values()),
            "stds": {name: [float(blob.data.std()) for blob in own] for name, own in blobs.items()},
        }
        print(json.dumps(result), flush=True)
