// Caffe's _caffe.cpp, with layers written in Python. Caffe compiles those into libcaffe, which ties every program to
// one Python; registered here, they are at hand wherever there is a Python to run them.
#include "python/caffe/_caffe.cpp"

namespace caffe {

// What goes wrong in the layer's class is the caller's exception.
template <typename Dtype>
shared_ptr<Layer<Dtype>> GetPythonLayer(const LayerParameter& param) {
  const PythonParameter& python = param.python_param();
  bp::object layer = bp::import(python.module().c_str()).attr(python.layer().c_str())(param);
  return bp::extract<shared_ptr<PythonLayer<Dtype>>>(layer)();
}

REGISTER_LAYER_CREATOR(Python, GetPythonLayer);

}  // namespace caffe
