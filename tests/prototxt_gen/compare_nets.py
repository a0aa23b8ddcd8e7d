"""Trains two nets side by side in Caffe, from two weight files, and prints how far apart they are, as JSON.

Arguments: solver weights solver weights. `start`: largest difference of the weights as loaded; `losses`: pairs;
`blobs`, `gradients`: largest differences relative to the largest value, of the blobs both nets have and of the first
gradients. `moved`: how far the weights are apart after some steps, relative to how far they have moved; in the norm of
all, because rounding may turn the sign that a ReLU sees, which a few weights then feel.
"""

import json
import sys

import caffe
import numpy as np

STEPS = 3


def values(net, what):
    return [getattr(blob, what).copy() for blobs in net.params.values() for blob in blobs]


def distance(a, b):
    return max(float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-6)) for x, y in zip(a, b, strict=True))


def norm_of_difference(a, b):
    return float(np.sqrt(sum(np.square(x - y, dtype=np.float64).sum() for x, y in zip(a, b, strict=True))))


caffe.set_mode_cpu()
result = {"losses": []}
solvers = []
for solver, weights in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    solvers.append(caffe.get_solver(solver))
    solvers[-1].net.copy_from(weights)
a, b = (solver.net for solver in solvers)
start = values(a, "data")
result["start"] = distance(start, values(b, "data"))
for net in (
    a,
    b,
):  # not after a solver's step: stock Nesterov leaves the update in the diffs, FusedNesterov the gradients
    net.clear_param_diffs()
    net.forward()
    net.backward()
common = [name for name in a.blobs if name in b.blobs]
result["common"] = len(common)
result["blobs"] = distance([a.blobs[n].data for n in common], [b.blobs[n].data for n in common])
result["gradients"] = distance(values(a, "diff"), values(b, "diff"))
for _ in range(STEPS):
    for solver in solvers:
        solver.step(1)
    result["losses"].append([float(net.blobs["loss"].data) for net in (a, b)])
end = values(a, "data")
result["moved"] = norm_of_difference(end, values(b, "data")) / norm_of_difference(end, start)
print(json.dumps(result))
