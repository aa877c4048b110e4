"""What the documentation claims about the method, as commands: one module per study (benchmarks/README.md)."""
