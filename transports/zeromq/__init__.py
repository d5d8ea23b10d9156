"""The control plane: links between processes over ZeroMQ with CURVE."""
