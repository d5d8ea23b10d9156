"""The synchronous SDK, generated from `manta.apis.aio` by `make generate`."""
