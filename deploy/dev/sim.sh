# shellcheck shell=bash
# ./dev sim: the simulator.

usage() {
    cat <<'TEXT'
Usage: ./dev sim [--seed N] [--count N] [--trace] [--only log|node|cluster|zookeeper] [--jobs N]
       ./dev sim --mutants
       ./dev sim --scale [--nodes 100] [--vms 10000] [--rack 10]

Runs nodes, whole clusters and the log's protocol in one process on virtual time, with faults from a seed, and checks
at every step what must hold. A seed that fails is named, with the command that repeats it.

  --seed N    this run alone; with --trace all that happened in it
  --count N   so many seeds, from the first or from --seed on
  --only K    one kind of simulation alone: the log's protocol, one node, a cluster, a cluster over ZooKeeper
  --mutants   known bugs are put into the code, one at a time; each must be noticed within a stated number of seeds
  --scale     a rack of a large cluster is lost

docs/simulator.md tells more.

Example: ./dev sim --seed 123 --trace
TEXT
}

run() {
    install_for python
    exec python -m pvc.sim "$@"
}
