// Caffe's io.cpp for protobuf 3.18 and later: SetTotalBytesLimit lost its second argument.
#include <google/protobuf/io/coded_stream.h>

#define SetTotalBytesLimit(limit, ...) SetTotalBytesLimit(limit)
#include "src/caffe/util/io.cpp"
