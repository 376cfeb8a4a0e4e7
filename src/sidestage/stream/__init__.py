"""The I/O shell used on both machines: epoll loop, link, pumps."""
