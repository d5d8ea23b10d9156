"""The data plane: blobs between processes, beside the control plane."""
