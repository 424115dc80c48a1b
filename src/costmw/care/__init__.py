"""Care for a ledger, as its owner asks for it on the command line."""
