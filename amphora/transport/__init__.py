"""One process's way to a broker: sockets, connections, channels, and keeping them alive."""
