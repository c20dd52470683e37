"""Every metric there is: the one list that the page, its reference, the dashboard's check and the tests go by."""

from __future__ import annotations

from pvc.gateway.metric_page import Family, Kind


def _gauge(name: str, help_text: str, *labels: str) -> Family:
    return Family(name=f"pvc_{name}", kind=Kind.GAUGE, help=help_text, labels=labels)


def _counter(name: str, help_text: str, *labels: str) -> Family:
    return Family(name=f"pvc_{name}_total", kind=Kind.COUNTER, help=help_text, labels=labels)


def _histogram(name: str, help_text: str, *labels: str) -> Family:
    return Family(name=f"pvc_{name}_seconds", kind=Kind.HISTOGRAM, help=help_text, labels=labels)


BUILD = _gauge("build_info", "The version of PVC on the node that answers.", "node", "version")

# The cluster, from the fold: the same at each gateway.
CLUSTER = _gauge("cluster_info", "The cluster's name and id, and its primary.", "cluster", "id", "primary")
CLUSTER_HEALTH = _gauge("cluster_health", "1 for what the cluster's health is, 0 for what it is not.", "health")
CLUSTER_REASONS = _gauge("cluster_health_reasons", "Reasons why the health is not ok, by code.", "code", "health")
CLUSTER_FAULTS = _gauge("cluster_faults", "Faults, by code.", "code", "acknowledged")
CLUSTER_MAINTENANCE = _gauge("cluster_maintenance", "1 while the cluster is in maintenance.")
CLUSTER_EPOCH = _gauge("cluster_primary_epoch", "Number of the present primary's term; each election adds one.")
CLUSTER_LEVEL = _gauge("cluster_feature_level", "The feature level that records may be of.")
CLUSTER_NODES = _gauge("cluster_nodes", "Nodes, by state.", "state")

# Nodes.
NODE_READY = _gauge("node_ready", "1 where VMs may be placed on the node and started.", "node")
NODE_STATE = _gauge("node_state", "1 for the state that the node is in.", "node", "state")
NODE_PRESENT = _gauge("node_present", "1 while the node has a session; absent while nobody can tell.", "node")
NODE_COORDINATOR = _gauge("node_coordinator", "1 where the node is a coordinator.", "node")
NODE_PRIMARY = _gauge("node_primary", "1 where the node acts for the whole cluster.", "node")
NODE_ZOOKEEPER = _gauge("node_zookeeper_serving", "1 where the node's ZooKeeper server serves.", "node")
NODE_VCPUS = _gauge("node_vcpus", "Processors of the node.", "node")
NODE_VCPUS_ALLOCATED = _gauge("node_vcpus_allocated", "Virtual processors of the VMs that run there.", "node")
NODE_MEMORY = _gauge("node_memory_bytes", "Memory of the node.", "node")
NODE_MEMORY_ALLOCATED = _gauge("node_memory_allocated_bytes", "Held by running VMs, or kept for those coming.", "node")
NODE_MEMORY_PROVISIONED = _gauge("node_memory_provisioned_bytes", "Of all VMs assigned to it, running or not.", "node")
NODE_MEMORY_USED = _gauge("node_memory_used_bytes", "In use on the node, as measured.", "node")
NODE_MEMORY_FREE = _gauge("node_memory_free_bytes", "What could still be given out, as measured.", "node")
NODE_CPU = _gauge("node_cpu_used_ratio", "Share of the node's processors in use, as measured.", "node")
NODE_LOAD = _gauge("node_load1", "Load average of one minute, as measured.", "node")
NODE_VMS = _gauge("node_vms", "VMs assigned to the node, by state.", "node", "state")
NODE_POSITION = _gauge("node_log_position", "How far the node says that it has folded the log.", "node")
NODE_FENCE_TROUBLE = _gauge("node_fence_trouble", "1 where the fence agent did not answer as it should.", "node")

# VMs, with the node that they are assigned to.
VM_STATE = _gauge("vm_state", "1 for the state that the VM is in; other states have no line.", "vm", "node", "state")
VM_VCPUS = _gauge("vm_vcpus", "Virtual processors of the VM.", "vm", "node")
VM_MEMORY = _gauge("vm_memory_bytes", "Memory that the VM was given.", "vm", "node")
VM_MEMORY_USED = _gauge("vm_memory_used_bytes", "Memory of the node that it takes.", "vm", "node")
VM_CPU = _counter("vm_cpu_seconds", "Processor time, since it came to this node.", "vm", "node")
VM_READ = _counter("vm_disk_read_bytes", "Read from its disks, since it came to this node.", "vm", "node")
VM_WRITTEN = _counter("vm_disk_written_bytes", "Written to its disks, since it came to this node.", "vm", "node")
VM_RECEIVED = _counter("vm_network_receive_bytes", "Received, since it came to this node.", "vm", "node")
VM_SENT = _counter("vm_network_transmit_bytes", "Sent, since it came to this node.", "vm", "node")

