"""Runs nets with weights in Caffe, in a process of its own since Caffe aborts on errors.

Arguments: a file of images (.npy), a file to write (.npz), then folders with net.prototxt and net.caffemodel. For
each folder F the result has F, the scores in blob `fc`, and F/prob, the probabilities.
"""

import sys

import caffe
import numpy as np

images, results = np.load(sys.argv[1]), {}
for folder in sys.argv[3:]:
    net = caffe.Net(f"{folder}/net.prototxt", caffe.TEST, weights=f"{folder}/net.caffemodel")
    net.blobs["data"].reshape(*images.shape)
    net.blobs["data"].data[...] = images
    results[f"{folder}/prob"] = net.forward()["prob"]
    results[folder] = net.blobs["fc"].data
np.savez(sys.argv[2], **results)
