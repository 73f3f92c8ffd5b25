"""Questions about IR: what may fuse, what it reads, what it costs."""
