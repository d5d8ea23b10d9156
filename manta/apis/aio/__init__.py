"""The asynchronous SDK, from which `manta.apis.sync` is generated."""
