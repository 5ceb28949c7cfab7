"""A name server of one answer: nameserver.py ADDRESS ANSWER MODE. It prints every question as `udp NAME TYPE EDNS` or `tcp ...`.

ANSWER is the IPv4 address of every name, but of those that begin with `no`, which are not there. MODE: `plain`; `short`, whose
datagrams only say that the answer needs TCP; `fail`, which answers SERVFAIL; `deaf`, which answers nothing.
"""
import socket
import struct
import sys
import threading

address, answer, mode = sys.argv[1], socket.inet_aton(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ':' in address else socket.AF_INET


def reply(query, way):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack('!H', query[at + 1:at + 3])[0]
    end = at + 5
    name = '.'.join(labels).lower()
    edns = struct.unpack('!H', query[10:12])[0] > 0
    print(way, name, kind, 'edns' if edns else 'plain', flush=True)
    if mode == 'deaf':
        return None
    flags, answers, body = 0x8180, 0, b''
    if mode == 'fail':
        flags |= 2
    elif name.startswith('no'):
        flags |= 3
    elif mode == 'short' and way == 'udp':
        flags |= 0x0200
    elif kind == 1:
        answers, body = 1, b'\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04' + answer
    elif kind == 16:
        # 3,000 bytes of text in one set, more than a datagram without EDNS takes.
        answers = 12
        body = (b'\xc0\x0c\0\x10\0\x01\0\0\0\x3c' + struct.pack('!H', 251) + b'\xfa' + b't' * 250) * 12
    return query[:2] + struct.pack('!HHHHH', flags, 1, answers, 0, 0) + query[12:end] + body


def attend(client):
    with client, client.makefile('rb') as stream:
        while head := stream.read(2):
            back = reply(stream.read(struct.unpack('!H', head)[0]), 'tcp')
            if back is None:
                return
            client.sendall(struct.pack('!H', len(back)) + back)


def stream():
    while True:
        client, _ = listener.accept()
        threading.Thread(target=attend, args=(client,), daemon=True).start()


listener = socket.create_server((address, 53), family=family)
threading.Thread(target=stream, daemon=True).start()
datagrams = socket.socket(family, socket.SOCK_DGRAM)
datagrams.bind((address, 53))
print('ready', flush=True)
while True:
    query, peer = datagrams.recvfrom(4096)
    back = reply(query, 'udp')
    if back is not None:
        datagrams.sendto(back, peer)
