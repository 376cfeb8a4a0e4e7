"""Runs beside the target; imports stdlib, protocol and stream only."""
