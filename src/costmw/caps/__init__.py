"""Caps: budgets that block, kept in the ledger's own transactions."""
