"""The seccomp supervisor: knows system calls, not where the target is."""
