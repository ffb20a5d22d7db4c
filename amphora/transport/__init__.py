"""How one process reaches a broker: connections and channels, kept alive."""
