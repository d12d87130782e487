#!/bin/sh
# Installs the Debian packages that are missing, and only those.
# usage: tools/install_deps.sh build|test|all     (test includes build; all includes both)
set -eu
group=${1:-build}
case $group in
  build) groups='build' ;;
  test) groups='build|test' ;;
  all) groups='build|test|all' ;;
  *) echo "usage: $0 build|test|all" >&2; exit 2 ;;
esac
list=$(dirname "$0")/debian-packages.txt
wanted=$(awk -v groups="^($groups)\$" '!/^#/ && NF == 2 && $2 ~ groups { print $1 }' "$list")

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "no dpkg here: install what $list names by your system's own means" >&2
  exit 0
fi
missing=''
for package in $wanted; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  case $status in
    *not-installed* | '' | *config-files*) missing="$missing $package" ;;
    *installed*) ;;
    *) missing="$missing $package" ;;
  esac
done
if [ -z "$missing" ]; then
  exit 0
fi

sudo=''
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "these Debian packages are missing, and there is neither root nor sudo to install them:" >&2
    echo " $missing" >&2
    exit 1
  fi
  sudo='sudo'
fi
echo "installing missing Debian packages:$missing"
if ! $sudo apt-get update -qq; then
  echo "apt-get update failed; trying with the package lists that are here" >&2
fi
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
