"""What crosses the two machines: pure, stdlib only, no I/O."""
