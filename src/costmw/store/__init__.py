"""Where events are kept: the protocol, the writer that commits, and one file a database."""
