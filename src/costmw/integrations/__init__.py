"""Web frameworks: each has one thin file, which imports it; what they share imports none."""
