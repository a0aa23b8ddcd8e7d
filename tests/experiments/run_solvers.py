"""Takes one step of each solver.prototxt given, in a process of its own since Caffe aborts on errors.

For each a line of JSON: iteration, whether loss and weights are finite, layers none of whose learned values moved.
"""

import json
import os
import sys

os.environ["GLOG_minloglevel"] = "2"

import caffe
import numpy as np

for path in sys.argv[1:]:
    print(path, file=sys.stderr, flush=True)
    solver = caffe.get_solver(path)
    params = solver.net.params
    before = {name: [blob.data.copy() for blob in blobs] for name, blobs in params.items()}
    solver.step(1)
    moved = {name: any((blob.data != old).any() for blob, old in zip(params[name], before[name])) for name in params}
    values = [blob.data for blobs in params.values() for blob in blobs] + [solver.net.blobs["loss"].data]
    result = {
        "iteration": solver.iter,
        "finite": all(bool(np.isfinite(array).all()) for array in values),
        "unmoved": [name for name, some in moved.items() if not some],
    }
    print(json.dumps(result), flush=True)
    del solver
