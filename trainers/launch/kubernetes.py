"""Writes a run as a Kubernetes Job for `kubectl apply -f -`. Submits nothing, and says so: the cluster is yours."""

from trainers.launch import manifests, preflight, yamltext
from trainers.launch.environment import Launcher as Name
from trainers.launch.launcher import Order, Started
from trainers.launch.site import KubernetesSite


class Kubernetes:
    """`site` names the namespace and what its pods may use."""

    name: Name = "kubernetes"

    def __init__(self, site: KubernetesSite) -> None:
        self._site = site

    def start(self, order: Order) -> Started:
        preflight.check_remote(order.spec, store=order.store, on=self.name)
        manifest = manifests.job(order.spec, self._site, run_id=order.run_id, store=order.store)
        return Started(
            run_id=order.run_id,
            job=str(manifest["metadata"]["name"]),
            is_submitted=False,
            manifest=yamltext.document(manifest),
            notes=("nothing was submitted; pipe this into: kubectl apply -f -", *manifests.notes(order.spec)),
        )
