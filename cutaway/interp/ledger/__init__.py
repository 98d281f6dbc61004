"""The ledger: any number, opened into the terms that sum to it."""
