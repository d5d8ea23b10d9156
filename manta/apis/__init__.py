"""The SDK: how users write swarms and talk to a manager."""
