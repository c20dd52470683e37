"""The fixtures that several integration tests share: a real libvirt host with a guest, a real ZooKeeper, a
real Ceph."""

from tests.integration.ceph_server import ceph
from tests.integration.libvirt_fixtures import guest_image, libvirt_host, own_libvirt_host
from tests.integration.zookeeper_server import cluster, own_zookeeper, zookeeper

__all__ = ["ceph", "cluster", "guest_image", "libvirt_host", "own_libvirt_host", "own_zookeeper", "zookeeper"]
