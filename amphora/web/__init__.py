"""The dashboard: `amphora web`."""
