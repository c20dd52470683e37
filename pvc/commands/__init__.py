"""What an admin may ask: per aggregate, each command beside its pure decide(state, command, context) -> Decision."""
