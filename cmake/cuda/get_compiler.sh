#!/bin/sh
# get_compiler.sh VERSION FOLDER PYTHON: prints the path of an nvcc of CUDA VERSION (12 or 13). The machine's own, if there
# is one ($CUDACXX, the PATH, /usr/local/cuda*); else a toolkit made in FOLDER of the nvidia-* wheels. CUDA 12's wheels lack
# nvcc: it comes from Debian 13's package nvidia-cuda-toolkit (non-free), unpacked without being installed.
set -eu
version=$1 folder=$2 python=$3
here=$(dirname "$0")

fail() {
  echo "error: $*" >&2
  exit 1
}

for nvcc in "${CUDACXX:-}" "$(command -v nvcc || true)" /usr/local/cuda*/bin/nvcc; do
  if [ -x "$nvcc" ] && "$nvcc" --version | grep -q "release $version\."; then
    echo "$nvcc"
    exit 0
  fi
done

echo "no nvcc $version on this machine (CUDACXX, PATH, /usr/local/cuda*): making a toolkit in $folder" >&2
rm -rf "$folder"
mkdir -p "$folder/toolkit/bin"
folder=$(cd "$folder" && pwd)
toolkit=$folder/toolkit
"$python" -m pip install --quiet --no-deps --target "$folder/wheels" -r "$here/compiler-$version.txt" >&2
for wheel in "$folder"/wheels/nvidia/*/; do
  cp -al "$wheel/." "$toolkit"
done
ln -s lib "$toolkit/lib64"
for library in "$toolkit"/lib/lib*.so.*; do
  ln -sf "$(basename "$library")" "${library%.so.*}.so"
done

# The package nvidia-cuda-toolkit of Debian 13 from the mirror that this machine's own packages come from.
unpack_debian_nvcc() {
  command -v apt-get >/dev/null || fail "no apt-get here to fetch nvcc 12 with: install CUDA 12 and set CUDACXX=/path/to/nvcc"
  apt=$folder/apt
  mkdir -p "$apt/lists/partial" "$apt/archives/partial"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | head -1)
  key=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -n "$mirror" ] && [ -e "$key" ] || fail "this is no Debian: install CUDA 12 and set CUDACXX=/path/to/nvcc"
  echo "deb [signed-by=$key] $mirror trixie non-free" >"$apt/sources.list"
  cat >"$apt/apt.conf" <<EOF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt";
APT::Sandbox::User "$(id -un)";
EOF
  export APT_CONFIG="$apt/apt.conf"
  apt-get update -qq >&2 || fail "the package list of Debian 13 could not be fetched: check the network"
  (cd "$apt" && apt-get download -qq nvidia-cuda-toolkit >&2) || fail "nvidia-cuda-toolkit could not be fetched"
  dpkg -x "$apt"/nvidia-cuda-toolkit_*.deb "$apt/root"
}

if [ "$version" = 12 ]; then
  unpack_debian_nvcc
  debian=$apt/root/usr
  for program in cudafe++ fatbinary nvlink bin2c; do
    cp "$debian/bin/$program" "$toolkit/bin"
  done
  mkdir -p "$toolkit/nvvm/bin"
  cp -r "$debian/lib/nvidia-cuda-toolkit/bin/nvcc" "$debian/lib/nvidia-cuda-toolkit/bin/crt" "$toolkit/bin"
  cp "$debian/lib/nvidia-cuda-toolkit/bin/cicc" "$toolkit/nvvm/bin"
  # As in NVIDIA's own packages: everything beside nvcc.
  cat >"$toolkit/bin/nvcc.profile" <<'EOF'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib"
EOF
  # nvcc asks the linker for both. The wheels have neither, and nothing here uses them.
  ar rc "$toolkit/lib/libcudadevrt.a"
  echo 'INPUT(libcudart.so)' >"$toolkit/lib/libcudart_static.a"
  rm -rf "$apt"
fi
"$toolkit/bin/nvcc" --version | grep -q "release $version\." || fail "$toolkit/bin/nvcc does not run"
echo "$toolkit/bin/nvcc"
