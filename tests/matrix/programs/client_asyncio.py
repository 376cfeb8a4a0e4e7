"""asyncio as a client: streams, datagrams, name look-up, subprocesses."""

from __future__ import annotations

import asyncio
import socket


async def talk(host: str, port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(text)
    writer.write_eof()
    got = await reader.read()
    writer.close()
    return got


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: asyncio.Future[tuple[bytes, object]] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.got.set_result((data, addr))


async def main() -> None:
    loop = asyncio.get_running_loop()
    print(await talk("db.staging.internal", 7000, b"one"), await talk("fd77::20", 7000, b"six"))
    print(len(set(await asyncio.gather(*(talk("10.77.0.20", 7000, b"%d" % n) for n in range(200))))), "at once")
    big = b"x" * 3_000_000
    print(await talk("10.77.0.20", 7000, big) == big)
    for host, port in (("10.77.0.20", 7999), ("10.99.99.99", 80), ("nowhere.staging.internal", 80)):
        try:
            await talk(host, port, b"")
        except OSError as error:
            print(type(error).__name__, error.errno)
    print(sorted({info[4] for info in await loop.getaddrinfo("db.staging.internal", 7000, type=socket.SOCK_STREAM)}))
    for remote in (("10.77.0.20", 7000), None):
        transport, protocol = await loop.create_datagram_endpoint(
            Datagrams, remote_addr=remote, local_addr=None if remote else ("0.0.0.0", 0)
        )
        transport.sendto(b"datagram", None if remote else ("10.77.0.20", 7000))
        print(await asyncio.wait_for(protocol.got, 5))
        transport.close()
    process = await asyncio.create_subprocess_exec("cat", "/srv/config.txt", stdout=asyncio.subprocess.PIPE)
    print(await process.communicate(), process.returncode)
    reader, writer = await asyncio.open_connection("10.77.0.20", 7002)
    print(await reader.readline())
    writer.close()
    try:
        await asyncio.wait_for(talk("10.77.0.20", 7000, b"never" * 100_000), 0.0001)
    except TimeoutError:
        print("cancelled")
    print(await talk("10.77.0.20", 7000, b"and after"))


asyncio.run(main())
