# shellcheck shell=bash
# One sandbox: its name, its files, its nodes. Sourced after lib.sh.
# shellcheck disable=SC2034,SC2154

name=${SANDBOX_NAME:-dr}
[[ $name =~ ^[a-z][a-z0-9-]{0,15}$ ]] || die "SANDBOX_NAME '$name' should be a short lower-case word."
state=$cache/cluster/$name
checkout=$(cd "$here/../.." && pwd)
stem=$checkout/inventory/$name; [ "$name" != dr ] || stem=$checkout/inventory/sandbox
kind_version=0.27.0
kind=$cache/kind/$kind_version/kind

# Debian's package where there is apt, else the Go module.
get_kind() {
  [ -x "$kind" ] && return
  local t=$cache/kind/$kind_version.partial
  say "fetching kind $kind_version"
  rm -rf "$t" "$t".*; mkdir -p "$t"
  if command -v apt-get >/dev/null; then
    unpack_debs "$t.debian" "kind=$kind_version-"
    mv "$t.debian/usr/bin/kind" "$t/kind"
  else
    GOBIN=$t quietly kind go install "sigs.k8s.io/kind@v$kind_version"
  fi
  mv "$t" "${kind%/kind}"
  rm -rf "$t".*
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

remove_cluster() {
  choose_engine
  rm -f "$state/ready" "$stem.yml" "$stem.kubeconfig"
  run_kind delete cluster --name "$name" --kubeconfig "$state/kubeconfig" >/dev/null 2>&1 || die "kind could not remove the cluster '$name'."
  rm -rf "$state"
}
