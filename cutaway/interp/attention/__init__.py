"""Where heads look, what moves through them, and what their matrices do."""
