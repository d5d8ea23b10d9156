"""A manager and nodes whose processes can be killed and started again, and joined by others."""

from __future__ import annotations

from manta.cli.local.cluster import Child, LocalCluster, node_config


class Restartable(LocalCluster):
    """Processes go by the names of their logs: `manager`, `node-1`, ..."""

    def command(self, log_name: str, arguments: list[str]) -> list[str]:
        if "--fds" in arguments:  # the sockets were handed over once; the addresses are the same
            at = arguments.index("--fds")
            arguments, given = arguments[:at] + arguments[at + 2 :], arguments
        else:
            given = arguments
        self._started = {**getattr(self, "_started", {}), log_name: arguments}
        return super().command(log_name, given)

    def child(self, log_name: str) -> Child:
        """The one that was started last."""
        path = self.log_folder / f"{log_name}.log"
        return next(child for child in reversed(self.children) if child.log == path)

    def kill(self, log_name: str) -> None:
        child = self.child(log_name)
        child.process.kill()
        assert child.ended.wait(60)

    def end(self, log_name: str) -> None:
        """In good order."""
        child = self.child(log_name)
        child.process.terminate()
        assert child.ended.wait(60)

    def again(self, log_name: str) -> None:
        self._spawn(self.child(log_name).name, log_name, self._started[log_name])

    def enrol(self, alias: str, token: str) -> Child:
        """Start one more node, which joins with a token."""
        config = self.folder / f"{alias}.toml"
        given = self._started["manager"]
        port = int(given[given.index("--nodes") + 1].rpartition(":")[2])
        text = node_config(alias, port, {})
        config.write_text(text.replace("[network]", f'secured_token = "{token}"\n[network]'))
        config.chmod(0o600)
        state = self.folder / "state" / alias
        self._spawn(alias, alias, ["manta.node", "--config", str(config), "--state", str(state)])
        return self.child(alias)


class QuickToGiveUp(Restartable):
    """Its manager takes a node for lost after six seconds instead of twenty."""

    def command(self, log_name: str, arguments: list[str]) -> list[str]:
        lease = ["--lease", "6"] if log_name == "manager" else []
        return [*super().command(log_name, arguments), *lease]
