#!/bin/sh
# Installs what is missing of the packages listed in the file $1 (one a line, # starts a comment).
set -eu

fail() {
  echo "error: $*" >&2
  exit 1
}

packages=$(sed 's/#.*//' "$1")
if ! command -v dpkg-query >/dev/null; then
  fail "this system has no dpkg: install the counterparts of the packages in $1 yourself, then \`make SYSTEM_PACKAGES=no\`"
fi
missing=
for package in $packages; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed' ||
    missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing system packages:$missing"
sudo=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || fail "not root and no sudo; as root: apt-get install$missing"
  sudo=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq || fail "apt-get update failed: check the network and /etc/apt/sources.list"
# shellcheck disable=SC2086
$sudo apt-get install -y -q --no-install-recommends $missing ||
  fail "apt-get could not install$missing (its message is above); run again once that is mended"
