"""Values as bytes, and the decoders of typed messages."""
