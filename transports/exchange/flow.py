"""Who may send how many letters between one peer and all others of a group: flow control by credit.

Members here ask for room at the peers to which they send, as members there ask for room here. How
much there is for each says `credit`.
"""

from __future__ import annotations

from collections.abc import Callable

from manta.transports.exchange import messages
from manta.transports.exchange.channels import Load, Member, Room, Sender
from manta.transports.exchange.credit import RESERVE, UNREAD, Credit, Rooms


class Flow:
    def __init__(self, me: str, kept: Load, tell: Callable[[str, messages.Message], None]) -> None:
        """`kept` is all that this peer keeps."""
        self._me = me
        self._tell = tell
        self.rooms = Rooms(kept)
        """For letters here."""
        self._credits: dict[tuple[str, Member], Credit] = {}
        """Of members here, by the peer to which they send."""
        self._met: set[str] = set()
        """Peers that were ever reached."""
        self._ahead: dict[str, Load] = {}
        """What is kept for each peer that was not yet, and could not be asked for room."""

    # --- members here -----------------------------------------------------------------------

    def has_room(self, sender: Member, to: str, size: int) -> bool:
        """Whether the member may send a value of that size to the peer now; asks for room if not.

        `refusal` says why not, once the peer told.
        """
        credit = self._credits.setdefault((to, sender), Credit(RESERVE))
        if to != self._me and to not in self._met:
            ahead = self._ahead.setdefault(to, Load())
            few = ahead.letters < UNREAD.letters and ahead.size + size <= UNREAD.size
            return few and self.rooms.may_keep(size)
        fits = credit.fits(size)
        if credit.asked is None:
            if credit.is_low or not fits:
                credit.asked_last = not fits
                self._ask(credit, sender, to, size)
        elif credit.refusal and not (fits or credit.asked_last):
            credit.asked_last = True
            self._ask(credit, sender, to, size)
        return credit.fits(size) and self.rooms.may_keep(size)

    def refusal(self, sender: Member, to: str, size: int) -> str:
        """Why there is no room, as a sentence whose subject is the peer; nothing if it has not said
        so yet."""
        if not self.rooms.may_keep(size):
            return f"is sent nothing: this node {self.rooms.keeps()}"
        if to in self._ahead:
            return "was never reached, and what is kept for it until then is all that may be"
        wanted = self.rooms.wanted((to, sender))
        if to == self._me and wanted is not None:
            return self.rooms.why(wanted)
        credit = self._credits.get((to, sender))
        return credit.refusal if credit else ""

    def take(self, sender: Member, to: str, size: int) -> None:
        """The member sends a value of that size."""
        self._credits[to, sender].take(size)
        if to in self._ahead:
            self._ahead[to].add(size)

    def _ask(self, credit: Credit, sender: Member, to: str, size: int) -> None:
        credit.asked = size
        if to == self._me:
            self.rooms.want((to, sender), size)
            self.serve((to, sender))
        else:
            self._tell(to, messages.WantRoom(sender.task, sender.rank, size))

    # --- other peers ------------------------------------------------------------------------

    def link_up(self, peer: str) -> None:
        """Asks again for what was asked."""
        for (to, sender), credit in self._credits.items():
            if to == peer and credit.asked is not None:
                self._tell(peer, messages.WantRoom(sender.task, sender.rank, credit.asked))

    def met(self, peer: str) -> None:
        """It has said what it knows: it can be asked for room."""
        self._met.add(peer)
        self._ahead.pop(peer, None)

    def gave_up(self, peer: str, left: Load) -> None:
        """Letters to the peer are kept no longer, except those that are left."""
        if peer in self._ahead:
            if left.letters:
                self._ahead[peer] = left
            else:
                del self._ahead[peer]

    def end_era(self) -> None:
        self._credits.clear()
        self.rooms.forget(self._me)

    def peer_removed(self, peer: str) -> None:
        self._credits = {at: credit for at, credit in self._credits.items() if at[0] != peer}
        self._ahead.pop(peer, None)
        self._met.discard(peer)

    def handle(self, peer: str, message: messages.Message) -> bool:
        """Whether the message was about room. Raises RemoteProtocolError."""
        match message:
            case messages.WantRoom(task, rank, size):
                sender = peer, Member(task, rank)
                self.rooms.check_want(sender, size)
                self.rooms.want(sender, size)
                self.serve(sender)
                if self.rooms.wanted(sender) is not None:
                    self._tell(peer, messages.Full(task, rank, self.rooms.why(size)))
            case messages.Granted(task, rank, letters, size):
                self._granted(peer, Member(task, rank), Room(letters, size))
            case messages.Full(task, rank, sentence):
                if (credit := self._credits.get((peer, Member(task, rank)))) is not None:
                    credit.refusal = sentence
            case _:
                return False
        return True

    def serve(self, first: Sender | None = None) -> None:
        """Grants room to those who want it, as far as there is some."""
        for (peer, sender), room in self.rooms.served(first):
            if peer == self._me:
                self._granted(peer, sender, room)
            else:
                self._tell(peer, messages.Granted(*sender, *room))

    def _granted(self, peer: str, sender: Member, room: Room) -> None:
        credit = self._credits.get((peer, sender))
        if credit is not None:
            credit.letters += room.letters
            credit.size += room.size
            credit.asked, credit.refusal, credit.asked_last = None, "", False
