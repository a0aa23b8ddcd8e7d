# pycaffe: the package `caffe` in <build>/caffe/python.
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module OPTIONAL_COMPONENTS NumPy)
set(_boost_python python${Python_VERSION_MAJOR}${Python_VERSION_MINOR})
find_package(Boost 1.71 CONFIG QUIET OPTIONAL_COMPONENTS ${_boost_python})
if(NOT TARGET Boost::${_boost_python})
  message(FATAL_ERROR "There is no libboost_${_boost_python} for the Python in use, ${Python_EXECUTABLE} "
    "${Python_VERSION}. Distributions build it for their own Python (3.11 on Debian 12, 3.12 on Ubuntu 24.04): use a "
    "Python of that version, as in `make PYTHON=/usr/bin/python3`; or configure with -DBUILD_PYCAFFE=OFF")
endif()
if(NOT Python_NumPy_FOUND)
  message(FATAL_ERROR "pycaffe needs numpy in ${Python_EXECUTABLE}: `${Python_EXECUTABLE} -m pip install numpy`, "
                      "or configure with -DBUILD_PYCAFFE=OFF")
endif()

Python_add_library(pycaffe MODULE cmake/compat/python/caffe/_caffe.cpp)
target_include_directories(pycaffe PRIVATE ${CAFFE_SOURCE})
set_target_properties(pycaffe PROPERTIES
  OUTPUT_NAME _caffe LIBRARY_OUTPUT_DIRECTORY ${CAFFE_PYTHON_DIR}/caffe INSTALL_RPATH $ORIGIN/lib)
target_compile_options(pycaffe PRIVATE -w)
target_link_libraries(pycaffe PRIVATE caffe Boost::${_boost_python} Python::NumPy)

file(GLOB _python_files RELATIVE ${CAFFE_SOURCE}/python ${CAFFE_SOURCE}/python/caffe/*.py)
foreach(file IN LISTS _python_files)
  configure_file(${CAFFE_SOURCE}/python/${file} ${CAFFE_PYTHON_DIR}/${file} COPYONLY)
endforeach()
file(TOUCH ${CAFFE_PYTHON_DIR}/caffe/proto/__init__.py)

# io.py calls functions that numpy and scikit-image have dropped. The copy in the build folder gets their new names.
file(READ ${CAFFE_SOURCE}/python/caffe/io.py _io)
foreach(change "arr.tostring()|arr.tobytes()" "np.fromstring(datum.data, dtype=np.uint8)|np.frombuffer(datum.data, dtype=np.uint8).copy()"
        "as_grey=|as_gray=")
  string(REPLACE "|" ";" change "${change}")
  list(GET change 0 old)
  list(GET change 1 new)
  string(FIND "${_io}" "${old}" _old_at)
  string(FIND "${_io}" "${new}" _new_at)
  if(_old_at EQUAL -1 AND _new_at EQUAL -1)
    message(WARNING "python/caffe/io.py has neither '${old}' nor '${new}': pycaffe's io may not work")
  endif()
  string(REPLACE "${old}" "${new}" _io "${_io}")
endforeach()
file(CONFIGURE OUTPUT ${CAFFE_PYTHON_DIR}/caffe/io.py CONTENT "${_io}" @ONLY)
