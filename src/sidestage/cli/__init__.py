"""The command line: the only place that composes everything."""
