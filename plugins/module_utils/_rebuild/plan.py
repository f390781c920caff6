# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rebuild does: the configuration for kubeadm, the files, the nodes that are removed, and what stands in its way.

A pure function of what is known, private to this collection:

    source     what kube_rebuild_source returns of the snapshot
    machine    what kube_rebuild_machine returns of the machine; with `manifests` when kubeadm was asked what it would write
    options    those of the role cluster_rebuild; `drill`: whether all of it is removed again
    cluster    kubeadm's ClusterConfiguration of the snapshot, as it was parsed
"""

from __future__ import annotations

import copy
import ipaddress
import posixpath
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.isolation import address_like

_KUBERNETES_DIR = "/etc/kubernetes"
PKI_DIR = "/etc/kubernetes/pki"
DATA_DIR = "/var/lib/etcd"
_API_PORT, _PEER_PORT = 6443, 2380
# Without these there is no other cluster with the same identity.
_REQUIRED = ("ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub")
# What kubeadm signs for each machine (1.37.2: phases/certs/certlist.go).
SIGNED = (
    "apiserver",
    "apiserver-etcd-client",
    "apiserver-kubelet-client",
    "etcd/healthcheck-client",
    "etcd/peer",
    "etcd/server",
    "front-proxy-client",
)
_KUBECONFIGS = ("admin", "super-admin", "kubelet", "controller-manager", "scheduler")
# Flags whose values are about the machine, and not about the cluster.
_ADVERTISE = "advertise-address"
_OF_THE_MACHINE = (_ADVERTISE, "etcd-servers")
# Prefix of the flags of audit logs.
_AUDIT = "audit-"
# {component: where kubeadm's ClusterConfiguration has its settings}
_SECTIONS = {"kube-apiserver": "apiServer", "kube-controller-manager": "controllerManager", "kube-scheduler": "scheduler"}
# Of kubelet: it wins over the name in kubeadm's configuration.
_OVERRIDE = "hostname-override"
_ENCRYPTION = "encryption-configuration.yaml"
_HOSTED = "files/"
# What no bundle holds, and any machine may have.
_OF_THE_SYSTEM = ("/etc/localtime/", "/etc/ssl/certs/", "/run/", "/usr/share/", "/var/run/")


class Plan:
    """The attributes of it are what rebuild_plan returns."""

    def __init__(self, known):
        self.source, self.machine, self.options = known["source"], known["machine"], known["options"]
        self.cluster = merged(copy.deepcopy(known["cluster"]) if isinstance(known["cluster"], dict) else {}, self.options["cluster_configuration"])
        self.preview = self.machine.get("manifests") or {}
        self.refusals, self.warnings = [], []
        self.name = self.options["name"] or self.machine["hostname"]
        self.drill = bool(self.options.get("drill"))
        self.address = self._isolated() if self.drill else self.options["address"] or self.machine["address"]
        self.pki_dir = self.cluster.get("certificatesDir") or PKI_DIR
        self.data_dir = ((self.cluster.get("etcd") or {}).get("local") or {}).get("dataDir") or DATA_DIR
        self.port = self._port()
        self.version = self.options["kubernetes_version"] or str(self.cluster.get("kubernetesVersion") or "")
        self.former = self._former()
        if self.drill:
            self._leave_out()
        self._check_configuration()
        self.endpoint, self.server, self.changed = self._endpoint()
        self.files, self.missing = self._files()
        self.remove, self.stay = self._nodes()
        self._add_settings()

    def _refuse(self, problem, advice=""):
        self.refusals.append((problem, advice))

    def _port(self):
        flags = (self.source["manifests"].get("kube-apiserver") or {}).get("flags") or {}
        return int((flags.get("secure-port") or [_API_PORT])[-1])

    def _isolated(self):
        """The address in the network of a drill, of the family that the API server wants: that of the first range of Services."""
        return address_like(str((self.cluster.get("networking") or {}).get("serviceSubnet") or ""))

    def _leave_out(self):
        """Flags of the API server that a drill must not have."""
        # they would hold what is in Secrets, and stay on the machine
        self._without(lambda flag: flag.startswith(_AUDIT))
        # it would win over the address of the copy, and lead to a machine of the living cluster
        values = self._without(lambda flag: flag == _ADVERTISE)
        if values:
            self.warnings.append("extraArgs has --%s=%s, which a drill leaves out and a rebuild keeps" % (_ADVERTISE, ", ".join(values)))

    def _without(self, unwanted):
        """Leave those flags of the API server out of extraArgs; returns their values."""
        settings = self.cluster.get("apiServer") or {}
        values = [str(value) for flag, value in _flags(settings) if unwanted(str(flag))]
        if values:
            given = settings["extraArgs"]
            if isinstance(given, dict):
                kept = {flag: value for flag, value in given.items() if not unwanted(str(flag))}
            else:
                kept = [one for one in given if not unwanted(str(one.get("name")))]
            self.cluster["apiServer"] = dict(settings, extraArgs=kept)
        return values

    def _former(self):
        """The control plane nodes from before, each with all addresses that are known of it.

        kubeadm calls a member of etcd like its node, which says of a Node that is encrypted what it was, and of one that was deleted that it may live.
        """
        members = {member["name"]: [host_of(url.partition("://")[2]) for url in member["peer_urls"]] for member in self.source["members"]}
        nodes = [node for node in self.source["nodes"] if node["control_plane"] or (node["control_plane"] is None and node["name"] in members)]
        known = [node["name"] for node in self.source["nodes"]]
        nodes += [{"name": name, "addresses": [], "taints": None} for name in sorted(members) if name and name not in known]
        return [dict(node, addresses=list(dict.fromkeys(node["addresses"] + members.get(node["name"], [])))) for node in nodes]

    # ---- what stands in the way

    def _check_configuration(self):
        if self.cluster.get("kind") != "ClusterConfiguration":
            unread = "configmaps/kube-system/kubeadm-config" in self.source["unreadable"]
            self._refuse(
                "the snapshot has no ClusterConfiguration of kubeadm that can be read" + (": ConfigMaps are encrypted in it" if unread else ""),
                "Give it as kubeadm-config.yaml in the directory cluster_rebuild_files",
            )
        elif (self.cluster.get("etcd") or {}).get("external"):
            self._refuse("the cluster has its etcd on other hosts, and a rebuild makes one on the control plane", "Restore that etcd first")
        if self.source["foreign"]:
            self._refuse("%s is of another cluster than the snapshot" % " and ".join(self.source["foreign"]), "Give the files of the cluster of this snapshot")
        if not self.address:
            self._refuse("the machine has no default route, so it is not known at which address it is to serve", "Set cluster_rebuild_address")
        self._check_versions()
        self._check_etcd()

    def _check_versions(self):
        kubeadm, kubelet = self.machine["versions"]["kubeadm"], self.machine["versions"]["kubelet"]
        before, wanted = version_tuple(str(self.cluster.get("kubernetesVersion") or "")), version_tuple(self.version)
        absent = [name for name, version in (("kubeadm", kubeadm), ("kubelet", kubelet)) if not version]
        if absent:
            self._refuse("there is no %s on the machine" % " and no ".join(absent), "Install kubeadm and kubelet of %s" % (self.version or "its version"))
            return
        if not before or not wanted:
            return
        (admin_minor, let_minor), minor = (version_tuple(version)[1] for version in (kubeadm, kubelet)), wanted[1]
        if wanted[:2] < before[:2] or minor > before[1] + 1:
            self._refuse(
                "the cluster of the snapshot has Kubernetes %s, and data of it can be served by %d.%d or %d.%d, not by %s"
                % (self.cluster["kubernetesVersion"], before[0], before[1], before[0], before[1] + 1, self.version),
                "Set cluster_rebuild_kubernetes_version to one of these, or leave it out",
            )
        if not minor <= admin_minor <= minor + 1:
            self._refuse(
                "kubeadm %s cannot set up Kubernetes %s, only its own minor version and the one before" % (kubeadm, self.version),
                "Install kubeadm %d.%d" % wanted[:2] + self._newer(kubeadm, before),
            )
        elif let_minor > minor:
            self._refuse(
                "kubelet %s is newer than the API server would be (%s), which Kubernetes does not support" % (kubelet, self.version),
                "Install kubelet %d.%d" % wanted[:2] + self._newer(kubelet, before),
            )
        elif let_minor < minor - 3:
            self._refuse("kubelet %s is too old for Kubernetes %s" % (kubelet, self.version), "Install kubelet %d.%d" % wanted[:2])

    def _newer(self, program, before):
        """The other way out where the cluster may be upgraded on the way."""
        minor = version_tuple(program)[1]
        return ", or set cluster_rebuild_kubernetes_version=%s to upgrade the cluster with the rebuild" % program if minor == before[1] + 1 else ""

    def _check_etcd(self):
        theirs, ours = version_tuple(self.source["etcd_version"])[:2], version_tuple((self.preview.get("etcd") or {}).get("version", ""))[:2]
        if theirs and ours and ours < theirs:
            self._refuse(
                "the snapshot is of etcd %s, and an older one, %s, would not start on its data"
                % (self.source["etcd_version"], self.preview["etcd"]["version"]),
                "Set etcd.local.imageTag in cluster_rebuild_cluster_configuration, or install a newer kubeadm",
            )

    def check_machine(self, state):
        """state: what an unfinished rebuild wrote down."""
        if self.machine["busy"]:
            self._refuse(
                "%s on the machine, perhaps for another run of this playbook" % " and ".join(self.machine["busy"]), "Run this again when that has ended"
            )
        if state.get("drill") and not self.drill:
            self._refuse(
                "a drill of a rebuild was interrupted on this machine, and what it made is not removed",
                "Run k8s_dr.etcd.rebuild_drill on it, which removes that first",
            )
        elif self.drill and state.get("drill"):
            # only in check mode: otherwise it was removed before
            pass
        elif state:
            if self.drill or state != self.record:
                differs = ", ".join("%s %s" % (name, value) for name, value in sorted(state.items()) if value != self.record.get(name))
                self._refuse(
                    "another rebuild of this machine is unfinished (%s)" % differs,
                    "Run that one again, or clean the machine: kubeadm reset --force, and remove %s" % self.options["state_dir"],
                )
        elif self.machine["remains"]:
            self._refuse(
                "the machine is or was part of a cluster: %s" % "; ".join(self.machine["remains"][:6]),
                "If nothing on it is needed, clean it with `kubeadm reset --force` and empty %s and %s" % (self.pki_dir, self.data_dir),
            )
        for error in self.machine.get("preflight") or []:
            name, _end, words = error.partition("]: ")
            self._refuse(
                "kubeadm's preflight check %s fails: %s" % (name, words.strip()),
                "Solve that, or ignore it: -e '{\"cluster_rebuild_ignore_preflight_errors\": [\"%s\"]}'" % name,
            )
        if self.drill:
            self._check_drill()
        elif self.address and not self.machine["has_address"]:
            self._refuse("%s is no address of the machine" % self.address, "Set cluster_rebuild_address to one of its own")
        if self.endpoint and not self.machine["endpoint_addresses"]:
            self._refuse(
                "the machine does not find %s, the controlPlaneEndpoint of the cluster" % host_of(self.endpoint),
                "Have that name lead to %s, or set cluster_rebuild_endpoint to another one" % self.address,
            )

    def _check_drill(self):
        """What a drill would overwrite, or run by mistake."""
        if self.name in [node["name"] for node in self.source["nodes"]]:
            self._refuse(
                "%s is the name of a node in the snapshot, so kubelet would run the Pods that are bound to it" % self.name,
                "Set cluster_rebuild_name to another one",
            )
        registration = self.options["init_configuration"].get("nodeRegistration") or {}
        if any(flag == _OVERRIDE for flag, _value in _flags(registration, "kubeletExtraArgs")):
            self._refuse(
                "cluster_rebuild_init_configuration sets --%s of kubelet, which could be the name of a node in the snapshot" % _OVERRIDE,
                "Remove it, and set cluster_rebuild_name",
            )
        # the modules ask the API server at that address
        advertised = ((self.preview.get("kube-apiserver") or {}).get("flags") or {}).get(_ADVERTISE) or []
        if advertised != [self.address]:
            self._refuse(
                "the API server of the drill would have --%s=%s instead of %s, where a machine of the living cluster may be"
                % (_ADVERTISE, ", ".join(advertised), self.address),
                "Remove what sets that flag from cluster_rebuild_init_configuration and cluster_rebuild_cluster_configuration",
            )
        there = [path for path in self.hosted if path in self.machine.get("existing", ())]
        if there:
            self._refuse(
                "%s %s on the machine, and a drill would replace and then remove what is there" % (", ".join(there), "is" if len(there) == 1 else "are"),
                "Use a machine for drills without %s" % ("it" if len(there) == 1 else "them"),
            )

    # ---- where the API is

    def _endpoint(self):
        """(controlPlaneEndpoint or "", the URL of the API, whether it is another one than before)"""
        old = str(self.cluster.get("controlPlaneEndpoint") or "")
        # in a drill the old one leads to the cluster that lives
        new = _joined(self.address, self.port) if self.drill else self.options["endpoint"] or old
        host = host_of(new)
        own = [name for node in self.former for name in [node["name"], *node["addresses"]]]
        if not self.drill and not self.options["endpoint"] and old and host in own and host not in (self.name, self.address):
            # it led to one machine, which is gone
            new = _joined(self.address, _port(old) or self.port)
            self.warnings.append("controlPlaneEndpoint was %s, a machine that is gone, and becomes %s" % (old, new))
        url = "https://" + _joined(host_of(new) or self.address, _port(new) or self.port)
        # where it was cannot be read, it is said once more
        return new, url, any(one.rstrip("/") != url for one in self.source["servers"] or [""])

    # ---- files

    def _files(self):
        """([{src, dest, mode}], paths that the manifests name and that are not among them)"""
        stored, pods = self.source["files"], self.source["manifests"]
        lacking = ["pki/" + name for name in _REQUIRED if "pki/" + name not in stored]
        if lacking:
            self._refuse(
                "the files that came with the snapshot lack %s, without which no machine and no token of the cluster would be of use" % ", ".join(lacking),
                "Use a bundle (etcd_snapshot_bundle), or give these files in the directory cluster_rebuild_files",
            )
        signed = {"pki/%s.%s" % (name, end) for name in SIGNED for end in ("crt", "key")}
        files = [
            {"src": name, "dest": posixpath.join(self.pki_dir, name[len("pki/") :]), "mode": "0600" if name.endswith(".key") else "0644"}
            for name in stored
            if name.startswith("pki/") and name not in signed
        ]
        files += [{"src": name, "dest": name[len(_HOSTED) - 1 :], "mode": "0600"} for name in stored if name.startswith(_HOSTED)]
        named = {path: there for pod in pods.values() for path, there in pod["named"].items()}
        encryption = (((pods.get("kube-apiserver") or {}).get("flags") or {}).get("encryption-provider-config") or [""])[-1]
        if _ENCRYPTION in stored and encryption:
            files.append({"src": _ENCRYPTION, "dest": named.get(encryption, encryption), "mode": "0600"})
        return files, self._missing(pods, set(named.values()), {one["dest"] for one in files})

    def _missing(self, pods, named, delivered):
        volumes = [volume for pod in pods.values() for volume in pod["volumes"]]
        made = {volume["hostPath"] for volume in volumes if volume["pathType"].endswith("OrCreate")}
        needed = named | {volume["hostPath"] for volume in volumes if volume["pathType"] in ("", "File", "Directory")}
        signed = tuple(self.pki_dir.rstrip("/") + "/" + name for name in SIGNED)
        return sorted(
            path
            for path in needed - made - delivered
            if not path.startswith(signed) and not any(one.startswith(path.rstrip("/") + "/") for one in delivered)
        )

    # ---- nodes

    def _nodes(self):
        """(names of the Nodes to remove, names of those that stay)"""
        wanted, names = self.options["remove_nodes"], [node["name"] for node in self.source["nodes"] if node["name"] != self.name]
        if wanted == "all":
            gone = names
        elif wanted == "control_plane":
            gone = [node["name"] for node in self.former if node["name"] in names]
        elif isinstance(wanted, str):
            self._refuse(
                "cluster_rebuild_remove_nodes is %s" % wanted,
                "Set it to control_plane, to all, or to a list: -e '{\"cluster_rebuild_remove_nodes\": [\"NAME\"]}'",
            )
            gone = []
        else:
            unknown = [name for name in wanted if name not in names]
            if unknown:
                self._refuse(
                    "cluster_rebuild_remove_nodes names %s, and the other nodes in the snapshot are: %s" % (", ".join(unknown), ", ".join(names) or "none"),
                    "Name some of these",
                )
            gone = [name for name in names if name in wanted]
        return gone, [name for name in names if name not in gone]

    # ---- what kubeadm is told

    def _add_settings(self):
        """Flags and volumes of the manifests from before that kubeadm would forget, as they are not in its ClusterConfiguration."""
        self.kept = []
        before, wanted = version_tuple(str(self.cluster.get("kubernetesVersion") or ""))[:2], version_tuple(self.version)[:2]
        if not self.preview:
            return
        for component, section in _SECTIONS.items():
            old, new = self.source["manifests"].get(component), self.preview.get(component)
            if not old or not new:
                continue
            flags = {
                flag: values
                for flag, values in sorted(old["flags"].items())
                if flag not in _OF_THE_MACHINE
                and not (self.drill and flag.startswith(_AUDIT))
                and new["flags"].get(flag) != values
                and not (flag in new["flags"] and before != wanted)
            }
            mounted = {volume["mountPath"] for volume in new["volumes"]}
            volumes = [volume for volume in old["volumes"] if volume["mountPath"] not in mounted]
            if not flags and not volumes:
                continue
            settings = self.cluster.get(section) or {}
            self.cluster[section] = settings
            _set_flags(settings, flags, str(self.cluster.get("apiVersion") or ""))
            settings["extraVolumes"] = (settings.get("extraVolumes") or []) + [
                {name: value for name, value in volume.items() if value not in ("", False)} for volume in volumes
            ]
            self.kept.append("%s: %s" % (component, ", ".join(["--" + flag for flag in flags] + [volume["mountPath"] for volume in volumes])))
        self._check_missing()
        self._check_addresses()
        if self.source["kms"]:
            self.warnings.append("the EncryptionConfiguration has a KMS, so its plugin has to run on the machine before the API server starts")

    def _check_addresses(self):
        """Settings that name an address of a machine that is gone."""
        gone = {address for node in self.former for address in node["addresses"]} - {self.address}
        parts = [self.cluster.get(section) or {} for section in _SECTIONS.values()] + [(self.cluster.get("etcd") or {}).get("local") or {}]
        for part in parts:
            for flag, value in _flags(part):
                for address in sorted(gone):
                    if re.search(r"(?<![0-9.:])%s(?![0-9])" % re.escape(address), str(value)):
                        self.warnings.append("extraArgs has --%s=%s, and %s is the address of a machine from before" % (flag, value, address))

    def _check_missing(self):
        there = [path for path in self.missing if path in self.machine.get("existing", ())]
        if self.drill:
            # another machine of a rebuild does not have what the one of the drill has
            there = [path for path in there if (path + "/").startswith(_OF_THE_SYSTEM)]
        missing = [path for path in self.missing if path not in there]
        if missing and self.drill:
            self._refuse(
                "the files that came with the snapshot lack %s, which the control plane needs, so a rebuild would refuse or need %s from elsewhere"
                % (", ".join(missing), "it" if len(missing) == 1 else "them"),
                "Have the bundle hold %s (etcd_snapshot_bundle), or drill with a directory that does (cluster_rebuild_files)"
                % ("it" if len(missing) == 1 else "them"),
            )
        elif missing:
            self._refuse(
                "the control plane needs %s, which %s neither stored with the snapshot nor on the machine"
                % (", ".join(missing), "is" if len(missing) == 1 else "are"),
                "Put %s there" % ("it" if len(missing) == 1 else "them"),
            )

    def documents(self):
        """The InitConfiguration and the ClusterConfiguration that kubeadm is given."""
        api = str(self.cluster.get("apiVersion") or "kubeadm.k8s.io/v1beta4")
        taints = next((node["taints"] for node in self.former if node["name"] == self.name), None)
        if taints is None:
            known = [node["taints"] for node in self.former if node["taints"] is not None]
            taints = known[0] if known else None
        registration = {"name": self.name}
        if taints is not None:
            registration["taints"] = taints
        init = {
            "apiVersion": api,
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": self.address, "bindPort": self.port},
            "nodeRegistration": registration,
        }
        cluster = dict(self.cluster, kubernetesVersion=self.version)
        if self.endpoint:
            cluster["controlPlaneEndpoint"] = self.endpoint
        init = merged(init, self.options["init_configuration"])
        if self.drill:
            # whatever was merged: another address or name is one of the living cluster
            init["localAPIEndpoint"] = {"advertiseAddress": self.address, "bindPort": self.port}
            init["nodeRegistration"] = dict(init["nodeRegistration"] or {}, name=self.name)
            # without a default route kubelet finds none by itself (1.37.2: pkg/kubelet/nodestatus/setters.go, NodeAddress)
            _set_flags(init["nodeRegistration"], {"node-ip": [self.address]}, api, "kubeletExtraArgs")
        return init, cluster

    @property
    def signed(self):
        """The files that kubeadm signs for this machine, and never replaces."""
        found = [posixpath.join(self.pki_dir, "%s.%s" % (name, end)) for name in SIGNED for end in ("crt", "key")]
        return found + ["%s/%s.conf" % (_KUBERNETES_DIR, name) for name in _KUBECONFIGS]

    @property
    def record(self):
        """What is written down on the machine while the rebuild is unfinished, so that a later run knows its own work."""
        found = {"snapshot": self.source["sha256"], "name": self.name, "address": self.address}
        if self.drill:
            socket = (self.options["init_configuration"].get("nodeRegistration") or {}).get("criSocket") or ""
            found.update(drill=True, files=self.hosted, pki_dir=self.pki_dir, data_dir=self.data_dir, cri_socket=socket)
        return found

    @property
    def hosted(self):
        """Where files go that are none of kubeadm's."""
        return [one["dest"] for one in self.files if not one["src"].startswith("pki/")]

    @property
    def paths(self):
        """Files that are looked for on the machine."""
        return self.missing + (self.hosted if self.drill else [])

    @property
    def peer_url(self):
        return "https://" + _joined(self.address, _PEER_PORT)

    def places(self):
        """[{member, host, port}] at which a machine from before would answer if it were not gone."""
        # a drill reaches none of them
        return [
            {"member": node["name"], "host": address, "port": port}
            for node in ([] if self.drill else self.former)
            for address in node["addresses"]
            if address != self.address
            for port in (self.port, _PEER_PORT)
        ]


