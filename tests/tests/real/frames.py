"""Sends one TCP SYN and one datagram straight to the gateway's hardware address, whatever the node's own tables say of the
destination: frames.py DESTINATION PORT. Prints how many frames it has sent."""
import re
import socket
import subprocess
import sys

address, port = sys.argv[1], int(sys.argv[2])
v6 = ':' in address
family = socket.AF_INET6 if v6 else socket.AF_INET


def said(line):
    return subprocess.run(line.split(), capture_output=True, text=True).stdout


def checksum(data):
    data += b'\0' * (len(data) % 2)
    total = sum(int.from_bytes(data[at:at + 2], 'big') for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packet(protocol, body, at):
    length = len(body)
    ends = source + destination
    if v6:
        pseudo = ends + length.to_bytes(4, 'big') + bytes([0, 0, 0, protocol])
    else:
        pseudo = ends + bytes([0, protocol]) + length.to_bytes(2, 'big')
    body = body[:at] + checksum(pseudo + body).to_bytes(2, 'big') + body[at + 2:]
    if v6:
        return bytes([0x60, 0, 0, 0]) + length.to_bytes(2, 'big') + bytes([protocol, 64]) + ends + body
    head = bytes([0x45, 0]) + (20 + length).to_bytes(2, 'big') + bytes([0, 1, 0, 0, 64, protocol, 0, 0]) + ends
    return head[:10] + checksum(head).to_bytes(2, 'big') + head[12:] + body


flag = '-6' if v6 else '-4'
own = re.search(r'inet6? ([^/]*)/', said('ip %s -o addr show dev eth0 scope global' % flag)).group(1)
gateway = re.search(r'via (\S+)', said('ip %s route show default' % flag)).group(1)
said('ping -c 1 -W 2 ' + gateway)
there = re.search(r'lladdr (\S+)', said('ip %s neigh show %s dev eth0' % (flag, gateway))).group(1)
here = open('/sys/class/net/eth0/address').read().strip()
source, destination = socket.inet_pton(family, own), socket.inet_pton(family, address)
ethernet = bytes.fromhex(there.replace(':', '')) + bytes.fromhex(here.replace(':', ''))
ethernet += b'\x86\xdd' if v6 else b'\x08\x00'
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('eth0', 0))
ports = (40000).to_bytes(2, 'big') + port.to_bytes(2, 'big')
wire.send(ethernet + packet(6, ports + bytes(8) + bytes([0x50, 2, 255, 255, 0, 0, 0, 0]), 16))
wire.send(ethernet + packet(17, ports + (12).to_bytes(2, 'big') + bytes(2) + b'leak', 6))
print(2)
