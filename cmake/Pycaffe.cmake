# pycaffe: the package `caffe` in <build>/caffe/python.
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module NumPy)
set(_boost_python python${Python_VERSION_MAJOR}${Python_VERSION_MINOR})
find_package(Boost 1.71 CONFIG REQUIRED COMPONENTS ${_boost_python})

Python_add_library(pycaffe MODULE ${CAFFE_SOURCE}/python/caffe/_caffe.cpp)
set_target_properties(pycaffe PROPERTIES OUTPUT_NAME _caffe LIBRARY_OUTPUT_DIRECTORY ${CAFFE_PYTHON_DIR}/caffe)
target_compile_options(pycaffe PRIVATE -w)
target_link_libraries(pycaffe PRIVATE caffe Boost::${_boost_python} Python::NumPy)

file(GLOB _python_files RELATIVE ${CAFFE_SOURCE}/python ${CAFFE_SOURCE}/python/caffe/*.py)
foreach(file IN LISTS _python_files)
  configure_file(${CAFFE_SOURCE}/python/${file} ${CAFFE_PYTHON_DIR}/${file} COPYONLY)
endforeach()
file(TOUCH ${CAFFE_PYTHON_DIR}/caffe/proto/__init__.py)
