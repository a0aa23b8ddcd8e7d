// Which layers a solver may start as CUDA graphs, and that training with them is the same.
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <memory>

#include "caffe_layers/fused_nesterov_solver.hpp"
#include "device_test.hpp"

namespace caffe {
namespace {

// Runs: bn1 to bn3 (with two skip connections; in place and not), and perm to bn4. conv1 reads the data, the pooling is
// Caffe's, and bn5 is alone.
const char* const kNet = R"(
  layer { name: "data" type: "DummyData" top: "data" top: "t" dummy_data_param {
    shape { dim: 4 dim: 4 dim: 8 dim: 8 } shape { dim: 4 dim: 3 }
    data_filler { type: "gaussian" } data_filler { type: "uniform" } } }
  layer { name: "conv1" type: "FusedGroupConvolution" bottom: "data" top: "a" fused_group_convolution_param {
    stage { num_output: 8 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } } } }
  layer { name: "bn1" type: "FusedBatchNorm" bottom: "a" top: "a"
    fused_batch_norm_param { relu: true relu_gradient: false } }
  layer { name: "block1" type: "FusedGroupConvolution" bottom: "a" top: "b" top: "skip1" fused_group_convolution_param {
    stage { num_output: 8 group: 8 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } }
    stage { num_output: 8 group: 4 bias_term: false weight_filler { type: "msra" } } bottom_relu: true } }
  layer { name: "bn2" type: "FusedBatchNorm" bottom: "b" bottom: "skip1" top: "y"
    fused_batch_norm_param { relu: true relu_gradient: false } }
  layer { name: "block2" type: "FusedGroupConvolution" bottom: "y" top: "c" top: "skip2" fused_group_convolution_param {
    stage { num_output: 8 group: 2 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } }
    bottom_relu: true } }
  layer { name: "bn3" type: "FusedBatchNorm" bottom: "c" bottom: "skip2" top: "c"
    fused_batch_norm_param { relu: true } }
  layer { name: "pool" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
  layer { name: "perm" type: "ChannelPermutation" bottom: "p" top: "d" channel_permutation_param { interleave: 2 } }
  layer { name: "down" type: "FusedGroupConvolution" bottom: "d" top: "e" fused_group_convolution_param {
    stage { num_output: 16 group: 2 stride: 2 weight_filler { type: "msra" } } } }
  layer { name: "bn4" type: "FusedBatchNorm" bottom: "e" top: "e" }
  layer { name: "ip" type: "InnerProduct" bottom: "e" top: "f"
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "bn5" type: "FusedBatchNorm" bottom: "f" top: "g" }
  layer { name: "loss" type: "EuclideanLoss" bottom: "g" bottom: "t" top: "loss" })";

}  // namespace

template <typename TypeParam>
class StepGraphsTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  std::unique_ptr<FusedNesterovSolver<Dtype>> MakeSolver(const string& more) const {
    SolverParameter param;
    const string settings = "base_lr: 0.05 lr_policy: 'fixed' momentum: 0.9 weight_decay: 0.01 random_seed: 1 " + more;
    CHECK(google::protobuf::TextFormat::ParseFromString(settings, &param));
    CHECK(google::protobuf::TextFormat::ParseFromString(kNet, param.mutable_net_param()));
    return std::make_unique<FusedNesterovSolver<Dtype>>(param);
  }
};

TYPED_TEST_CASE(StepGraphsTest, TestDtypesAndDevices);

TYPED_TEST(StepGraphsTest, TestRuns) {
  SKIP_WITHOUT_DEVICE();
  const auto solver = this->MakeSolver("");
  const auto& names = solver->net()->layer_names();
  const auto runs = RunsOfOurLayers(*solver->net());
  ASSERT_EQ(2, runs.size());
  EXPECT_EQ("bn1", names[runs[0].first]);
  EXPECT_EQ("bn3", names[runs[0].second]);
  EXPECT_EQ("perm", names[runs[1].first]);
  EXPECT_EQ("bn4", names[runs[1].second]);
}

// A convolution's second top is the memory that it reads: a data layer's, which changes with every batch.
TYPED_TEST(StepGraphsTest, TestASkipConnectionFromTheDataEndsARun) {
  SKIP_WITHOUT_DEVICE();
  NetParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(kNet, &param));
  param.mutable_layer(1)->add_top("image");
  LayerParameter* down = param.mutable_layer(9);
  ASSERT_EQ("down", down->name());
  down->set_bottom(0, "image");
  const Net<typename TypeParam::Dtype> net(param);
  const auto runs = RunsOfOurLayers(net);
  ASSERT_EQ(1, runs.size());
  EXPECT_EQ("bn3", net.layer_names()[runs[0].second]);
}

// Layer::Forward takes the loss from the top at once, so the top may not wait for a run's end.
TYPED_TEST(StepGraphsTest, TestALossEndsARun) {
  SKIP_WITHOUT_DEVICE();
  NetParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(kNet, &param));
  LayerParameter* down = param.mutable_layer(9);
  ASSERT_EQ("down", down->name());
  down->add_top("penalised");
  down->add_loss_weight(0);
  down->add_loss_weight(0.1);
  const Net<typename TypeParam::Dtype> net(param);
  const auto runs = RunsOfOurLayers(net);
  ASSERT_EQ(1, runs.size());
  EXPECT_EQ("bn3", net.layer_names()[runs[0].second]);
}

// On the CPU the option is ignored. On a GPU the same kernels get the same arguments, in the same order; all of ours
// are deterministic, and so is cuBLAS.
TYPED_TEST(StepGraphsTest, TestTrainingIsTheSame) {
  SKIP_WITHOUT_DEVICE();
  for (const string settings : {"", "iter_size: 2"}) {
    const auto plain = this->MakeSolver(settings);
    plain->Step(7);
    const auto graphs = this->MakeSolver(settings + " cuda_graphs: true");  // sets the seed of the data anew
    graphs->Step(7);
    const auto& expected = plain->net()->params();
    for (size_t i = 0; i < expected.size(); ++i) {
      caffe_layers_test::expect_close(graphs->net()->params()[i]->cpu_data(), expected[i]->cpu_data(),
                                      expected[i]->count(), 0, settings + " blob " + std::to_string(i));
    }
    // Outside of Step, layers are launched as ever.
    plain->net()->ForwardFromTo(0, 3);
    graphs->net()->ForwardFromTo(0, 3);
  }
}

}  // namespace caffe
