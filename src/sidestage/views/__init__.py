"""What the program sees: pure decisions and the laptop half of each view."""
