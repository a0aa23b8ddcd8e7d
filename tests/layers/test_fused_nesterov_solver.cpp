// FusedNesterov against Caffe's Nesterov: the same weights and momentum from the same seed, whatever the settings, and
// from each other's snapshots.
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <memory>

#include "caffe_layers/fused_nesterov_solver.hpp"
#include "device_test.hpp"
#include "temporary_folder.hpp"

namespace caffe {

template <typename TypeParam>
class FusedNesterovSolverTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  // Batch norm's first three blobs have lr_mult 0. No bias comes before it: its gradient would be all rounding. The
  // first layer has more values than one thread block takes, and enough for several threads.
  static constexpr const char* kNet = R"(
    layer { name: "data" type: "DummyData" top: "x" top: "t" dummy_data_param {
      shape { dim: 6 dim: 200 } shape { dim: 6 dim: 3 } data_filler { type: "gaussian" } data_filler { type: "uniform" } } }
    layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "h"
      param { lr_mult: 2 decay_mult: 0.5 }
      inner_product_param { num_output: 400 bias_term: false weight_filler { type: "xavier" } } }
    layer { name: "bn" type: "FusedBatchNorm" bottom: "h" top: "n" fused_batch_norm_param { relu: true } }
    layer { name: "fixed" type: "InnerProduct" bottom: "n" top: "f" param { lr_mult: 0 } param { lr_mult: 0 }
      inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
    layer { name: "ip2" type: "InnerProduct" bottom: "f" top: "y" param { decay_mult: 1 } param { decay_mult: 0 }
      inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" })";

  shared_ptr<SGDSolver<Dtype>> MakeSolver(const string& type, const string& more) const {
    SolverParameter param;
    const string defaults =
        "base_lr: 0.05 lr_policy: 'fixed' momentum: 0.9 weight_decay: 0.01 random_seed: 1 max_iter: 100 ";
    CHECK(google::protobuf::TextFormat::ParseFromString(defaults, &param));
    CHECK(google::protobuf::TextFormat::MergeFromString(more, &param));
    CHECK(google::protobuf::TextFormat::ParseFromString(kNet, param.mutable_net_param()));
    param.set_type(type);
    param.set_solver_mode(Caffe::mode() == Caffe::GPU ? SolverParameter::GPU : SolverParameter::CPU);
    return shared_ptr<SGDSolver<Dtype>>(dynamic_cast<SGDSolver<Dtype>*>(SolverRegistry<Dtype>::CreateSolver(param)));
  }

  /// A solver after some steps. The random data depend on nothing else: the seed is set when a solver is made.
  shared_ptr<SGDSolver<Dtype>> Train(const string& type, const string& more, int steps, const string& from = "") const {
    const auto solver = MakeSolver(type, more);
    if (!from.empty()) solver->Restore(from.c_str());
    solver->Step(steps);
    return solver;
  }

  void ExpectSame(SGDSolver<Dtype>& stock, SGDSolver<Dtype>& ours, const string& what) const {
    const auto& expected = stock.net()->learnable_params();
    const auto& actual = ours.net()->learnable_params();
    ASSERT_EQ(expected.size(), actual.size());
    EXPECT_EQ(stock.iter(), ours.iter());
    // Batch norm makes more of the rounding; the stock solver on a GPU rounds momentum to float.
    const double tolerance = Caffe::mode() == Caffe::GPU ? 1e-3 : 2000 * std::numeric_limits<Dtype>::epsilon();
    for (size_t i = 0; i < expected.size(); ++i) {
      const string blob = what + ", blob " + std::to_string(i);
      caffe_layers_test::expect_close(actual[i]->cpu_data(), expected[i]->cpu_data(), expected[i]->count(), tolerance,
                                      blob);
      caffe_layers_test::expect_close(ours.history()[i]->cpu_data(), stock.history()[i]->cpu_data(),
                                      expected[i]->count(), tolerance, blob + " history");
    }
  }
};

TYPED_TEST_CASE(FusedNesterovSolverTest, TestDtypesAndDevices);

TYPED_TEST(FusedNesterovSolverTest, TestEqualsStock) {
  SKIP_WITHOUT_DEVICE();
  for (const string settings : {"", "iter_size: 3", "clip_gradients: 0.5", "regularization_type: 'L1'", "momentum: 0",
                                "lr_policy: 'multistep' gamma: 0.1 stepvalue: 3 stepvalue: 6", "weight_decay: 0"}) {
    const auto stock = this->Train("Nesterov", settings, 8), ours = this->Train("FusedNesterov", settings, 8);
    this->ExpectSame(*stock, *ours, settings);
  }
}

TYPED_TEST(FusedNesterovSolverTest, TestSnapshotsAreInterchangeable) {
  SKIP_WITHOUT_DEVICE();
  const caffe_layers_test::TemporaryFolder folder;
  for (const string format : {"BINARYPROTO", "HDF5"}) {
    for (const string writer : {"Nesterov", "FusedNesterov"}) {
      const string prefix = folder.path() + "/" + writer + format;
      this->Train(writer, "snapshot_format: " + format + " snapshot_prefix: '" + prefix + "'", 5)->Snapshot();
      const string state = prefix + "_iter_5.solverstate" + (format == "HDF5" ? ".h5" : "");
      const auto stock = this->Train("Nesterov", "", 4, state), ours = this->Train("FusedNesterov", "", 4, state);
      EXPECT_EQ(9, ours->iter());
      this->ExpectSame(*stock, *ours, "from " + writer + " in " + format);
    }
  }
}

// A blob that had momentum when it was fixed coasts to a halt, as with the stock solver.
TYPED_TEST(FusedNesterovSolverTest, TestMomentumOfFixedBlobs) {
  SKIP_WITHOUT_DEVICE();
  const caffe_layers_test::TemporaryFolder folder;
  const auto writer = this->MakeSolver("Nesterov", "snapshot_prefix: '" + folder.path() + "/all'");
  for (const auto& history : writer->history()) caffe_layers_test::fill_random(1, history.get());
  writer->Snapshot();
  const string state = folder.path() + "/all_iter_0.solverstate";
  const auto stock = this->Train("Nesterov", "", 3, state), ours = this->Train("FusedNesterov", "", 3, state);
  const auto fixed = [](SGDSolver<typename TypeParam::Dtype>& solver) {
    return solver.net()->layer_by_name("fixed")->blobs()[0]->cpu_data()[0];
  };
  EXPECT_NE(fixed(*writer), fixed(*ours));
  this->ExpectSame(*stock, *ours, "with momentum everywhere");
}

TYPED_TEST(FusedNesterovSolverTest, TestLeavesFixedBlobsAlone) {
  SKIP_WITHOUT_DEVICE();
  const auto solver = this->MakeSolver("FusedNesterov", "");
  Blob<typename TypeParam::Dtype>& fixed = *solver->net()->layer_by_name("fixed")->blobs()[0];
  const auto before = fixed.cpu_data()[0];
  solver->Step(3);
  EXPECT_EQ(before, fixed.cpu_data()[0]);
}

TYPED_TEST(FusedNesterovSolverTest, TestUnknownRegularization) {
  SKIP_WITHOUT_DEVICE();
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";  // CUDA does not work in a fork
  EXPECT_DEATH(this->MakeSolver("FusedNesterov", "regularization_type: 'L3'"), "regularization_type is .L3.");
}

}  // namespace caffe