# The log, as this node has it.
LOG_POSITION = _gauge("log_position", "The last record that this node has folded.")
LOG_FOLD_STOPPED = _gauge("log_fold_stopped", "1 where this node cannot fold the log any further.")
LOG_REPLICA = _gauge("log_replica_position", "The last record in this node's replica.")
LOG_REPLICA_LAG = _gauge("log_replica_lag_records", "Records that the replica is behind the fold.")
LOG_REPLICA_BYTES = _gauge("log_replica_size_bytes", "Size of the replica's file with its indexes.")
LOG_APPEND = _histogram("log_append_duration", "Time of an append to the log, with however many records.")
LOG_APPENDED = _counter("log_appended_records", "Records that this process has appended.")
LOG_APPEND_FAILURES = _counter("log_append_failures", "Appends that did not take place, or perhaps.", "reason")
LOG_WAITING = _gauge("log_append_queue", "Commands and reports that wait to be appended.")
LOG_EVENTS = _counter("log_events", "Events folded by this process, those of its start included.", "type")
LOG_SEGMENTS = _gauge("log_segments", "Segments of the log: in ZooKeeper by state, and archived.", "state")
LOG_HOT_RECORDS = _gauge("log_hot_records", "Records that ZooKeeper holds.")
LOG_HOT_BYTES = _gauge("log_hot_bytes", "Their size.")
LOG_QUOTA_RECORDS = _gauge("log_quota_records", "Records that ZooKeeper may hold.")
LOG_QUOTA_BYTES = _gauge("log_quota_bytes", "Bytes of records that ZooKeeper may hold.")
LOG_ARCHIVED = _gauge("log_archived_position", "Everything up to this record is archived.")
LOG_REMOVED = _gauge("log_removed_position", "Everything up to this record has left ZooKeeper.")
LOG_ARCHIVE_MISSING = _gauge("log_archive_missing_segments", "Segments that this node's archive lacks.", "archive")
LOG_ARCHIVE_PROBLEM = _gauge("log_archive_problem", "1 where the archive cannot be used.", "archive")
LOG_DAMAGED = _gauge("log_damaged_copies", "Copies found damaged by this process.")
LOG_STATUS_AGE = _gauge("log_status_age_seconds", "Age of the figures about segments and archives.")

# What happened to nodes, since this process began.
HA_LOST = _counter("ha_nodes_lost", "Nodes that were declared lost.")
HA_FENCES = _counter("ha_fences", "Nodes that were fenced.")
HA_FENCE_FAILURES = _counter("ha_fence_failures", "Nodes that could not be fenced.")
HA_RECOVERIES = _counter("ha_recoveries", "VMs that were recovered from a lost node.")
HA_ELECTIONS = _counter("ha_elections", "Primaries that were elected.")

# What this node does about its VMs.
RECONCILE = _histogram("reconcile_duration", "Time of one go at one VM.")
RECONCILE_FAILURES = _counter("reconcile_failures", "Goes at a VM that failed and are tried again.")
RECONCILE_PENDING = _gauge("reconcile_pending", "VMs that are due or worked on.")
RECONCILE_FAILING = _gauge("reconcile_failing", "VMs whose last go failed.")
EFFECT = _histogram("effect_duration", "Time of what was done to the hypervisor.", "effect")
EFFECT_FAILURES = _counter("effect_failures", "What the hypervisor refused or failed to do.", "effect")

# The gateway that answers.
REQUESTS = _counter("gateway_requests", "Requests answered.", "route", "method", "status")
REQUEST = _histogram(
    "gateway_request_duration",
    "Time until a reply began, without streams and what was asked to wait.",
    "route",
    "method",
)
REQUESTS_UNDER_WAY = _gauge("gateway_requests_in_progress", "Requests that are being answered, streams included.")
STREAMS = _gauge("gateway_event_streams", "Readers of the events.")
REFUSALS = _counter("gateway_refusals", "Replies that were errors, by the error's code.", "code")
LIMITED = _counter("gateway_rate_limited", "Requests refused as there were too many from a principal or address.")

# Webhooks: these two where this process delivers, the others at the primary's gateway, which knows all cursors.
WEBHOOK_DELIVERIES = _counter("webhook_deliveries", "Requests to receivers, by what their answer meant.", "outcome")
WEBHOOK_DELIVERY = _histogram("webhook_delivery_duration", "Time of a request to a receiver.")
WEBHOOK_STATE = _gauge("webhook_state", "1 for the state that the webhook is in.", "webhook", "state")
WEBHOOK_LAG = _gauge("webhook_lag_records", "Records between the webhook's cursor and the head.", "webhook")
WEBHOOK_LAG_SECONDS = _gauge("webhook_lag_seconds", "Age of the first record that is not done.", "webhook")
WEBHOOK_DELIVERED = _counter("webhook_delivered_events", "Events delivered, over all its life.", "webhook")
WEBHOOK_PARKED = _gauge("webhook_parked_events", "Events given up, and not replayed since.", "webhook")
WEBHOOK_TRIES = _gauge("webhook_failed_tries", "Failed tries of the event that is next.", "webhook")
WEBHOOK_BREAKER = _gauge("webhook_breaker_open", "1 where the receiver is taken to be down.", "webhook")

# The machine and the process.
FILESYSTEM = _gauge("node_filesystem_size_bytes", "Size of the file system of one of PVC's places.", "node", "place")
FILESYSTEM_FREE = _gauge("node_filesystem_free_bytes", "What of it is free.", "node", "place")
PROCESS_CPU = Family(name="process_cpu_seconds_total", kind=Kind.COUNTER, help="Processor time of pvcd.")
PROCESS_MEMORY = Family(name="process_resident_memory_bytes", kind=Kind.GAUGE, help="Resident memory of pvcd.")
PROCESS_FILES = Family(name="process_open_fds", kind=Kind.GAUGE, help="Files that pvcd has open.")
PROCESS_FILES_MAX = Family(name="process_max_fds", kind=Kind.GAUGE, help="Files that pvcd may have open.")
PROCESS_START = Family(
    name="process_start_time_seconds", kind=Kind.GAUGE, help="When pvcd was started, since the Unix epoch."
)

FAMILIES: tuple[Family, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""In the order of this page."""
