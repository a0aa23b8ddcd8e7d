// Where our layers let two blobs share the memory of their gradients, nets in which something else relies on it: values
// by hand. Every weight is 1, so that a 1x1 convolution of 4 to 4 channels takes a gradient of 1 back as 4.
#include <google/protobuf/text_format.h>

#include <string>

#include "caffe/net.hpp"
#include "device_test.hpp"
#include "layer_test.hpp"

namespace caffe {

template <typename TypeParam>
class SharedGradientsTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  static shared_ptr<Net<Dtype>> MakeNet(const string& layers) {
    NetParameter param;
    const string shape = "input_param { shape { dim: [2, 4, 3, 3] } } ";
    const string text = "force_backward: true layer { name: 'q' type: 'Input' top: 'q' " + shape +
                        "} layer { name: 'z' type: 'Input' top: 'z' " + shape +
                        "} layer { name: 's' type: 'Silence' bottom: 'z' } ";
    CHECK(google::protobuf::TextFormat::ParseFromString(text + layers, &param));
    return shared_ptr<Net<Dtype>>(new Net<Dtype>(param));
  }

  /// A convolution with a second top, y and skip, of `bottom`.
  static string Convolution(const string& bottom, const string& more = "") {
    return "layer { name: 'c' type: 'FusedGroupConvolution' bottom: '" + bottom + "' top: 'y' top: 'skip' " + more +
           " fused_group_convolution_param { stage { num_output: 4 bias_term: false weight_filler { type: 'constant' "
           "value: 1 } } } } ";
  }

  static string Layer(const string& type, const string& bottom, const string& top, const string& more = "") {
    return "layer { name: '" + type + "' type: '" + type + "' bottom: '" + bottom + "' top: '" + top + "' " + more +
           "} ";
  }

  /// A batch norm of z, without a ReLU, and a residual.
  static string Norm(const string& residual, const string& more = "") {
    return "layer { name: 'b' type: 'FusedBatchNorm' bottom: 'z' bottom: '" + residual + "' top: 'y' " + more + "} ";
  }

  /// A pass in which the gradients of `tops` are 1.
  static void Pass(Net<Dtype>* net, const vector<string>& tops) {
    net->Forward();
    for (const string& top : tops) {
      Blob<Dtype>& blob = *net->blob_by_name(top);
      caffe_set(blob.count(), Dtype(1), blob.mutable_cpu_diff());
    }
    net->Backward();
  }

  static void ExpectAll(Dtype expected, const Blob<Dtype>& blob, const string& what) {
    for (int i = 0; i < blob.count(); ++i) ASSERT_NEAR(expected, blob.cpu_diff()[i], 1e-4) << what << " at " << i;
  }
};
TYPED_TEST_CASE(SharedGradientsTest, TestDtypesAndDevices);

// Reshape gives its top the bottom's gradient when it is reshaped, and does nothing in backward.
TYPED_TEST(SharedGradientsTest, OfALayerThatSharesItsBottoms) {
  SKIP_WITHOUT_DEVICE();
  const string reshape = this->Layer("Reshape", "q", "x", "reshape_param { shape { dim: [0, 0, 0, 0] } } ");
  const auto convolution = this->MakeNet(reshape + this->Convolution("x") + this->Layer("Power", "skip", "p"));
  const auto norm = this->MakeNet(reshape + this->Norm("x"));
  for (int pass = 0; pass < 3; ++pass) {
    this->Pass(convolution.get(), {"y", "p"});
    this->ExpectAll(5, *convolution->blob_by_name("q"), "bottom of the convolution");
    this->Pass(norm.get(), {"y"});
    this->ExpectAll(1, *norm->blob_by_name("q"), "residual");
  }
}

TYPED_TEST(SharedGradientsTest, OfAParameter) {
  SKIP_WITHOUT_DEVICE();
  const auto net =
      this->MakeNet("layer { name: 'w' type: 'Parameter' top: 'w' parameter_param { shape { dim: [2, 4, 3, 3] } } }" +
                    this->Norm("w"));
  for (int pass = 0; pass < 3; ++pass) {
    net->ClearParamDiffs();
    this->Pass(net.get(), {"y"});
    this->ExpectAll(1, *net->params()[0], "parameter");
  }
}

// Who looks at the gradient of a top that nobody reads makes it zeros.
TYPED_TEST(SharedGradientsTest, OfASecondTopThatNobodyReads) {
  SKIP_WITHOUT_DEVICE();
  const auto net = this->MakeNet(this->Convolution("q"));
  for (int pass = 0; pass < 3; ++pass) {
    net->blob_by_name("skip")->cpu_diff();
    this->Pass(net.get(), {"y"});
    this->ExpectAll(4, *net->blob_by_name("q"), "bottom");
  }
}

// A top's loss weight is its gradient, written once.
TYPED_TEST(SharedGradientsTest, OfALoss) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  const auto convolution = this->MakeNet(this->Convolution("q", "loss_weight: 0 loss_weight: 2"));
  const auto norm = this->MakeNet(this->Layer("ReLU", "q", "q") + this->Norm("q", "loss_weight: 2 "));
  for (int pass = 0; pass < 3; ++pass) {
    this->Pass(convolution.get(), {"y"});
    this->ExpectAll(6, *convolution->blob_by_name("q"), "bottom of the convolution");
    this->ExpectAll(2, *convolution->blob_by_name("skip"), "loss weight");
    Blob<Dtype>& q = *norm->blob_by_name("q");
    caffe_set(q.count(), Dtype(pass == 0 ? -1 : 1), q.mutable_cpu_data());
    this->Pass(norm.get(), {});
    this->ExpectAll(pass == 0 ? 0 : 2, q, "residual behind a ReLU");
    this->ExpectAll(2, *norm->blob_by_name("y"), "loss weight");
  }
}

}  // namespace caffe
