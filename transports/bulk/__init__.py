"""The bulk plane: blobs between processes, apart from messages."""
