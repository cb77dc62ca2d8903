"""Floor 2, hot: sockets in, sockets out. Connections, exchanges, attempts. Everything is a plain call."""
