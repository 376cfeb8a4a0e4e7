"""Random operations on one file, after the idea of fsx: each is done to a model in memory too, and reads must be the model's.

    exerciser.py PATH SEED COUNT

Prints a digest of all that was read and of the end; exits 1 at the first difference, with the operations before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import random
import sys

LIMIT = 700_000  # bytes of the file: some of them beyond what comes along with an open
LARGEST = 70_000  # bytes of one operation


class Exerciser:
    def __init__(self, path: str, seed: int) -> None:
        self.path, self.random, self.model = path, random.Random(seed), bytearray()
        self.fds = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), os.open(path, os.O_RDWR)]
        self.log: list[str] = []
        self.digest = hashlib.sha256()

    def place(self) -> tuple[int, int]:
        offset = self.random.randrange(LIMIT - LARGEST)
        if self.random.random() < 0.3:
            offset &= ~4095
        return offset, self.random.randint(1, LARGEST)

    def fd(self) -> int:
        return self.random.choice(self.fds)

    def grow(self, size: int) -> None:
        self.model.extend(bytes(max(0, size - len(self.model))))

    def put(self, offset: int, data: bytes) -> None:
        self.grow(offset + len(data))
        self.model[offset : offset + len(data)] = data

    def check(self, what: str, got: bytes, offset: int, size: int) -> None:
        wanted = bytes(self.model[offset : offset + size])
        self.digest.update(got)
        if got != wanted:
            at = next((n for n, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
            print(f"{what}: {len(got)} bytes of {len(wanted)} at {offset}, differs at {at}", *self.log[-12:], sep="\n")
            sys.exit(1)

    def write(self) -> None:
        offset, size = self.place()
        data = self.random.randbytes(size)
        assert os.pwrite(self.fd(), data, offset) == size
        self.put(offset, data)

    def append(self) -> None:
        if len(self.model) + LARGEST > LIMIT:
            return
        data = self.random.randbytes(self.place()[1])
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        assert os.write(fd, data) == len(data)
        os.close(fd)
        self.put(len(self.model), data)

    def read(self) -> None:
        offset, size = self.place()
        self.check("read", os.pread(self.fd(), size, offset), offset, size)

    def truncate(self) -> None:
        size = self.random.randrange(LIMIT)
        if self.random.random() < 0.5:
            os.truncate(self.path, size)
            os.fstat(self.fd())  # by the path: who has it open asks again
        else:
            os.ftruncate(self.fd(), size)
        del self.model[size:]
        self.grow(size)

    def map_write(self) -> None:
        offset, size = self.place()
        end = min(offset + size, len(self.model))
        if offset < end:
            data = self.random.randbytes(end - offset)
            with mmap.mmap(self.fd(), len(self.model)) as mapped:
                mapped[offset:end] = data
                if self.random.random() < 0.5:
                    mapped.flush()
            self.put(offset, data)

    def map_read(self) -> None:
        offset, size = self.place()
        if offset < len(self.model):
            with mmap.mmap(self.fd(), len(self.model), prot=mmap.PROT_READ) as mapped:
                self.check("mapped read", mapped[offset : offset + size], offset, size)

    def allocate(self) -> None:
        offset, size = self.place()
        os.posix_fallocate(self.fd(), offset, size)
        self.grow(offset + size)

    def reopen(self) -> None:
        number = self.random.randrange(len(self.fds))
        os.close(self.fds[number])
        self.fds[number] = os.open(self.path, os.O_RDWR)

    def sync(self) -> None:
        os.fsync(self.fd()) if self.random.random() < 0.5 else os.fdatasync(self.fd())

    def rename(self) -> None:
        os.rename(self.path, self.path + "~")
        os.rename(self.path + "~", self.path)

    def sizes(self) -> None:
        sizes = {os.stat(self.path).st_size, os.fstat(self.fd()).st_size, os.lseek(self.fd(), 0, os.SEEK_END)}
        if sizes != {len(self.model)}:
            print(f"sizes {sizes} are not {len(self.model)}", *self.log[-12:], sep="\n")
            sys.exit(1)

    def lock(self) -> None:
        fd = self.fd()
        fcntl.lockf(fd, fcntl.LOCK_EX)
        fcntl.lockf(fd, fcntl.LOCK_UN)

    def run(self, count: int) -> None:
        steps = [
            self.write, self.append, self.read, self.read, self.truncate, self.map_write, self.map_read, self.allocate,
            self.reopen, self.sync, self.rename, self.sizes, self.lock,
        ]  # fmt: skip
        for _ in range(count):
            step = self.random.choice(steps)
            self.log.append(f"{step.__name__} at {len(self.model)}")
            step()
        with open(self.path, "rb") as file:
            self.check("the end", file.read(), 0, len(self.model))
        print(count, len(self.model), self.digest.hexdigest())


if __name__ == "__main__":
    with contextlib.suppress(FileNotFoundError):
        os.unlink(sys.argv[1])
    Exerciser(sys.argv[1], int(sys.argv[2])).run(int(sys.argv[3]))
