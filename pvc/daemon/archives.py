"""Makes the configured archives: always a directory, and a pool of Ceph where there is one."""

from __future__ import annotations

from pvc.archive.base import Archive
from pvc.archive.directory import DirectoryArchive
from pvc.daemon.config import Config


def make_archives(config: Config) -> tuple[Archive, ...]:
    """The archives of this node, the nearest first. Nothing is opened yet, so nothing can fail."""
    directory = DirectoryArchive(config.archive_dir)
    if not config.archive.rados_pool:
        return (directory,)
    from pvc.archive.rados import RadosArchive, RadosPool

    pool = RadosPool(
        pool=config.archive.rados_pool,
        namespace=config.archive.rados_namespace,
        conf=config.archive.rados_conf,
        user=config.archive.rados_user,
    )
    return (directory, RadosArchive(pool))
