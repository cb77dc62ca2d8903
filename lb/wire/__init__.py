"""Floor 1, pure: codecs turn bytes into calls and calls into bytes. They never see a socket."""
