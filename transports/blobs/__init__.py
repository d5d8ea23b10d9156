"""Where blobs are kept, and how they are read and written."""
