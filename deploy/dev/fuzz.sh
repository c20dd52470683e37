# shellcheck shell=bash
# ./dev fuzz: hostile input.

usage() {
    cat <<'TEXT'
Usage: ./dev fuzz [--minutes N] [--seed N] [--only requests|plain|tls]

Sends a gateway what was made to break it, and checks what must hold: no reply and no line of the log that only a defect
gives, every refusal a problem with a code, files and memory given back, a good client served all the while, the log's
chain whole, and VMs that still start. All of it stays on this machine.

  --minutes N  for all parts together (5)
  --seed N     what chance does; without it, another one each time, which is shown
  --only PART  any requests to the app in one process; or attacks on a real pvcd, without TLS or with it

A short run is part of ./dev test (tests/fuzz). docs/security.md tells what is defended, and what is not.

Example: ./dev fuzz --minutes 30
TEXT
}

run() {
    install_for python
    exec python -m tests.fuzz "$@"
}
