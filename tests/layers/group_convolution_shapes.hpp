#pragma once

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "caffe/proto/caffe.pb.h"

namespace caffe_layers_test {

/// One line of benchmarks/group_convolution_shapes.txt, which explains the format.
struct GroupConvolutionShape {
  std::string name;
  std::vector<int> bottom;  // N, C, H, W
  caffe::FusedGroupConvolutionParameter param;
};

inline void parse_permutation(const std::string& token, int channels, caffe::ChannelPermutationParameter* permutation) {
  const int number = std::stoi(token.substr(1));
  if (token[0] == 'i') permutation->set_interleave(number);
  for (int c = 0; token[0] == 'm' && c < channels; ++c) {
    permutation->add_index(c == channels - 1 ? c : number * c % (channels - 1));
  }
  permutation->set_inverse(token.back() == '\'');
}

/// `channels` enters as the stage's input channels and leaves as its output channels.
inline void parse_stage(const std::string& text, int* channels, caffe::FusedGroupConvolutionParameter* param) {
  std::istringstream tokens(text);
  std::string token;
  tokens >> token;
  if (token == "out") {
    tokens >> token;
    parse_permutation(token, *channels, param->mutable_output_permutation());
    return;
  }
  auto* stage = param->add_stage();
  stage->set_num_output(std::stoi(token));
  stage->set_bias_term(false);
  while (tokens >> token) {
    const int number = token == "b" ? 1 : std::stoi(token.substr(1));
    switch (token[0]) {
      case 'g':
        stage->set_group(number);
        break;
      case 'k':
        stage->set_kernel_size(number);
        break;
      case 's':
        stage->set_stride(number);
        break;
      case 'p':
        stage->set_pad(number);
        break;
      case 'd':
        stage->set_dilation(number);
        break;
      case 'b':
        stage->set_bias_term(true);
        break;
      case 'i':
      case 'm':
        parse_permutation(token, *channels, stage->mutable_permutation());
        break;
      default:
        throw std::invalid_argument("unknown token '" + token + "' in a shape: " + text);
    }
  }
  *channels = stage->num_output();
}

inline GroupConvolutionShape parse_shape(const std::string& line) {
  GroupConvolutionShape shape;
  std::istringstream fields(line);
  std::string field;
  std::getline(fields, field, '|');
  std::istringstream head(field);
  head >> shape.name >> field;
  std::istringstream dims(field);
  for (std::string dim; std::getline(dims, dim, 'x');) shape.bottom.push_back(std::stoi(dim));
  int channels = shape.bottom.at(1);
  while (std::getline(fields, field, '|')) parse_stage(field, &channels, &shape.param);
  return shape;
}

/// All shapes of the list, batches cut to at most `max_batch`.
inline std::vector<GroupConvolutionShape> group_convolution_shapes(int max_batch) {
  const char* moved = std::getenv("CAFFE_IGC_ROOT");  // set by the `run` of a bundle
  const std::string path = std::string(moved ? moved : PROJECT_ROOT) + "/benchmarks/group_convolution_shapes.txt";
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<GroupConvolutionShape> shapes;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    shapes.push_back(parse_shape(line));
    shapes.back().bottom[0] = std::min(shapes.back().bottom[0], max_batch);
  }
  return shapes;
}

}  // namespace caffe_layers_test
