"""Links between processes over ZeroMQ with CURVE."""
