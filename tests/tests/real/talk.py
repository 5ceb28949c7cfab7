"""Both ends of what the tests say to each other over the network; the first argument is the verb.

serve PORT...         TCP and UDP on [::] and 0.0.0.0. TCP: a first line of `who` or of HTTP is answered by the peer's address
                      and port, `echo` by all that follows, `sink` by the length and digest of all that follows, `source N` by N
                      MiB of a seeded stream. UDP: `who` likewise, `count` by how many datagrams came, all else is echoed.
who HOST PORT         one line: what the server saw, and what this end is
udp-who HOST PORT     the same, in a datagram
count HOST PORT       one line: how many datagrams but `who` and `count` the server has had
udp-echo HOST PORT N  a datagram of N bytes comes back as it went: one line, N
connect HOST PORT     one line: `made` or the errno's name, and milliseconds
sink HOST PORT N      sends N MiB of a seeded stream; one line: length and digest here, then there
source HOST PORT N    fetches N MiB of it; likewise
"""
import errno
import hashlib
import random
import select
import socket
import sys
import threading
import time

SEED = 20


def shown(address):
    host = address[0]
    return '%s %d' % (host[7:] if host.startswith('::ffff:') else host, address[1])


def blocks(mebibytes):
    chance = random.Random(SEED)
    for _ in range(mebibytes):
        yield chance.randbytes(1 << 20)


def attend(client, peer):
    stream = client.makefile('rb', 1 << 20)
    line = stream.readline()
    word = line.split()[0] if line.split() else b''
    if word == b'who':
        client.sendall(shown(peer).encode())
    elif word == b'GET':
        body = shown(peer).encode() + b'\n'
        client.sendall(b'HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
    elif word == b'echo':
        while data := stream.read1(1 << 16):
            client.sendall(data)
    elif word == b'sink':
        digest, total = hashlib.sha256(), 0
        while data := stream.read1(1 << 20):
            digest.update(data)
            total += len(data)
        client.sendall(b'%d %s' % (total, digest.hexdigest().encode()))
    elif word == b'source':
        for block in blocks(int(line.split()[1])):
            client.sendall(block)
    client.close()


def serve(ports):
    counts = {}
    listeners, datagrams = [], []
    for port in ports:
        try:
            listeners.append(socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64))
            receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            receiver.bind(('', port))
        except OSError:
            listeners.append(socket.create_server(('', port), backlog=64))
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind(('', port))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        datagrams.append(receiver)
    print('ready', flush=True)
    while True:
        for one in select.select(listeners + datagrams, [], [])[0]:
            if one in listeners:
                client, peer = one.accept()
                threading.Thread(target=attend, args=(client, peer), daemon=True).start()
                continue
            data, peer = one.recvfrom(1 << 16)
            answer = data
            if data == b'who':
                answer = shown(peer).encode()
            elif data == b'count':
                answer = b'%d' % counts.get(one, 0)
            else:
                counts[one] = counts.get(one, 0) + 1
            one.sendto(answer, peer)


def tcp(host, port):
    return socket.create_connection((host, port), timeout=20)


def udp(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    one = socket.socket(family, kind, protocol)
    one.connect(address)
    one.settimeout(5)
    return one


def who(host, port):
    with tcp(host, port) as server:
        mine = shown(server.getsockname())
        server.sendall(b'who\n')
        print('%s is %s' % (server.makefile().read(), mine))


def udp_who(host, port):
    with udp(host, port) as server:
        server.send(b'who')
        print('%s is %s' % (server.recv(100).decode(), shown(server.getsockname())))


def count(host, port):
    with udp(host, port) as server:
        server.send(b'count')
        print(server.recv(100).decode())


def udp_echo(host, port, length):
    payload = random.Random(length).randbytes(length)
    with udp(host, port) as server:
        for _ in range(3):
            server.send(payload)
            try:
                back = server.recv(1 << 16)
            except TimeoutError:
                continue
            print(len(back) if back == payload else 'changed')
            return
    print('lost')


def connect(host, port):
    begin = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=20).close()
        verdict = 'made'
    except TimeoutError as error:
        verdict = errno.errorcode.get(error.errno, 'silence')
    except OSError as error:
        verdict = errno.errorcode[error.errno]
    print(verdict, int(1000 * (time.monotonic() - begin)))


def sink(host, port, mebibytes):
    digest, total = hashlib.sha256(), 0
    with tcp(host, port) as server:
        server.settimeout(250)
        server.sendall(b'sink\n')
        for block in blocks(mebibytes):
            digest.update(block)
            total += len(block)
            server.sendall(block)
        server.shutdown(socket.SHUT_WR)
        print(total, digest.hexdigest(), server.makefile().read())


def source(host, port, mebibytes):
    here, there, total = hashlib.sha256(), hashlib.sha256(), 0
    with tcp(host, port) as server:
        server.settimeout(250)
        server.sendall(b'source %d\n' % mebibytes)
        room = memoryview(bytearray(1 << 20))
        while count := server.recv_into(room):
            here.update(room[:count])
            total += count
    for block in blocks(mebibytes):
        there.update(block)
    print(total, here.hexdigest(), mebibytes << 20, there.hexdigest())


verb, arguments = sys.argv[1], sys.argv[2:]
if verb == 'serve':
    serve([int(port) for port in arguments])
else:
    host, numbers = arguments[0], [int(word) for word in arguments[1:]]
    {'count': count, 'who': who, 'udp-who': udp_who, 'udp-echo': udp_echo, 'connect': connect, 'sink': sink, 'source': source}[verb](host, *numbers)
