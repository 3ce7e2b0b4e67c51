"""Peer monitoring: processes that work together notice when one of them is lost, and none waits for it.

Every process has a connection to process 0, which passes messages on. When a process ends, its connection closes; when
a machine goes down, its heartbeats stop. :func:`wait_for_all` waits, even for days, as long as all other processes are
alive, and no longer.
"""

import logging
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

import torch.distributed as dist

logger = logging.getLogger(__name__)

# the time between two heartbeats, and the time without any after which a process counts as lost; the second is long,
# since a process that swaps, or holds Python's lock, is not lost yet
BEAT_SECONDS, SILENCE_SECONDS = 5.0, 120.0
# after a loss is reported, the time until a process is ended by force: it may hang in a library, or still be writing
# what can be kept, such as a checkpoint
GRACE_SECONDS = 30.0
# how long after an error of communication the report of the loss behind it may come: a lost process's loader processes,
# which also hold its connection, notice its end only after 5 seconds
REPORT_SECONDS = 20.0

BEAT, HERE, GO, LEFT, FAILED, GONE = b"beat", b"here", b"go", b"left", b"failed", b"gone"
ENDS = {
    LEFT: "has ended before this one",
    FAILED: "has stopped with an error",
    GONE: "is gone: it was killed, or its machine went down",
}


class LostProcessError(RuntimeError):
    """Another process is lost, and this one cannot continue without it; the message says which."""


class _Heartbeat:
    """The connections of this process to the others; ``loss`` says which process is lost, and how ("": none)."""

    def __init__(self, on_loss: Callable[[str], None]):
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self._on_loss = on_loss
        self.loss, self._lost = "", -1
        self._reported = threading.Lock()
        self._stopped = threading.Event()
        self.answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._here: set[int] = set()
        self._lock = threading.RLock()  # for what several threads send or count
        self._connections = self._connect()
        threading.Thread(target=self._listen, name="peers", daemon=True).start()

    def announce(self) -> None:
        if self.rank == 0:
            self._arrive(0)
        else:
            self._send(HERE)

    def report(self) -> None:
        """Call ``on_loss``, once, in one process of each machine."""
        first = self.rank - int(os.environ.get("LOCAL_RANK", self.rank))
        reporter = first + 1 if self._lost == first else first
        if self._reported.acquire(blocking=False) and self.rank == reporter:
            self._on_loss(self.loss)

    def stop(self, *, failed: bool) -> None:
        self._stopped.set()
        self._send(FAILED if failed else LEFT)

    def _connect(self) -> dict[int, Connection]:
        """Connect every process with process 0; return a connection for each rank."""
        peers: dict[int, Connection] = {}
        key, port, problem = secrets.token_bytes(16), 0, ""
        if self.rank == 0:
            listener = Listener(("", 0), backlog=self.processes)
            port = listener.address[1]
            accepting = threading.Thread(target=self._accept, args=(listener, key, peers), daemon=True)
            accepting.start()
        place: list[Any] = [key, port]
        dist.broadcast_object_list(place)
        if self.rank > 0:
            key, port = place
            try:
                peers[0] = Client((os.environ["MASTER_ADDR"], port))
                peers[0].send_bytes(key + b"%d" % self.rank)
            except OSError as error:
                problem = f"process {self.rank} cannot reach port {port} of process 0: {error}"
        problems = [""] * self.processes
        dist.all_gather_object(problems, problem)
        if any(problems):
            raise OSError("; ".join(filter(None, problems)))
        if self.rank == 0:
            accepting.join()
            listener.close()
        return peers

    def _accept(self, listener: Listener, key: bytes, peers: dict[int, Connection]) -> None:
        while len(peers) < self.processes - 1:
            try:
                connection = listener.accept()
                # some other program that found the port may send nothing, or too much
                message = connection.recv_bytes(len(key) + 16) if connection.poll(BEAT_SECONDS) else b""
            except (OSError, EOFError):
                continue
            if message.startswith(key):
                peers[int(message.removeprefix(key))] = connection
            else:
                connection.close()

    def _listen(self) -> None:
        """Receive messages and send heartbeats, until the process ends."""
        silence = dict.fromkeys(self._connections, 0.0)
        before = beaten = time.monotonic()
        while self._connections and not self._stopped.is_set():
            ready = wait(list(self._connections.values()), timeout=BEAT_SECONDS)
            now = time.monotonic()
            listened = min(now - before, 2 * BEAT_SECONDS)  # without time in which this process was suspended
            for rank, connection in list(self._connections.items()):
                if connection in ready:
                    silence[rank] = 0.0
                    self._take(rank, connection)
                else:
                    silence[rank] += listened
                if silence[rank] > SILENCE_SECONDS:
                    self._lose(rank, f"has given no sign of life for {SILENCE_SECONDS:.0f} seconds")
            before = now
            if now - beaten >= BEAT_SECONDS:
                self._send(BEAT)
                beaten = now

    def _take(self, rank: int, connection: Connection) -> None:
        """Act on what a process has sent."""
        try:
            message = connection.recv_bytes()
        except (OSError, EOFError):
            message = GONE
        if message == HERE:
            self._arrive(rank)
        elif message == GO:
            self.answers.put(GO)
        elif message in ENDS:
            del self._connections[rank]
            self._lose(rank, ENDS[message])
        elif message != BEAT:  # a loss, which process 0 passes on
            lost, _, how = message.decode().partition(" ")
            self._lose(int(lost), how)

    def _arrive(self, rank: int) -> None:
        with self._lock:
            self._here.add(rank)
            if len(self._here) == self.processes:
                self._here.clear()
                self.answers.put(GO)
                self._send(GO)

    def _lose(self, rank: int, how: str) -> None:
        """Record the first process that is lost, inform the others, and end this process soon."""
        if self.loss or self._stopped.is_set():
            return
        self._lost, self.loss = rank, f"process {rank} {how}"
        self.answers.put(self.loss.encode())
        if how == ENDS[LEFT]:  # normal, unless this process still has to meet it
            return
        if self.rank == 0:
            self._send(f"{rank} {how}".encode())
        if how != ENDS[FAILED]:  # that one reports its own error; others may soon, for the same reason
            self.report()
        end = threading.Timer(GRACE_SECONDS, self._end)
        end.daemon = True
        end.start()

    def _end(self) -> None:
        if not self._stopped.is_set():
            self.report()
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
            os._exit(1)

    def _send(self, message: bytes) -> None:
        with self._lock:
            for connection in list(self._connections.values()):
                try:
                    connection.send_bytes(message)
                except OSError:  # a process's end is noticed when receiving from it, not here
                    continue


