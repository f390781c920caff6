# shellcheck shell=bash
# One sandbox: its name, its files, its nodes. Sourced after lib.sh.
# shellcheck disable=SC2034,SC2154

name=${SANDBOX_NAME:-dr}
[[ $name =~ ^[a-z][a-z0-9-]{0,15}$ ]] || die "SANDBOX_NAME '$name' should be a short lower-case word."
state=$cache/cluster/$name
checkout=$(cd "$here/../.." && pwd)
stem=$checkout/inventory/$name; [ "$name" != dr ] || stem=$checkout/inventory/sandbox
# The kind that made this sandbox. Where none did, another will do that is there: each lists and removes the clusters of all.
kind=
for k in "$state/kind" "$cache"/runtime/kind-*/kind "$cache"/kind/*/kind; do
  [ -n "$kind" ] || [ ! -x "$k" ] || kind=$(readlink -f "$k")
done

# The kind that makes nodes of this Kubernetes. 0.27.0 is Debian's, and knows none that is newer than 1.35.
get_kind() { # VERSION
  if [ -n "${KIND_VERSION:-}" ] || [[ $1 != 1.20.* ]]; then
    kind=$("$here/runtime" kind 9>&-)
  else
    kind=$cache/kind/0.27.0/kind
    if [ ! -x "$kind" ]; then
      local t=$cache/kind/0.27.0.partial
      say "fetching kind 0.27.0 from Debian"
      rm -rf "$t" "$t".*; mkdir -p "$t"
      unpack_debs "$t.debian" kind=0.27.0-
      mv "$t.debian/usr/bin/kind" "$t/kind"
      mv "$t" "${kind%/kind}"
      rm -rf "$t".*
    fi
  fi
}
# The node image that this kind was released with, if it is of that Kubernetes.
stock_image() { # VERSION
  local image
  image=$(grep -aoEm1 'kindest/node:v[0-9.]+@sha256:' "$kind" | head -n 1)
  [[ $image != kindest/node:v"${1%.*}".* ]] || echo "docker.io/${image%@*}"
}
# kind, without the lock, and never longer than its caller lives: a second one must not meet it.
run_kind() { setpriv --pdeathsig KILL "$kind" "$@" 9>&-; }

cluster_exists() {
  local all
  all=$(run_kind get clusters 2>"$cache/log/kind.log") || die "kind cannot say which clusters there are; see $cache/log/kind.log"
  [[ $'\n'$all$'\n' == *$'\n'"$name"$'\n'* ]]
}
control_planes() { run_kind get nodes --name "$name" 2>/dev/null | grep -- '-control-plane' | sort -V; }
kubectl() { engine exec -i "$name-control-plane" kubectl --kubeconfig /etc/kubernetes/admin.conf "$@"; }
node_address() { engine inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }

running() { [ "$(engine inspect -f '{{.State.Running}}' "$1" 2>/dev/null)" = true ]; }
note_addresses() {
  local node
  [ -s "$state/addresses" ] && return
  for node in $(run_kind get nodes --name "$name" 2>/dev/null); do echo "$node $(node_address "$node")"; done >"$state/addresses.partial"
  mv "$state/addresses.partial" "$state/addresses"
}
# A stopped node comes back at the address it had, for its etcd and its certificates know no other. Docker's does so
# by itself, and kind's own node image repairs what it must; Podman gives out a new one.
start_node() {
  local address try
  running "$1" && return
  address=$(awk -v node="$1" '$1 == node {print $2}' "$state/addresses")
  for try in 1 2 3 4 5; do
    # of a node that was just killed the engine may still be taking down the network
    [ "$try" = 1 ] || sleep 1
    if [ "$engine" = podman ] && [ -n "$address" ]; then
      engine network disconnect k8s-dr "$1" || :
      engine network connect --ip "$address" --alias "$1" k8s-dr "$1" || continue
    fi >/dev/null 2>&1
    ! engine start "$1" >/dev/null || return 0
  done
  die "$1 does not start."
}

# A data disk of limited size per node: what is mounted on the directory that the node has as /var/lib/etcd.
disk_of() { echo "$state/etcd-$1"; }
mount_disk() { # NUMBER   makes it where there is none; true when it had to be mounted
  local dir image=$state/disk-$1.ext4
  dir=$(disk_of "$1")
  ! mountpoint -q "$dir" || return 1
  mkdir -p "$dir"
  if [ -e "$image" ] || losetup --find >/dev/null 2>&1; then
    if [ ! -e "$image" ]; then
      need_commands mkfs.ext4:e2fsprogs
      truncate -s "${ETCD_DISK_MB}M" "$image.partial"
      # no blocks that only root may have: it should be possible to fill it
      quietly mkfs mkfs.ext4 -q -m 0 "$image.partial"
      mv "$image.partial" "$image"
    fi
    quietly mount mount -o loop,discard "$image" "$dir"
  else
    say "there are no loop devices; the data disk is memory"
    quietly mount mount -t tmpfs -o "size=${ETCD_DISK_MB}m,mode=700" tmpfs "$dir"
  fi
}
number_of() { local number=${1##*-control-plane}; echo "${number:-1}"; }
repair_disk() { # NODE   that is off
  local dir image
  dir=$(disk_of "$(number_of "$1")") image=$state/disk-$(number_of "$1").ext4
  [[ $(findmnt -no OPTIONS "$dir" 2>/dev/null) =~ (^|,)(abort|ro|emergency_ro)(,|$) ]] || return 0
  umount "$dir"
  e2fsck -p "$image" >"$cache/log/e2fsck.log" 2>&1 || [ $? = 1 ] || die "the data disk of $1 cannot be repaired; see $cache/log/e2fsck.log"
  mount_disk "$(number_of "$1")"
}
unmount_disks() {
  local dir
  for dir in "$state"/etcd-*; do
    ! mountpoint -q "$dir" || umount "$dir" || die "$dir is in use."
  done
}

remove_cluster() {
  choose_engine
  rm -f "$state/ready" "$stem.yml" "$stem.kubeconfig"
  run_kind delete cluster --name "$name" --kubeconfig "$state/kubeconfig" >/dev/null 2>&1 || die "kind could not remove the cluster '$name'."
  unmount_disks
  rm -rf "$state"
}
