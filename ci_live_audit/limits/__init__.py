"""When a request may leave: the limiter protocol and its implementations."""
