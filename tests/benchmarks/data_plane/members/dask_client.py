"""A client of Dask with four workers on this machine: `dask_client.py ADDRESS RANK MEMBERS`, alone
in its crew."""

from __future__ import annotations

import sys

from distributed import Client, LocalCluster

from tests.benchmarks.data_plane.members.control import Member, serve


class DaskClient(Member):
    def __init__(self, rank: int, size: int, client: Client) -> None:
        super().__init__(rank, size)
        self.client = client

    def broadcast(self) -> None:
        self.client.scatter(self.given, broadcast=True, hash=False)


def main(address: str, rank: str, members: str) -> None:
    with (
        LocalCluster(
            n_workers=4, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        serve(address, DaskClient(int(rank), int(members), client))


if __name__ == "__main__":
    main(*sys.argv[1:])
