// Caffe's net.cpp with HDF5 weights: some copies of it lost the branch of CopyTrainedLayersFrom that reads them. The
// specialisations below take the place of the function in the file.
#include "caffe/net.hpp"
#include "caffe/util/hdf5.hpp"

namespace caffe {
template <>
void Net<float>::CopyTrainedLayersFrom(const string& trained_filename);
template <>
void Net<double>::CopyTrainedLayersFrom(const string& trained_filename);
}  // namespace caffe

#include "src/caffe/net.cpp"

namespace caffe {

template <typename Dtype>
static void CopyTrainedLayers(const string& filename, Net<Dtype>* net) {
#ifdef USE_HDF5
  // As Caffe writes them: PREFIX_iter_N.caffemodel.h5.
  htri_t is_hdf5;
  H5E_BEGIN_TRY { is_hdf5 = H5Fis_hdf5(filename.c_str()); }
  H5E_END_TRY;
  if (is_hdf5 > 0) {
    net->CopyTrainedLayersFromHDF5(filename);
    return;
  }
#endif
  net->CopyTrainedLayersFromBinaryProto(filename);
}

template <>
void Net<float>::CopyTrainedLayersFrom(const string& trained_filename) {
  CopyTrainedLayers(trained_filename, this);
}

template <>
void Net<double>::CopyTrainedLayersFrom(const string& trained_filename) {
  CopyTrainedLayers(trained_filename, this);
}

}  // namespace caffe
