#!/bin/sh
# check.sh BUNDLE CUDA SUITE: tries the bundle on the CPU in a bare Debian root (SUITE: bookworm or trixie) that has Python
# and CUDA's wheels in a virtual environment, and none of Caffe's libraries. As root; the roots are kept in build/roots.
set -eu
bundle=$1 cuda=$2 suite=$3
here=$(dirname "$0")
python=build/cuda$cuda/venv/bin/python
root=build/roots/$suite

fail() {
  echo "error: $*" >&2
  exit 1
}

step() {
  echo "== $suite: $*"
}

[ "$(id -u)" -eq 0 ] || fail "chroot needs root"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
if [ ! -e "$root/.complete" ]; then
  step "making a bare root in $root"
  mkdir -p build/roots
  debootstrap --variant=minbase --include=python3,python3-venv "$suite" "$root" >build/roots/debootstrap.log ||
    fail "debootstrap failed: build/roots/debootstrap.log"
  chroot "$root" python3 -m venv --without-pip /env
  touch "$root/.complete"
fi
version=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
packages=$root/env/lib/python$version/site-packages
if [ ! -e "$packages/.cuda$cuda" ]; then
  step "CUDA $cuda's wheels, and what pycaffe imports"
  rm -rf "$packages/nvidia"
  "$python" -m pip install --quiet --no-deps --upgrade --target "$packages" -r "$here/../cuda/libraries-$cuda.txt" \
    "$(grep '^nvidia-cuda-runtime' "$here/../cuda/compiler-$cuda.txt")"
  "$python" -m pip install --quiet --upgrade --target "$packages" --python-version "$version" --only-binary=:all: \
    numpy protobuf six scikit-image
  touch "$packages/.cuda$cuda"
fi

step "data and a net to train"
rm -rf "$root/bundle" "$root/work"
cp -r "$bundle" "$root/bundle"
mkdir "$root/work"
project=$PWD
(
  cd "$root/work"
  "$project/$python" - <<'EOF'
import cv2, numpy, pathlib
random = numpy.random.default_rng(1)
for number in range(128):
    folder = pathlib.Path("pictures", ("train", "test")[number % 2], ("dark", "light")[number // 64])
    folder.mkdir(parents=True, exist_ok=True)
    picture = random.integers(0, 128, (32, 32, 3)) + 128 * (number // 64)
    cv2.imwrite(str(folder / f"{number}.png"), picture.astype(numpy.uint8))
EOF
  "$project/$python" "$project/data_prep/image_folder.py" --source pictures --out data --name tiny --encoding jpeg
  for engine in fused stock; do
    "$project/$python" "$project/prototxt_gen/make_net.py" --arch igcv2 --width 64 --depth 8 --dataset data \
      --epochs 10 --engine $engine --out $engine
    sed -i "s|\"[^\"]*$root/work/|\"/work/|" $engine/*.prototxt
  done
) >"$root/work/prepare.log" 2>&1 || { tail -20 "$root/work/prepare.log" && fail "no data or net"; }

# In the root, with nothing of this machine's environment.
inside() {
  chroot "$root" env -i HOME=/root PATH=/env/bin:/usr/bin:/bin LANG=C.UTF-8 sh -euc "cd /work; $1"
}

chroot "$root" mount -t proc proc /proc 2>/dev/null || true
trap 'umount "$root/proc" 2>/dev/null || true' EXIT
for library in libboost_thread libglog libprotobuf libopenblas libopencv_core; do
  if [ -n "$(find "$root/usr/lib" -name "$library.so*")" ]; then fail "$root is not bare: it has $library"; fi
done
step "run caffe --version"
inside '/bundle/run caffe --version'
for engine in fused stock; do
  step "run caffe train, on the CPU, $engine layers"
  inside "/bundle/run caffe train --solver=$engine/solver.prototxt >$engine.log 2>&1 || { tail -20 $engine.log; exit 1; }
    grep -E 'Iteration (1|10), loss|Optimization Done' $engine.log | cut -d']' -f2-"
done
step "run caffe_layers_test"
inside '/bundle/run caffe_layers_test --gtest_filter=-*OnHost* >tests.log 2>&1 || { tail -40 tests.log; exit 1; }
  grep -E "SKIPPED|PASSED|FAILED" tests.log'
step "run python"
if [ "$version" = "$(cat "$bundle/python-version.txt")" ]; then
  inside '/bundle/run python -c "import caffe; print(len(caffe.Net(\"fused/train_val.prototxt\", caffe.TEST).blobs), \"blobs\")" 2>&1 |
    tail -1'
else
  inside '/bundle/run python -c "from caffe.proto import caffe_pb2; print(caffe_pb2.LayerParameter.DESCRIPTOR.name)"'
fi
echo "the bundle works on a bare $suite (CPU side)"
