"""Generations: what tells every worker of a host, without a message or a lock, that a cached answer is out of date.

Lives here: a table in shared memory, mapped before the fork. Each slot stands for all keys that hash to it and is a
row of 8-byte cells, one cell a worker process. A cell has a single writer, so nothing is lost to two processes counting
at once. An odd cell means "this worker is changing what a key of this slot stands for", an even one "it is not".
Must not know: what the keys are, what is cached, or the database.

Why a cached answer is never out of date once a change is visible:

- The writer makes its cell odd *before* COMMIT is sent, and gives it a new even value after the outcome is known. A
  cell's values only grow, also across the processes that own the column one after the other, so no value returns. An
  even value is the time (CLOCK_MONOTONIC, ns) at which the change was over: whoever reads from a replica asks for it.
- The reader takes the row *before* it reads the database, keeps an answer only if no cell was odd, and uses it only
  while the row equals the one kept. If the reader's copy of a cell predates ``begin``, the answer stops being valid at
  ``begin``, before anyone can see the change; if it falls between, the answer is not kept; if it follows ``end``, the
  database already showed the change. (One value per slot, stored after COMMIT, would leave a gap between the two in
  which one worker shows the new state and the next, from its cache, still the old.)

Torn reads. The argument above is about each cell alone, so it does not matter that a row is not copied in one instant:
two writers need not be seen at the same moment, each needs to be seen after its own ``begin``. A single cell must be
whole, and is: cells are 8-byte aligned, native-order memoryview items are stored with one 8-byte move, and the C
library copies rows in pieces of 8 bytes or multiples of it, which no 64-bit machine tears at 8-byte boundaries.
Order between processes comes with the system calls between them: ``begin`` precedes the send of COMMIT, and a reader
that learnt of the change learnt it through a receive.
"""

import mmap
import sys
import time
from collections.abc import Iterable

_CELL = 8


class Generations:
    """The table. Make it before the fork: children share its memory, and the seed of hash() on which slots depend.

    Uses ``slots * columns * 9`` bytes of memory as they are touched. ValueError if ``slots`` is not a power of two.
    """

    __slots__ = ("_followers", "_hash_mask", "_odd", "_row", "cells", "columns", "memory", "slots")

    def __init__(self, columns: int, slots: int = 1 << 18) -> None:
        if slots < 1 or slots & (slots - 1) or columns < 1:
            raise ValueError(f"{slots} slots, {columns} columns: slots must be a power of two, columns at least 1")
        self.columns = columns
        self.slots = slots
        self._hash_mask = slots - 1
        self._row = columns * _CELL
        self.memory = mmap.mmap(-1, slots * self._row)
        self.cells = memoryview(self.memory).cast("Q")
        self._followers = mmap.mmap(-1, slots * columns)
        self._odd = sum(1 << (64 * column) for column in range(columns))

    def slot(self, key: bytes) -> int:
        """The slot of ``key``: the same in every process forked from the one that made the table, in no other.

        bytes.__hash__ is SipHash keyed by the interpreter's secret, so outsiders cannot aim for a slot.
        """
        return hash(key) & self._hash_mask

    def row(self, slot: int) -> slice:
        """Where the slot's row lies in ``memory``: who looks often keeps this, and looks with one slice."""
        return slice(slot * self._row, (slot + 1) * self._row)

    def slot_of(self, row: slice) -> int:
        """The slot whose row that is."""
        return int(row.start) // self._row

    def snapshot(self, slot: int) -> bytes:
        """The slot's row as it is now, ``columns * 8`` bytes. Take it before reading what is to be cached."""
        return self.memory[self.row(slot)]

    def changed(self, key: bytes) -> int | None:
        """When the last change of the slot was over (time.monotonic_ns; 0: never), None while one is under way."""
        start = self.slot(key) * self.columns
        row = self.cells[start : start + self.columns].tolist()
        return None if any(value & 1 for value in row) else max(row)

    def follow(self, slot: int, column: int, follows: bool) -> None:
        """Whether that worker keeps something that it can bring up to date when it is told what came. Only a hint: to
        who says so in vain something is told in vain, and who is not told reads again.
        """
        self._followers[slot * self.columns + column] = follows

    def followers(self, slot: int) -> list[int]:
        """The columns of those who follow."""
        row = self._followers[slot * self.columns : (slot + 1) * self.columns]
        return [column for column, follows in enumerate(row) if follows] if any(row) else []

    def settled(self, snapshot: bytes) -> bool:
        """No write was under way: what was read after this snapshot may be kept with it."""
        return not int.from_bytes(snapshot, sys.byteorder) & self._odd


class Writer:
    """One process's column. Exactly one live process, and in it one thread, may write a column.

    Writes that a killed predecessor of the column left unfinished are taken over as unfinished: its database backend
    may still be committing them. ``heal()`` ends them; call it when that can no longer be, a statement timeout after
    start. Until then their slots are merely not cached.
    """

    __slots__ = ("_cells", "_column", "_columns", "_in_flight", "_inherited", "_several")

    def __init__(self, table: Generations, column: int) -> None:
        if not 0 <= column < table.columns:
            raise ValueError(f"column {column} of a table of {table.columns}")
        self._cells = table.cells
        self._columns = table.columns
        self._column = column
        mine = table.cells[column :: table.columns].tolist()
        self._inherited = [slot for slot, value in enumerate(mine) if value & 1]
        self._in_flight = dict.fromkeys(self._inherited, 1)
        self._several = set[int]()  # slots in which a write began while another was under way

    def begin(self, slots: Iterable[int]) -> None:
        """A change to keys of these slots is about to be committed. Pair with ``end``, in any order and nesting."""
        in_flight, cells = self._in_flight, self._cells
        for slot in slots:
            count = in_flight.get(slot, 0)
            if count:
                self._several.add(slot)
            else:
                cells[slot * self._columns + self._column] += 1
            in_flight[slot] = count + 1

    def end(self, slots: Iterable[int]) -> set[int]:
        """The outcome of that change, COMMIT or ROLLBACK, is known. KeyError without a ``begin``. The slots in which
        nothing else of this process was under way meanwhile.

        If it is not known (the connection broke during COMMIT), call this only once the backend can no longer commit.
        """
        in_flight, cells = self._in_flight, self._cells
        now = time.monotonic_ns() & ~1
        alone = set[int]()
        for slot in slots:
            count = in_flight.pop(slot) - 1
            if count:
                in_flight[slot] = count
            else:
                cell = slot * self._columns + self._column
                cells[cell] = max(now, cells[cell] + 1)
                if slot in self._several:
                    self._several.discard(slot)
                else:
                    alone.add(slot)
        return alone

    def since(self, slot: int, before: bytes) -> bytes | None:
        """The slot's row now, if no other worker has begun or ended a write there since it was ``before``, nor had one
        under way."""
        start = slot * self._columns
        now = self._cells[start : start + self._columns].tobytes()
        mine = self._column * _CELL
        same = now[:mine] == before[:mine] and now[mine + _CELL :] == before[mine + _CELL :]
        return now if same and not any(value & 1 for value in memoryview(before + now).cast("Q")) else None

    def bump(self, slots: Iterable[int]) -> None:
        """Another host has committed a change to keys of these slots: nothing kept before now is valid."""
        kept = tuple(slots)
        self.begin(kept)
        self.end(kept)

    def heal(self) -> None:
        """End what a killed predecessor left unfinished. Once; again is harmless."""
        inherited, self._inherited = self._inherited, []
        self.end(inherited)
