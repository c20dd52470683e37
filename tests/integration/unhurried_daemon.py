"""`pvcd` for a tester who gives thousands of wrong tokens and asks for positions that never come: nothing of what is
checked is another, but he is neither turned away nor held up."""

from __future__ import annotations

from pvc.daemon.main import main
from pvc.gateway import app, auth, moments, warden

auth.FAILURES_ALLOWED = 10**9
warden.REQUESTS_AT_ONCE = warden.COMMANDS_AT_ONCE = 10**9
app.REACH_DEADLINE_S = moments.INDEX_DEADLINE_S = 0.5

if __name__ == "__main__":
    main()
