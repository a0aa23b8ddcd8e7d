#include "caffe_layers/step_graphs.hpp"

#include <set>

#ifndef CPU_ONLY
#include "caffe_layers/kernels/launch_graphs.hpp"
#endif

namespace caffe {

template <typename Dtype>
vector<std::pair<int, int>> RunsOfOurLayers(const Net<Dtype>& net) {
  static const std::set<string> ours = {"ChannelPermutation", "FusedBatchNorm", "FusedGroupConvolution"};
  std::set<const Blob<Dtype>*> fed;  // by data layers
  vector<std::pair<int, int>> runs;
  bool in_run = false;
  for (size_t i = 0; i < net.layers().size(); ++i) {
    const string type = net.layers()[i]->type();
    bool reads_data = false;
    for (const Blob<Dtype>* bottom : net.bottom_vecs()[i]) reads_data |= fed.count(bottom) > 0;
    const auto& tops = net.top_vecs()[i];
    if (net.bottom_vecs()[i].empty() || (type == "Split" && reads_data)) {
      fed.insert(tops.begin(), tops.end());
    } else if (type == "FusedGroupConvolution" && reads_data) {
      fed.insert(tops.begin() + 1, tops.end());  // bottom[0] again
    }
    const Layer<Dtype>& layer = *net.layers()[i];
    bool has_loss = false;
    for (size_t t = 0; t < tops.size(); ++t) has_loss |= layer.loss(t) != 0;
    const bool belongs = ours.count(type) > 0 && !reads_data && !has_loss;
    if (belongs && in_run) {
      runs.back().second = i;
    } else if (belongs) {
      runs.emplace_back(i, i);
    }
    in_run = belongs;
  }
  vector<std::pair<int, int>> longer;
  for (const auto& run : runs)
    if (run.first < run.second) longer.push_back(run);
  return longer;
}

template vector<std::pair<int, int>> RunsOfOurLayers(const Net<float>&);
template vector<std::pair<int, int>> RunsOfOurLayers(const Net<double>&);

#ifndef CPU_ONLY

template <typename Dtype>
struct StepGraphs<Dtype>::Run {
  int first, last;
  caffe_layers::LaunchGraphs forward, backward;
};

/// What the net calls before or after a layer.
template <typename Dtype>
class StepGraphs<Dtype>::Hook : public Net<Dtype>::Callback {
 public:
  explicit Hook(std::function<void(int)> at_layer) : at_layer_(std::move(at_layer)) {}

 protected:
  void run(int layer) override { at_layer_(layer); }

 private:
  const std::function<void(int)> at_layer_;
};

template <typename Dtype>
StepGraphs<Dtype>::StepGraphs(Solver<Dtype>* solver) : solver_(solver), net_(solver->net().get()) {
  for (const auto& range : RunsOfOurLayers(*net_)) {
    runs_.emplace_back(new Run{range.first, range.second, {}, {}});
    LOG(INFO) << "CUDA graphs: layers '" << net_->layer_names()[range.first] << "' to '"
              << net_->layer_names()[range.second] << "'";
  }
  const auto add = [this](void (Net<Dtype>::*place)(typename Net<Dtype>::Callback*),
                          std::function<void(Run*, int)> at_layer) {
    hooks_.push_back(MakeHook(std::move(at_layer)));
    (net_->*place)(hooks_.back().get());
  };
  add(&Net<Dtype>::add_before_forward, [](Run* run, int layer) {
    if (layer == run->first) run->forward.begin();
  });
  add(&Net<Dtype>::add_after_forward, [](Run* run, int layer) {
    if (layer == run->last) CUDA_CHECK(run->forward.end());
  });
  add(&Net<Dtype>::add_before_backward, [](Run* run, int layer) {
    if (layer == run->last) run->backward.begin();
  });
  add(&Net<Dtype>::add_after_backward, [](Run* run, int layer) {
    if (layer == run->first) CUDA_CHECK(run->backward.end());
  });
  solver->add_callback(this);
}

template <typename Dtype>
StepGraphs<Dtype>::~StepGraphs() = default;

template <typename Dtype>
std::unique_ptr<typename StepGraphs<Dtype>::Hook> StepGraphs<Dtype>::MakeHook(std::function<void(Run*, int)> at_layer) {
  return std::make_unique<Hook>([this, at_layer](int layer) {
    if (!active_) return;
    for (const auto& run : runs_) at_layer(run.get(), layer);
  });
}

template <typename Dtype>
void StepGraphs<Dtype>::on_start() {
  const bool alone = net_->before_forward().size() == 1 && net_->after_forward().size() == 1 &&
                     net_->before_backward().size() == 1 && net_->after_backward().size() == 1;
  active_ = alone && !solver_->param().debug_info() && Caffe::mode() == Caffe::GPU;
}

template <typename Dtype>
void StepGraphs<Dtype>::on_gradients_ready() {
  active_ = false;
}

INSTANTIATE_CLASS(StepGraphs);

#endif

}  // namespace caffe
