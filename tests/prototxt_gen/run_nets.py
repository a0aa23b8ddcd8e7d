"""Runs nets in Caffe, in a process of its own since Caffe aborts on errors.

Standard input: a JSON list of [prototxt, phase]. For each net a line of JSON: number of values in its blobs, loss, and
whether all gradients are finite.
"""

import json
import sys

import caffe
import numpy as np

caffe.set_random_seed(1)
for path, phase in json.load(sys.stdin):
    print(f"{path} {phase}", file=sys.stderr, flush=True)
    net = caffe.Net(path, getattr(caffe, phase))
    net.forward()
    loss = float(net.blobs["loss"].data) if "loss" in net.blobs else 0.0
    if "loss" in net.blobs:
        net.backward()
    values = sum(blob.data.size for blobs in net.params.values() for blob in blobs)
    finite = all(np.isfinite(blob.diff).all() for blobs in net.params.values() for blob in blobs)
    moved = sum(any(blob.diff.any() for blob in blobs) for blobs in net.params.values())
    stds = {name: [float(blob.data.std()) for blob in blobs] for name, blobs in net.params.items()}
    print(json.dumps({"values": values, "loss": loss, "finite": finite, "moved": moved, "stds": stds}), flush=True)
