"""Runs nets with weights forward and backward in Caffe, in a process of its own since Caffe aborts on errors.

Arguments: a file to write (.npz), then paths of nets without .prototxt and .caffemodel. By each net's name the result
has its loss and the gradients of its parameters, in one row.
"""

import sys
from pathlib import Path

import caffe
import numpy as np

results = {}
for path in sys.argv[2:]:
    net = caffe.Net(f"{path}.prototxt", caffe.TRAIN, weights=f"{path}.caffemodel")
    rng = np.random.default_rng(1)
    for name in ("data", "wanted"):
        net.blobs[name].data[...] = rng.standard_normal(net.blobs[name].data.shape)
    net.forward()
    net.backward()
    diffs = [blob.diff.ravel() for blobs in net.params.values() for blob in blobs]
    results[Path(path).name] = np.concatenate([net.blobs["loss"].data.ravel(), *diffs])
np.savez(sys.argv[1], **results)
