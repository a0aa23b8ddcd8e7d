# caffe.proto with our messages merged in, and what protoc makes of it: target caffe_proto.
set(CAFFE_INCLUDE_DIR ${CAFFE_BUILD_DIR}/include)
set(CAFFE_PYTHON_DIR ${CAFFE_BUILD_DIR}/python)
set(_proto_dir ${CAFFE_INCLUDE_DIR}/caffe/proto)
set(_proto ${_proto_dir}/caffe.proto)
set(CAFFE_PROTO_SOURCE ${_proto_dir}/caffe.pb.cc)
file(MAKE_DIRECTORY ${_proto_dir} ${CAFFE_PYTHON_DIR}/caffe/proto)

set(_merge ${PROJECT_SOURCE_DIR}/cmake/merge_proto.py)
set(_caffe_proto ${CAFFE_SOURCE}/src/caffe/proto/caffe.proto)
set(_our_proto ${PROJECT_SOURCE_DIR}/caffe_layers/proto/caffe_layers.proto)
add_custom_command(
  OUTPUT ${_proto}
  COMMAND ${Python_EXECUTABLE} ${_merge} ${_caffe_proto} ${_our_proto} -o ${_proto}
  DEPENDS ${_merge} ${_caffe_proto} ${_our_proto}
  COMMENT "Merging caffe_layers.proto into caffe.proto" VERBATIM)
add_custom_command(
  OUTPUT ${CAFFE_PROTO_SOURCE} ${_proto_dir}/caffe.pb.h ${CAFFE_PYTHON_DIR}/caffe/proto/caffe_pb2.py
  COMMAND protobuf::protoc --proto_path=${_proto_dir} --cpp_out=${_proto_dir}
          --python_out=${CAFFE_PYTHON_DIR}/caffe/proto caffe.proto
  DEPENDS ${_proto} protobuf::protoc
  COMMENT "Generating caffe.pb.h and caffe_pb2.py" VERBATIM)
add_custom_target(caffe_proto DEPENDS ${CAFFE_PROTO_SOURCE} ${_proto_dir}/caffe.pb.h)