def merged(base, more):
    """A dictionary with another one merged into it, at every depth; lists are replaced."""
    found = dict(base)
    for name, value in (more or {}).items():
        found[name] = merged(found[name], value) if isinstance(value, dict) and isinstance(found.get(name), dict) else value
    return found


def _flags(settings, name="extraArgs"):
    """[(flag, value)] of extraArgs."""
    given = settings.get(name) or []
    return list(given.items()) if isinstance(given, dict) else [(one.get("name"), one.get("value")) for one in given]


def _set_flags(settings, flags, api_version, name="extraArgs"):
    """extraArgs are a list from v1beta4 on, and a dictionary before."""
    given = settings.get(name)
    if isinstance(given, dict) or (given is None and re.search(r"/v1beta[123]$", api_version)):
        settings[name] = dict(given or {}, **{flag: values[-1] for flag, values in flags.items()})
        return
    kept = [one for one in given or [] if one.get("name") not in flags]
    settings[name] = kept + [{"name": flag, "value": value} for flag, values in flags.items() for value in values]


def host_of(endpoint):
    """Of HOST, HOST:PORT and [ADDRESS]:PORT."""
    if endpoint.startswith("["):
        return endpoint[1:].partition("]")[0]
    return endpoint if endpoint.count(":") > 1 else endpoint.partition(":")[0]


def _port(endpoint):
    found = re.search(r"(?:\]|^[^:]*):([0-9]+)$", endpoint)
    return int(found.group(1)) if found else 0


def _joined(host, port):
    try:
        host = "[%s]" % host if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        pass
    return "%s:%d" % (host, port)
