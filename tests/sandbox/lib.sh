# shellcheck shell=bash
# What the sandbox's scripts share: where things are kept, how they speak, and Debian's packages.
# Everything is made in a .partial beside its place and renamed, so that whatever exists is whole.

# shellcheck disable=SC2034
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${K8S_DR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/k8s-dr-etcd}
# shellcheck disable=SC2034
arch=$(dpkg --print-architecture 2>/dev/null || echo amd64)
PATH=$PATH:/usr/sbin:/sbin
umask 022
mkdir -p "$cache/log"

say() { printf '[%3d s] %s\n' "$SECONDS" "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Runs a command with its output in a file, of which the end is shown only when it fails.
quietly() {
  local log=$cache/log/$1.log; shift
  mkdir -p "$cache/log"
  "$@" >"$log" 2>&1 </dev/null && return
  tail -n 25 "$log" >&2
  die "this failed: $*; all of its output is in $log"
}

# One process at a time per thing. The lock is descriptor 9. Build steps inherit it: when their parent is killed, the
# next one waits until they have ended too. What lives on (a container's monitor) must be started without it.
locked() {
  mkdir -p "$cache/lock"
  exec 9>"$cache/lock/$1"
  flock -n 9 || { say "waiting for another process that is busy with $1"; flock 9; }
}

need_space() { # GIGABYTES DIRECTORY
  local free
  free=$(df --output=avail -BG "$2" | tr -dc '0-9')
  [ "$free" -ge "$1" ] || die "$2 has $free GB free; this needs $1 GB the first time."
}

# The machine's own apt, which only waits for others that install, not for others that read the lists.
apt_get() {
  mkdir -p "$cache/lock"
  flock "$cache/lock/apt" apt-get "$@"
}

need_commands() { # COMMAND-OR-FILE[:PACKAGE]...   installs what is missing from Debian
  local c missing=()
  for c; do [ -e "${c%%:*}" ] || command -v "${c%%:*}" >/dev/null || missing+=("${c#*:}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "please install ${missing[*]}; only root on Debian can have it installed."
  fi
  say "installing ${missing[*]} from Debian"
  export DEBIAN_FRONTEND=noninteractive
  apt_get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 9>&- && return
  quietly apt-update apt_get update
  quietly apt-install apt_get install -y --no-install-recommends "${missing[@]}" 9>&-
}

# The mirror that apt itself is set up with.
debian_mirror() {
  local m
  # shellcheck disable=SC2016
  set -- apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian'
  m=$("$@" 2>/dev/null | awk 'NR == 1')
  [ -n "$m" ] || { quietly apt-update apt_get update; m=$("$@" | awk 'NR == 1'); }
  [ -n "$m" ] || die "apt is not set up with a Debian mirror."
  echo "${m%/}"
}

# apt with sources and lists of our own: several releases side by side, signatures and checksums verified by apt,
# nothing of the machine's own apt is touched.
private_apt() {
  local tool=$1 d=$cache/apt; shift
  "$tool" -o Dir::Etc::sourcelist="$d/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null \
    -o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists="$d/lists" -o Dir::Cache="$d/cache" \
    -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin -o APT::Sandbox::User=root -o APT::Default-Release= "$@"
}
update_private_apt() (
  d=$cache/apt
  command -v apt-get >/dev/null || die "this needs Debian's packages, and there is no apt here."
  m=$(debian_mirror)
  mkdir -p "$d/lists/partial" "$d/cache/archives/partial"
  exec 9>"$d/lock"; flock 9
  for suite in bookworm trixie sid; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $m $suite main"
  done >"$d/sources.partial"
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $m bookworm main" >>"$d/sources.partial"
  mv "$d/sources.partial" "$d/sources.list"
  say "reading the package lists of Debian bookworm, trixie and sid"
  private_apt apt-get update >"$d/update.log" 2>&1 || say "not all of them could be read; see $d/update.log"
)

# The newest version of a package that starts so and that some Debian release holds: deb_version etcd-server 3.5.16-
deb_version() { private_apt apt-cache madison "$1" | awk -v p="$2" '!n && index($3, p) == 1 {print $3; n = 1}'; }

# Unpacks packages, without installing them: unpack_debs DIRECTORY NAME=VERSION-PREFIX...
unpack_debs() {
  local dir=$1 p v fresh=; shift
  [ -s "$cache/apt/sources.list" ] || { update_private_apt; fresh=1; }
  for p; do
    v=$(deb_version "${p%%=*}" "${p#*=}")
    if [ -z "$v" ] && [ -z "$fresh" ]; then
      update_private_apt; fresh=1; v=$(deb_version "${p%%=*}" "${p#*=}")
    fi
    [ -n "$v" ] || die "no Debian release on the mirror holds ${p%%=*} ${p#*=}."
    mkdir -p "$dir.debs"
    (cd "$dir.debs" && quietly "download-${p%%=*}" private_apt apt-get download "${p%%=*}=$v")
  done
  mkdir -p "$dir"
  for p in "$dir.debs"/*.deb; do dpkg-deb -x "$p" "$dir"; done
  rm -rf "$dir.debs"
}

# The Kubernetes that a short version stands for: the newest patch that can be had as a Go module. 1.20.2 is the one that Debian has.
kubernetes_version() {
  case $1 in
    1.20) echo 1.20.2;; 1.34) echo 1.34.4;; 1.35) echo 1.35.4;; 1.36) echo 1.36.3;; 1.37) echo 1.37.2;;
    1.20.2) echo "$1";;
    *) [[ $1 =~ ^1\.[0-9]+\.[0-9]+$ && $1 != 1.20.* ]] || die "'$1' is no version of Kubernetes; say 1.20, 1.34, 1.35, 1.36, 1.37 or three numbers."
      echo "$1";;
  esac
}
kubernetes_programs=(kubeadm kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl)
kubernetes_dir() { echo "$cache/kubernetes/v$1"; }

# The etcd that a short version stands for.
etcd_version() {
  case $1 in
    3.4) echo 3.4.23;; 3.5) echo 3.5.35;; 3.6) echo 3.6.16;; 3.7) echo 3.7.3;;
    3.*.*[0-9]) echo "$1";;
    *) die "'$1' is no version of etcd; say 3.4, 3.5, 3.6, 3.7 or three numbers.";;
  esac
}
# The etcd for a Kubernetes: that of its own kubeadm, as far as the patch. 1.20 gets Debian's newest, so that it needs nothing but Debian.
etcd_for() {
  case $1 in
    1.20.*) echo 3.5.16;;
    1.3[123].*) etcd_version 3.5;;
    1.3[456].*) etcd_version 3.6;;
    *) etcd_version 3.7;;
  esac
}

# What a node of a current Kubernetes needs beside it. All of its versions get the same.
runtime_programs=(containerd containerd-shim-runc-v2 ctr runc coredns crictl)
runtime_path() { # PROGRAM
  local of=$1 version
  case $1 in
    containerd | containerd-shim-runc-v2 | ctr) of=containerd version=2.4.2;;
    runc) version=1.5.3;;
    coredns) version=1.14.6;;
    crictl) version=1.37.0;;
    kind) version=${KIND_VERSION:-0.33.0};;
    *) die "there is no recipe for '$1'.";;
  esac
  echo "$cache/runtime/$of-v$version/$1"
}

# Is all there already that nodes of this Kubernetes are made from?
programs_are_here() { # VERSION
  local p dir
  dir=$(kubernetes_dir "$1")
  for p in "${kubernetes_programs[@]}"; do [ -x "$dir/$p" ] || return; done
  [[ $1 != 1.20.* ]] || return 0
  for p in "${runtime_programs[@]}"; do [ -x "$(runtime_path "$p")" ] || return; done
}

# Puts a Go compiler of at least this version on PATH, from Debian if the machine has none: with_go 1.26 sid
with_go() {
  local want=$1 dir=$cache/go/$1
  if [ "$2" = any ] && command -v go >/dev/null &&
     printf '%s\n' "$want" "$(go env GOVERSION | sed 's/^go//')" | sort -CV; then return; fi
  (
    mkdir -p "$cache/go"
    exec 9>"$cache/go/lock"; flock 9
    [ ! -d "$dir" ] || exit 0
    say "unpacking Go $want from Debian"
    rm -rf "$dir.partial" "$dir.partial.debs"
    unpack_debs "$dir.partial" "golang-$want-go=$want" "golang-$want-src=$want"
    mv "$dir.partial" "$dir"
  )
  export GOROOT=$dir/usr/lib/go-$want PATH=$dir/usr/lib/go-$want/bin:$PATH
}

# All that comes out of Go modules is built the same way, and so shares what was fetched and compiled. What was compiled once is
# taken from there, which is how a build that was interrupted goes on.
go_environment() {
  with_go 1.26 any
  export GOPATH=$cache/go-path GOCACHE=$cache/go-build GOFLAGS='-mod=mod -modcacherw -buildvcs=false -trimpath' GOWORK=off CGO_ENABLED=0
}
# Does the Go module proxy answer? It is asked for a list, since anything else may be here already.
modules_answer() { (go_environment && cd / && timeout 60 go list -m -versions k8s.io/kubernetes) >"$cache/log/modules.log" 2>&1 </dev/null 9>&-; }

# Chooses the container engine that works here, and sets $engine.
choose_engine() {
  engine=${KIND_EXPERIMENTAL_PROVIDER:-}
  if [ -z "$engine" ]; then
    engine=podman
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then engine=docker; fi
  fi
  export KIND_EXPERIMENTAL_PROVIDER=$engine
  [ "$engine" = podman ] || return 0
  [ "$(id -u)" = 0 ] || die "the nodes need Podman as root; please run this as root."
  # runc: crun fails on cgroups v1; dnsname: nodes find each other and the load balancer by name
  command -v podman >/dev/null ||
    need_commands podman runc iptables dnsmasq:golang-github-containernetworking-plugin-dnsname
  export KIND_EXPERIMENTAL_PODMAN_NETWORK=k8s-dr
  # Podman raises resource limits by default. Where that is forbidden, no container starts, unless it is told not to;
  # a file of the machine's own that says so wins.
  if ! prlimit --nofile=1048576:1048576 --nproc=1048576:1048576 true 2>/dev/null &&
     ! grep -qs '^ *default_ulimits' /etc/containers/containers.conf; then
    printf '[containers]\ndefault_ulimits = []\n[engine]\nruntime = "runc"\n' >"$cache/containers.conf"
    export CONTAINERS_CONF=$cache/containers.conf
  fi
}
# The engine, without the lock: a container's monitor outlives us.
engine() { "$engine" "$@" 9>&-; }
