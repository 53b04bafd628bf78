"""Which system calls a tenant's container may make: claw's own profiles, and reading an operator's."""
