"""What tests share: a target made of namespaces, and runs inside it natively and plugged."""
