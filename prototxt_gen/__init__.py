"""The networks of the IGC-V2 paper as Caffe prototxt, and the theory to design new ones."""