# the peers of the default group of processes, of which a process has one
_peers: _Heartbeat | None = None


def start(on_loss: Callable[[str], None]) -> None:
    """Start peer monitoring in the default group of processes; all must call this at the same time.

    ``on_loss`` is called with a sentence when another process is lost; one process of each machine calls it and ends.
    """
    global _peers
    try:
        _peers = _Heartbeat(on_loss)
    except OSError as error:
        logger.warning("peer monitoring is off; lost processes are noticed only at the collective timeout: %s", error)


def wait_for_all() -> None:
    """Wait until every process has called this, as long as all others are alive.

    Raises:
        LostProcessError: one is lost.
    """
    if _peers is not None:
        _peers.announce()
        if (answer := _peers.answers.get()) != GO:
            raise LostProcessError(answer.decode())
    elif dist.is_initialized():
        dist.barrier()


def check() -> None:
    """Check during long work that no other process is lost.

    Raises:
        LostProcessError: another process is lost.
    """
    if _peers is not None and _peers.loss:
        raise LostProcessError(_peers.loss)


def explains(error: RuntimeError) -> bool:
    """Whether the loss of another process caused an error, which may take a while to tell; reports the loss."""
    if _peers is None:
        return False
    if not isinstance(error, LostProcessError):
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            return False
        try:
            if _peers.answers.get(timeout=REPORT_SECONDS) == GO:
                return False
        except queue.Empty:
            return False
    _peers.report()
    return True


def stop(*, failed: bool) -> None:
    """Tell the other processes that this one ends."""
    global _peers
    if _peers is not None:
        _peers.stop(failed=failed)
        _peers = None
