"""The web: polite, guarded fetching of strangers' URLs."""
