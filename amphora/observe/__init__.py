"""Watching workers over time: what `amphora top` and the dashboard show."""
