"""Web frameworks: each file is thin, imports one framework, and is imported by nobody."""
