"""Checks a running `switchboard` command against the PyPI package websockets: random frames, and two verdicts on them.

    differential.py WS_URL [--cases N] [--seed S]      ws://127.0.0.1:8080; with a path, such as /echo: only that one

The command must run with `--max-message-size 16K`, and with `--compress pooled` or `--compress dedicated`. Each case
sends frames, mostly valid ones, to an echo. What comes back - messages, pongs, close code - must be what websockets'
ServerProtocol says of the same frames. Exit code 1, with the first cases that failed, if anything differs, or if some
kind of frame, of mistake or of end never occurred.

Where the two differ with good reason, it says "Known difference" below, and why.
"""
import argparse
import asyncio
import codecs
import collections
import os
import random
import signal
import socket
import struct
import time
import traceback
import types
import zlib

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import permessage_deflate
from websockets.frames import Close, Frame, Opcode, apply_mask
from websockets.headers import build_extension, parse_extension
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

PATHS = ["/echo", "/echo-shared"]
CASES = 1500  # for each path
ENOUGH = 1500  # for every kind to occur
AT_ONCE = 12  # connections
PATIENCE = 10  # seconds, for each case
CUT = 4  # seconds after a close frame: the end of the stream should come with it, and not when the server cuts it (5 s)
SHOWN = 5  # failures

LIMIT = 16 << 10  # --max-message-size
# A compressed message of so many bytes on the wire may still be one of LIMIT bytes (Deflate::bound in
# src/codec/deflate.rs), and one of more than so many is refused in any case. Between the two nothing is sent.
FITS, TOO_LONG = LIMIT + LIMIT // 8 + 64, 2 * LIMIT
WINDOW = 1 << 15  # bytes, the largest of DEFLATE
TAIL = b"\x00\x00\xff\xff"  # what a sender takes off the end of a compressed message

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10

# How often each known difference occurred, and each kind of frame, of mistake and of end.
differences, kinds, mistakes, ends = (collections.Counter() for _ in range(4))


class Different(AssertionError):
    """The server's verdict is not that of websockets, or a case is not what it should be."""


# The verdict of websockets.


class Inflater:
    """What websockets gets for zlib.decompressobj.

    Known difference: RFC 7692, section 7.2.1, lets a sender set BFINAL on any block, and more blocks may follow.
    websockets drops what follows: the rest of the message, and all of the messages after it.
    """

    unconsumed_tail = b""  # never, without a limit
    latest = None  # websockets does not keep it beyond a message
    # Known difference: without context takeover, what comes after such a block cannot refer to before it with ours. RFC
    # 7692 does not speak of that, and a compressor that begins anew does not do it.
    takeover = False

    def __init__(self, wbits):
        self.wbits = wbits
        self.history = b""
        self.restart()

    def restart(self):
        self.stream = zlib.decompressobj(self.wbits, zdict=self.history if self.takeover else b"")
        self.taken = 0  # bytes, of this message

    def decompress(self, data, max_length=0):
        Inflater.latest = self
        before = self.stream.copy(), self.history
        try:
            return self.inflate(data)
        except zlib.error as e:
            # What came before the error may have been refused already: see Reference.of_a_broken_message.
            (self.stream, self.history), e.inflated = before, b""
            for i in range(len(data)):
                try:
                    e.inflated += self.inflate(data[i : i + 1])
                except zlib.error:
                    break
            raise

    def inflate(self, data):
        inflated = b""
        while data:
            if self.stream.eof:
                differences["a block after one with BFINAL"] += 1
                self.restart()
            piece = self.stream.decompress(data)
            self.history = (self.history + piece)[-WINDOW:]
            inflated += piece
            self.taken += len(data) - len(self.stream.unused_data)
            data = self.stream.unused_data
        return inflated

    def finish(self):
        """At a message's end: whether that is between two blocks. Then one that we make is taken for what it is."""
        if self.taken == len(TAIL):
            # Nothing but that: some send nothing more after a block with BFINAL, or in an empty message.
            self.restart()
            return True
        self.taken = 0
        stream = self.stream.copy()
        try:
            return self.stream.eof or stream.decompress(b"\x01\x05\x00\xfa\xffblock") == b"block" and stream.eof
        except zlib.error:
            return False


permessage_deflate.zlib = types.SimpleNamespace(**vars(zlib) | {"decompressobj": Inflater})


class Header:
    """One frame's header, as it is on the wire."""

    def __init__(self, data):
        self.first, second = data[0], data[1]
        least, form = {126: (126, ">H"), 127: (1 << 16, ">Q")}.get(second & 0x7F, (0, ">"))
        (self.length,) = struct.unpack_from(form, data, 2) or (second & 0x7F,)
        self.size = 2 + struct.calcsize(form) + (4 if second & 0x80 else 0)
        self.opcode = self.first & 0x0F
        self.is_control = self.opcode >= CLOSE
        self.is_minimal = least <= self.length < 1 << 63
        self.is_masked = second & 0x80 != 0


class Reference:
    """What websockets says of frames, one after the other."""

    def __init__(self, deflate):
        self.protocol = ServerProtocol(state=State.OPEN, max_size=LIMIT)
        self.deflate = deflate
        if deflate:
            self.protocol.extensions = [deflate]
            if not deflate.remote_no_context_takeover:
                deflate.decoder.takeover = True
        self.messages, self.pongs = [], []
        self.codes = set()  # that the close frame may have; empty while there is none
        self.by_client = False
        self.start()

    def start(self):
        """Before a message."""
        self.opcode, self.compressed, self.received, self.payload = None, False, 0, bytearray()
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def frame(self, data):
        """Takes in one frame, whole; or the beginning of the last one."""
        try:
            header = Header(data)
        except (IndexError, struct.error):
            self.ask(data)  # not even a whole header
            return
        if not header.is_minimal:
            # Known difference: websockets does not mind. RFC 6455, section 5.2: "the minimal number of bytes MUST be
            # used", "the most significant bit MUST be 0".
            differences["a length that is not minimal"] += 1
            self.codes = {1002}
            return
        if len(data) < header.size + header.length and self.is_broken(header):
            # Known difference: websockets looks at a frame when it has arrived, and ours when its header has.
            differences["the header of a frame cut off"] += 1
            self.codes = {1002}
            return
        if header.opcode in (TEXT, BINARY):
            compressed = header.first & RSV1 != 0
        else:
            compressed = header.opcode == CONTINUATION and self.compressed
        if compressed and self.deflate:
            # Known difference: websockets refuses a compressed message whose bytes on the wire are more than the limit,
            # and some that inflate to just the limit; after fragments of just the limit it knows none. Nothing of
            # this is in an RFC, and our limit is on the inflated bytes (src/limits.rs). They are counted in `take`.
            too_big = self.received + header.length > TOO_LONG
            self.protocol.max_message_size = None
        else:
            # Known difference: websockets counts a control frame as a part of the message in the middle of which it
            # comes, and refuses it if that is large. It is none: RFC 6455, section 5.4.
            short = header.is_control and header.length <= 125
            differences["a ping within a large message"] += short and len(self.payload) + header.length > LIMIT
            too_big = False
            self.protocol.max_message_size = None if short else LIMIT
        if header.opcode == CLOSE and self.protocol.current_size is not None:
            # Known difference: websockets answers a close frame within a message with 1002. RFC 6455, section 5.4:
            # "Control frames [...] MAY be injected in the middle of a fragmented message."
            differences["a close frame within a message"] += 1
            self.protocol.current_size = None
        frames = [] if too_big else self.ask(data)
        if too_big or isinstance(self.protocol.parser_exc, PayloadTooBig):
            # Known difference: of a frame that is too large, and breaks another rule besides, websockets says the
            # former, and ours the latter. The RFC has no order.
            broken = self.is_broken(header)
            differences["too large, and another rule"] += broken
            self.codes = {1002 if broken else 1009}
        elif self.protocol.parser_exc:
            self.of_a_broken_message(header, data, self.protocol.parser_exc)
        for frame in frames:
            self.take(frame, header.length, compressed)

    def ask(self, data):
        self.protocol.receive_data(data)
        for sent in self.protocol.data_to_send():
            if sent and sent[0] == FIN | PONG:
                self.pongs.append(sent[2:])
            elif sent and sent[0] == FIN | CLOSE:
                self.codes = {struct.unpack(">H", sent[2:4])[0] if sent[1] else 1005}
                self.by_client = self.protocol.parser_exc is None
        if 1011 in self.codes and not self.by_client:
            raise Different(f"websockets itself failed: {self.protocol.parser_exc!r}")
        return self.protocol.events_received()

    def is_broken(self, header):
        """Whether a frame's header breaks another rule than that of the size of messages."""
        if header.opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG) or not header.is_masked:
            return True
        if header.is_control:
            return header.first & ~header.opcode != FIN or header.length > 125
        reserved = RSV2 | RSV3 | (0 if self.deflate and header.opcode else RSV1)
        return header.first & reserved != 0 or (header.opcode == CONTINUATION) != (self.opcode is not None)

    def of_a_broken_message(self, header, data, error):
        if header.opcode == CLOSE and self.codes == {1007}:
            # Known difference: of a close frame whose code and text are both wrong, websockets says 1007, for the text,
            # and ours 1002. The RFC has no order.
            payload = apply_mask(data[header.size :], data[header.size - 4 : header.size])
            try:
                Close.parse(payload[:2])
            except ProtocolError:
                differences["a close frame that is wrong twice"] += 1
                self.codes = {1002}
        elif hasattr(error.__cause__, "inflated") and not self.is_broken(header):
            # Known difference: websockets inflates a frame whole before the size and the text are looked at, and ours
            # piece by piece, as it arrives. Of several mistakes it depends on the pieces which one is found.
            inflated = error.__cause__.inflated
            text = self.opcode == TEXT or header.opcode == TEXT
            room = LIMIT - len(self.payload)
            if len(inflated) > room:
                self.codes.add(1009)
            if text and not self.is_text(inflated[: room + 1], False):
                self.codes.add(1007)
            differences["broken twice while it inflates"] += len(self.codes) > 1

    def take(self, frame, length, compressed):
        """A frame that websockets has nothing against. Its connections look at the text, not its protocol."""
        if frame.opcode not in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
            return
        if frame.opcode is not Opcode.CONT:
            self.opcode, self.compressed = frame.opcode, compressed
        self.received += length
        room = LIMIT - len(self.payload)
        if len(frame.data) > room:
            self.codes = {1009}
            if self.opcode == TEXT and not self.is_text(frame.data[:room], False):
                differences["broken twice while it inflates"] += 1
                self.codes.add(1007)  # as above
            return
        self.payload += frame.data
        is_text = self.opcode == TEXT
        if is_text and not self.is_text(frame.data, False):
            self.codes = {1007}
        elif frame.fin and self.compressed and not Inflater.latest.finish():
            # Known difference: websockets takes a compressed message that ends within a block for a whole one, and goes
            # on within that block with the next message. It is broken: with the tail, a message is made of whole blocks
            # (RFC 7692, section 7.2.1).
            differences["a message that ends within a block"] += 1
            self.codes = {1002}
        elif frame.fin and is_text and not self.is_text(b"", True):
            self.codes = {1007}
        elif frame.fin:
            self.messages.append((int(self.opcode), bytes(self.payload)))
            self.start()

    def is_text(self, data, final):
        try:
            self.decoder.decode(data, final)
        except UnicodeDecodeError:
            return False
        # Known difference: Python waits for the third byte of a surrogate. After ED comes 80 to 9F (RFC 3629, section
        # 4), so this is no UTF-8 already, and ours says so (RFC 6455, section 8.1).
        begun = self.decoder.getstate()[0]
        surrogate = begun[:1] == b"\xed" and begun[1:] >= b"\xa0"
        differences["half a surrogate"] += surrogate
        return not surrogate


# What is sent.

Sent = collections.namedtuple("Sent", "what data")

VALID = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
NOT_VALID = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 0x8000, 65535]
CHARACTERS = "\0 az\x7f\x80éß\u07ff\u0800€\ud7ff\ue000\ufeff\uffff\U00010000😀\U0010ffff"
NOT_UTF8 = [
    b"\x80", b"\xbf", b"\xff", b"\xfe", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80",
    b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",  # overlong
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80",  # surrogates
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xc3(", b"\xe2\x82(", b"\xe2(\xa1", b"\xf0\x9f(\x80", b"\xf0\x9f\x98(", b"\xe2\x82\xe2\x82\xac",  # broken off
]  # fmt: skip

MISTAKES = []


def mistake(*codes, deflate=None):
    """Something that must end the connection with one of these codes; or may, with 0. On connections with or without
    `deflate`, with it but without context takeover, or on any."""

    def register(function):
        function.codes, function.deflate = set(codes), deflate
        MISTAKES.append(function)
        return function

    return register


class Script:
    """Frames for one case, all of them random from its seed, and how they are sent."""

    def __init__(self, rng, deflate):
        self.rng, self.chance = rng, lambda chance: rng.random() < chance
        self.pick = lambda *choices: rng.choice(choices)
        self.deflate = deflate  # the client's side of it
        self.stream, self.history = None, b""
        self.sent = []
        self.mistake, self.mistaken = None, range(0)
        self.cut_off = False
        for _ in range(self.pick(0, 1, 1, 2, 3, 5, 8)):
            self.something()
        if self.chance(0.7):
            fits = {None, deflate is not None}
            if deflate and deflate.local_no_context_takeover:
                fits.add("no context takeover")
            fitting = [m for m in MISTAKES if m.deflate in fits]
            self.mistake, begin = rng.choice(fitting), len(self.sent)
            self.mistake(self)
            self.mistaken = range(begin, len(self.sent))
            if self.mistake.codes == {0}:
                self.end()
            elif self.chance(0.5):
                for _ in range(rng.randint(1, 3)):
                    self.something()  # which should not matter any more
                self.end()
        else:
            self.end()

    def frame(self, what, first, payload=b"", masked=True, form=None, length=None):
        length = len(payload) if length is None else length
        form = form or min(length, 126 if length < 1 << 16 else 127)
        data = bytes([first, masked << 7 | form])
        if form >= 126:
            data += length.to_bytes(2 if form == 126 else 8, "big")
        if masked:
            mask = self.pick(bytes(4), self.rng.randbytes(4))
            data += mask + apply_mask(payload, mask)
        else:
            data += payload
        self.sent.append(Sent(what, data))

    # Valid frames.

    def something(self):
        if self.chance(0.25):
            self.control()
        else:
            self.message()

    def size(self):
        sizes = [0, 1, 2, 124, 125, 126, 127, 128, 2043, 2044, LIMIT - 1, LIMIT, self.rng.randint(0, LIMIT)]
        return self.rng.choice(sizes) if self.chance(0.4) else self.rng.randint(0, 300)

    def text(self, size):
        some = "".join(self.rng.choices(CHARACTERS, k=self.rng.randint(1, 40))).encode()
        text = (some * (size // len(some) + 1))[:size]
        while text and text[-1] & 0xC0 == 0x80:
            text = text[:-1]  # to before the character that may have been cut
        if text and text[-1] >= 0xC0:
            text = text[:-1]
        return text + b"x" * (size - len(text))

    def binary(self, size):
        some = self.rng.randbytes(self.pick(1, 20, max(size, 1)))
        return (some * (size // len(some) + 1))[:size]

    def content(self, size=None):
        size = self.size() if size is None else size
        return (TEXT, self.text(size)) if self.chance(0.5) else (BINARY, self.binary(size))

    def control(self):
        opcode = self.pick(PING, PING, PONG)
        size = self.pick(0, 1, 4, 8, 124, 125, self.rng.randint(0, 125))
        self.frame("ping" if opcode == PING else "pong", FIN | opcode, self.rng.randbytes(size))

    def message(self, opcode=None, payload=None, what="message", wire=None):
        """A message in one frame or in several. `wire`: its compressed form, if that was made already."""
        if opcode is None:
            opcode, payload = self.content()
        if wire is None:
            wire = self.compress(payload) if self.wants_deflate() else None
        if wire is not None:
            what = "compressed " + what
        self.fragments(opcode, payload if wire is None else wire, what, wire is not None)

    def cuts(self, data, count):
        return sorted(self.rng.randint(0, len(data)) for _ in range(count))

    def fragments(self, opcode, payload, what="message", compressed=False, ends=True):
        cuts = self.cuts(payload, self.pick(0, 0, 0, 1, 2, 5) if ends else self.pick(1, 1, 2, 5))
        pieces = [payload[a:b] for a, b in zip([0] + cuts, cuts + [len(payload)])]
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1
            if last and not ends:
                return
            if i and self.chance(0.3):
                self.control()
            first = FIN * last | (CONTINUATION if i else opcode) | (RSV1 if compressed and not i else 0)
            self.frame(f"{what}, fragment {i}" if i or not last else what, first, piece)

    def begin(self, compressed=None):
        """A message without its end."""
        opcode, payload = self.content(self.rng.randint(0, 300))
        if compressed is None:
            compressed = self.wants_deflate()
        wire = self.compress(payload) if compressed else payload
        self.fragments(opcode, wire, "beginning of a message", compressed, ends=False)

    # Compression.

    def wants_deflate(self):
        return self.deflate is not None and self.chance(0.6)

    def open_stream(self, history):
        """A compressor; it may refer to `history`."""
        bits = self.deflate.local_max_window_bits
        level, memory = self.pick(0, 1, 6, 6, 6, 9), self.pick(1, 8, 8, 9)
        strategy = self.pick(0, 0, 0, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
        # Known difference: what is beyond the window need not be remembered (RFC 7692, section 7.1.2.2), and how much
        # of it is depends on the inflater. So nothing here refers to it.
        near = history[-(1 << bits) + 300 :]
        arguments = {"zdict": near} if near and self.chance(0.7) else {}
        return zlib.compressobj(level, zlib.DEFLATED, -bits, memory, strategy, **arguments)

    def compress(self, payload):
        """The payload of a compressed message. None: it would be longer than `FITS`."""
        flushes = zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK, zlib.Z_FINISH
        if self.deflate.local_no_context_takeover:
            self.stream, self.history = None, b""
        stream = self.stream
        if stream is None or self.chance(0.1):
            stream = self.open_stream(self.history)
        wire, done = b"", 0
        for cut in self.cuts(payload, self.pick(0, 0, 0, 1, 3)):
            flush = self.pick(*flushes)
            wire += stream.compress(payload[done:cut]) + stream.flush(flush)
            done = cut
            if flush == zlib.Z_FINISH:
                # Without context takeover nothing before it can be referred to: see Inflater.
                known = b"" if self.deflate.local_no_context_takeover else self.history + payload[:cut]
                stream = self.open_stream(known)
        wire += stream.compress(payload[done:])
        if self.chance(0.1):
            wire += stream.flush(zlib.Z_FINISH) + b"\0"  # RFC 7692, section 7.2.3.4
            stream = None
        else:
            wire += stream.flush(zlib.Z_SYNC_FLUSH)
            # zlib flushes nothing twice: then the message is an empty block (section 7.2.3.6).
            wire = wire[:-4] if wire.endswith(TAIL) else wire + b"\0"
        if len(wire) > FITS:
            self.stream = None
            return None
        self.stream = stream
        self.history = (self.history + payload)[-WINDOW:]
        return wire

    # The end.

    def end(self):
        choice = self.rng.random()
        if choice < 0.2:
            self.cut_off = True  # no close frame, and perhaps no whole frame
            within = self.chance(0.3)
            if within:
                self.begin()
            if self.chance(0.7):
                count = len(self.sent)
                self.control() if within else self.message()
                del self.sent[count + 1 :]
                data = self.sent.pop().data
                self.sent.append(Sent("a frame cut off", data[: self.rng.randrange(len(data))]))
            return
        if choice < 0.35:
            self.begin()
            self.frame("a close frame within a message", FIN | CLOSE, self.reason())
        elif choice < 0.5:
            self.frame("an empty close frame", FIN | CLOSE)
        else:
            self.frame("a close frame", FIN | CLOSE, self.reason())
        if self.chance(0.3):
            self.sent.append(Sent("what follows a close frame", self.rng.randbytes(self.rng.randint(1, 300))))

    def reason(self):
        code = self.pick(*VALID, self.rng.randint(3000, 4999))
        return struct.pack(">H", code) + self.text(self.pick(0, 0, 5, 122, 123, self.rng.randint(0, 123)))

    # Mistakes.

    @mistake(1002)
    def rsv1_on_a_continuation_of_a_plain_message(self):
        self.begin(compressed=False)
        self.frame("continuation with RSV1", self.pick(0, FIN) | RSV1 | CONTINUATION, b"abc")

    @mistake(1002, deflate=True)
    def rsv1_on_a_continuation_of_a_compressed_message(self):
        self.begin(compressed=True)
        self.frame("continuation with RSV1", self.pick(0, FIN) | RSV1 | CONTINUATION, b"\0")

    @mistake(1002)
    def rsv1_on_a_control_frame(self):
        self.frame("control frame with RSV1", FIN | RSV1 | self.pick(CLOSE, PING, PONG), self.pick(b"", b"\x03\xe8"))

    @mistake(1002, deflate=False)
    def rsv1_without_an_extension(self):
        opcode, payload = self.content()
        self.frame("RSV1", self.pick(0, FIN) | RSV1 | opcode, payload)

    @mistake(1002)
    def rsv2_or_rsv3(self):
        first = self.pick(FIN | TEXT, TEXT, FIN | BINARY, FIN | PING, FIN | CLOSE, CONTINUATION)
        if first == CONTINUATION:
            self.begin()
        first |= self.pick(RSV2, RSV3, RSV2 | RSV3, RSV1 | RSV2)
        self.frame("RSV2 or RSV3", first, self.text(self.pick(0, 2, 50)))

    @mistake(1002)
    def reserved_opcode(self):
        if self.chance(0.2):
            self.begin()
        opcode = self.pick(3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
        self.frame("reserved opcode", self.pick(0, FIN) | opcode, self.text(self.pick(0, 5, 200)))

    @mistake(1002)
    def no_mask(self):
        self.frame("no mask", FIN | self.pick(TEXT, BINARY, CLOSE, PING, PONG), self.text(self.pick(0, 5, 100)), False)

    @mistake(1002)
    def control_frame_too_long(self):
        if self.chance(0.2):
            self.begin()
        size = self.pick(126, 127, 200, LIMIT, LIMIT + 1, 65535, 65536)
        self.frame("control frame", FIN | self.pick(CLOSE, PING, PONG), bytes([3, 232]) + self.text(size - 2))

    @mistake(1002)
    def control_frame_in_fragments(self):
        self.frame("control frame without FIN", self.pick(CLOSE, PING, PONG), b"\x03\xe8")
        self.frame("continuation", FIN | CONTINUATION, b"abc")

    @mistake(1002)
    def continuation_of_nothing(self):
        self.frame("continuation", self.pick(0, FIN) | CONTINUATION, self.binary(self.size()))

    @mistake(1002)
    def message_within_a_message(self):
        self.begin()
        opcode, payload = self.content()
        self.frame("another message", self.pick(0, FIN) | opcode, payload)

    @mistake(1002, deflate=True)
    def compressed_message_within_a_message(self):
        self.begin()
        self.frame("another message", self.pick(0, FIN) | RSV1 | BINARY, b"\0")

    def not_utf8(self):
        """Text around a mistake, and where that is."""
        before, bad = self.text(self.size() // 2), self.pick(*NOT_UTF8)
        return before + bad + self.text(self.pick(0, 0, 3, 200)), len(before), len(bad)

    @mistake(1007)
    def text_that_is_not_utf8(self):
        self.frame("text", FIN | TEXT, self.not_utf8()[0])

    @mistake(1007)
    def text_that_is_not_utf8_in_fragments(self):
        text, at, size = self.not_utf8()
        cut = at + self.rng.randint(1, size) if size > 1 else self.rng.randint(0, len(text))
        self.frame("text", TEXT, text[:cut])
        self.control()
        if self.chance(0.3):
            self.frame("text, nothing", CONTINUATION)
        again = self.rng.randint(cut, len(text))
        self.frame("text, more", CONTINUATION, text[cut:again])
        self.frame("text, the rest", FIN | CONTINUATION, text[again:])

    @mistake(1007)
    def text_that_ends_within_a_character(self):
        half = self.pick(*"é€😀").encode()
        text = self.text(self.size() // 2) + half[: self.rng.randint(1, len(half) - 1)]
        self.fragments(TEXT, text, "text")

    @mistake(1007, deflate=True)
    def compressed_text_that_is_not_utf8(self):
        text = self.pick(self.not_utf8()[0], self.text(50) + b"\xe2\x82")
        wire = self.compress(text)
        self.fragments(TEXT, wire, "compressed text", True)

    @mistake(1002)
    def close_frame_of_one_byte(self):
        self.frame("close frame", FIN | CLOSE, self.rng.randbytes(1))

    @mistake(1002)
    def close_code_that_is_none(self):
        others = self.rng.randint(0, 999), self.rng.randint(1016, 2999), self.rng.randint(5000, 65535)
        code, text = self.pick(*NOT_VALID, *others), self.pick(b"", b"why", self.pick(*NOT_UTF8))
        self.frame("close frame", FIN | CLOSE, struct.pack(">H", code) + text)

    @mistake(1007)
    def close_text_that_is_not_utf8(self):
        text = self.text(self.rng.randint(0, 50)) + self.pick(*NOT_UTF8, b"\xe2\x82", b"\xf0\x9f")
        self.frame("close frame", FIN | CLOSE, struct.pack(">H", self.pick(*VALID)) + text)

    @mistake(1009)
    def too_big_in_one_frame(self):
        opcode, payload = self.content(self.pick(LIMIT + 1, LIMIT + 2, FITS, 2 * LIMIT, 65535, 65536, 70000))
        self.frame("large message", self.pick(0, FIN) | opcode, payload)

    @mistake(1009)
    def too_big_in_fragments(self):
        opcode, payload = self.content(LIMIT)
        more = self.text(self.pick(1, 1, 2, 1000))
        cut = self.rng.randint(len(more), LIMIT)
        self.frame("large message", opcode, payload[:cut])
        self.control()
        self.frame("more of it", CONTINUATION, payload[cut:])
        self.control()
        self.frame("too much of it", self.pick(0, FIN) | CONTINUATION, more)

    @mistake(1009)
    def a_length_that_never_comes(self):
        length = self.pick(65536, 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 1)
        self.frame("large message", FIN | self.pick(TEXT, BINARY), self.pick(b"", b"beginning"), length=length)

    @mistake(1009, deflate=True)
    def too_big_when_inflated(self):
        size = self.pick(LIMIT + 1, LIMIT + 1, LIMIT + 2, 2 * LIMIT, 1 << 20)
        self.stream = None
        opcode, some = self.pick((TEXT, b"x"), (BINARY, b"\0"), (TEXT, "größe ".encode()))
        payload = (some * size)[: size - size % len(some)] + b"x" * (size % len(some))
        deflate = zlib.compressobj(self.rng.randint(1, 9), wbits=-self.deflate.local_max_window_bits)
        wire = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
        self.fragments(opcode, wire[:-4], "compressed large message", True)

    @mistake(1009, deflate=True)
    def too_big_although_compressed(self):
        payload = self.rng.randbytes(TOO_LONG + self.pick(1, 2, LIMIT))
        self.frame("compressed large message", FIN | RSV1 | BINARY, payload)

    @mistake(1002)
    def a_length_that_is_not_minimal(self):
        size, form = self.pick((0, 126), (0, 127), (3, 126), (3, 127), (125, 126), (65535, 127))
        self.frame("message", FIN | self.pick(TEXT, BINARY, PING), bytes(size), form=form)

    @mistake(1002)
    def a_length_with_the_highest_bit(self):
        self.frame("message", FIN | self.pick(TEXT, BINARY), b"abc", length=1 << 63 | self.pick(0, 3, 1 << 32))

    @mistake(1002, deflate="no context takeover")
    def reference_to_an_earlier_message(self):
        payload = self.rng.randbytes(self.pick(20, 100, 250))
        self.message(BINARY, payload, wire=self.compress(payload))
        stream = zlib.compressobj(wbits=-self.deflate.local_max_window_bits, zdict=payload)
        wire = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
        self.fragments(BINARY, wire[:-4], "compressed message", True)

    # Known difference: from 2,044 bytes on, websockets inflates the tail separately, and if that makes anything, as
    # broken data may, calls the message too big. So what is broken is shorter here.

    @mistake(0, 1002, 1007, deflate=True)
    def broken_compression(self):
        opcode, payload = self.content(self.pick(10, 300, 1500))
        wire = bytearray(self.compress(payload)[:2000])
        if self.deflate.local_max_window_bits < 15:
            # A distance that is wrong might be one beyond the window: see open_stream. So the kind of a block is.
            wire[-1:] = self.pick(b"\x06", b"\x00\x05\x00\x05\x00hello", b"\x04\xff\xff\xff")
        elif self.chance(0.2):
            wire = self.rng.randbytes(self.rng.randint(1, 100))
        else:
            for _ in range(self.pick(1, 1, 2, 10)):
                wire[self.rng.randrange(len(wire))] ^= 1 << self.rng.randrange(8)
        self.fragments(opcode, bytes(wire), "broken compressed message", True)
        self.deflate = None  # what would come could refer to it

    @mistake(0, 1002, 1007, deflate=True)
    def compression_that_ends_within_a_block(self):
        wire = self.compress(self.text(self.pick(10, 300, 1500)))[:2000]
        self.fragments(TEXT, wire[: self.rng.randint(0, len(wire) - 1)], "half a compressed message", True)
        self.deflate = None

    @mistake(0, 1002, 1005, 1007, 1009)
    def random_bytes(self):
        for _ in range(self.rng.randint(1, 6)):
            while True:
                data = bytearray(self.rng.randbytes(self.rng.randint(14, 60)))
                if self.chance(0.9):
                    data[1] |= 0x80  # the mask, or nothing would come behind it
                if self.chance(0.7):
                    data[0] = data[0] & FIN | self.pick(CONTINUATION, TEXT, BINARY, PING)
                header = Header(data)
                end = header.size + header.length
                if not 2000 < header.length <= TOO_LONG:
                    break
            if header.length <= TOO_LONG:  # the rest of it
                data += self.rng.randbytes(max(0, end - len(data)))
            self.sent.append(Sent("random bytes", bytes(data[:end])))
        self.deflate = None  # they may have been a message

    @mistake(0, deflate=True)
    def compressed_message_of_the_limit(self):
        opcode, payload = self.content(LIMIT)
        wire = self.compress(payload)
        if wire is not None:
            self.message(opcode, payload, "message of the limit", wire)

    @mistake(0)
    def ping_within_a_large_message(self):
        opcode, payload = self.content(LIMIT)
        cut = LIMIT - self.rng.randint(0, 125)
        self.frame("large message", opcode, payload[:cut])
        self.frame("ping within a large message", FIN | PING, self.rng.randbytes(self.rng.randint(1, 125)))
        self.frame("large message, the rest", FIN | CONTINUATION, payload[cut:])

    # How it is sent.

    def segments(self, count):
        """The bytes of these frames, cut at random, and whether there is a pause after each piece."""
        data = b"".join(sent.data for sent in self.sent[:count])
        how = self.pick("whole", "whole", "bytes", "random", "random", "headers", "headers")
        if how == "whole":
            cuts = []
        elif how == "bytes" and len(data) < 200:
            cuts = range(1, len(data))
        elif how != "headers":
            cuts = self.cuts(data, self.rng.randint(1, 6))
        else:
            cuts, at = [], 0
            for sent in self.sent[:count]:
                at += len(sent.data)
                cuts.append(at + self.rng.randint(-3, 10))
        cuts = sorted({cut for cut in cuts if 0 < cut < len(data)})
        pause = self.pick(0, 0, 0.1, 0.5)
        for begin, end in zip([0, *cuts], [*cuts, len(data)]):
            yield data[begin:end], self.chance(pause)


# The verdict of the server.


class Verdict:
    """What the server sends, as it arrives."""

    def __init__(self, deflate):
        self.deflate = deflate
        self.reader = StreamReader()
        self.messages, self.pongs = [], []
        self.code = None
        self.closed = self.ended = None  # when
        self.news = asyncio.Event()
        self.parse()

    def parse(self):
        self.frame = Frame.parse(self.reader.read_exact, mask=False, extensions=[self] if self.deflate else [])

    def decode(self, frame, *, max_size=None):
        """Called for each frame of the server, as an extension is."""
        kinds["compressed answer"] += frame.rsv1
        return self.deflate.decode(frame, max_size=max_size)

    def feed(self, data):
        self.reader.feed_data(data)
        while True:
            try:
                next(self.frame)
            except StopIteration as parsed:
                self.take(parsed.value)
                self.parse()
            else:
                break
        if self.code is not None and self.reader.buffer:
            raise Different(f"after its close frame the server sent {bytes(self.reader.buffer)!r}")
        self.news.set()

    def end(self):
        self.ended = time.monotonic()
        self.reader.feed_eof()
        self.news.set()
        if self.reader.buffer:
            raise Different(f"the server's last frame is cut off: {bytes(self.reader.buffer)!r}")

    def take(self, frame):
        if self.code is not None:
            raise Different(f"after its close frame the server sent {frame}")
        if not frame.fin:
            raise Different(f"a fragment, of a message that was echoed: {frame}")
        data = bytes(frame.data)
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self.messages.append((int(frame.opcode), data))
        elif frame.opcode is Opcode.PONG:
            self.pongs.append(data)
        elif frame.opcode is Opcode.CLOSE:
            self.code, self.closed = int(Close.parse(data).code), time.monotonic()
        else:
            raise Different(f"the server sent {frame}")


class Connection:
    """One case."""

    def __init__(self, address, host, path, seed):
        self.address, self.host, self.path, self.seed = address, host, path, seed
        self.rng = random.Random(f"{seed} {path}")
        self.script = self.reference = self.verdict = None
        self.agreed = None

    async def run(self):
        with socket.socket(self.address[0], socket.SOCK_STREAM) as self.socket:
            self.socket.setblocking(False)
            self.loop = asyncio.get_running_loop()
            await self.loop.sock_connect(self.socket, self.address[-1])
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client, server = await self.open()
            self.script = Script(self.rng, client)
            self.judge(server)
            self.verdict = Verdict(client)
            tasks = [asyncio.create_task(self.send()), asyncio.create_task(self.receive())]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
            self.compare()

    async def open(self):
        """The opening handshake. Returns both sides' compression, or None twice."""
        offer = None
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        request = f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        request += f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        if self.rng.random() >= 0.25:
            choice = self.rng.choice
            offer = permessage_deflate.ClientPerMessageDeflateFactory(
                choice([False, True]),
                choice([False, False, True]),
                choice([None, None, 8, 9, 10, 12, 15]),
                choice([None, True, True, 9, 10, 12, 15]),  # zlib cannot compress with 8
            )
            request += f"Sec-WebSocket-Extensions: {build_extension([(offer.name, offer.get_request_params())])}\r\n"
        await self.loop.sock_sendall(self.socket, f"{request}\r\n".encode())
        response = b""
        while not response.endswith(b"\r\n\r\n"):
            received = await self.loop.sock_recv(self.socket, 65536)
            if not received:
                break
            response += received
        lines = response.decode().split("\r\n")
        if lines[0] != "HTTP/1.1 101 Switching Protocols":
            raise Different(f"no WebSocket: {lines[0]!r}")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.agreed = headers.get("sec-websocket-extensions")
        if self.agreed is None:
            # What zlib cannot do, it must not promise.
            if offer and offer.server_max_window_bits != 8:
                raise Different(f"compression was refused: {offer.get_request_params()}")
            kinds["opening that was refused compression" if offer else "opening without compression"] += 1
            return None, None
        ((name, parameters),) = parse_extension(self.agreed)
        if not offer or name != offer.name:
            raise Different(f"nobody offered {self.agreed}")
        client = offer.process_response_params(parameters, [])
        takeover = "no context" if client.local_no_context_takeover else "context"
        kinds[f"opening with {takeover} takeover"] += 1
        return client, permessage_deflate.PerMessageDeflate(
            client.local_no_context_takeover,
            client.remote_no_context_takeover,
            client.local_max_window_bits,
            client.remote_max_window_bits,
        )

    def judge(self, deflate):
        """Lets websockets see the frames, and counts what was in them until the one that ended it."""
        script, self.reference = self.script, Reference(deflate)
        decisive = None
        for i, sent in enumerate(script.sent):
            self.reference.frame(sent.data)
            if self.reference.codes:
                decisive = i
                break
        else:
            if not script.cut_off:
                # A mistake that was none, at the end.
                decisive = len(script.sent)
                script.frame("a close frame", FIN | CLOSE, script.reason())
                self.reference.frame(script.sent[-1].data)
        self.decisive = decisive
        end = len(script.sent) if decisive is None else decisive + 1
        for sent in script.sent[:end]:
            kinds[sent.what.partition(", ")[0]] += 1
            kinds["fragment"] += ", fragment" in sent.what
        codes, wanted = self.reference.codes, script.mistake.codes if script.mistake else {0}
        if script.mistake:
            found = "/".join(map(str, sorted(codes))) if decisive in script.mistaken else "no mistake"
            mistakes[script.mistake.__name__.replace("_", " "), found] += 1
            # Else the mistake is not the one that it is called.
            if decisive not in script.mistaken and 0 not in wanted:
                raise Different(f"websockets does not object to {script.mistake.__name__}")
            by_code = script.mistake.__name__ == "random_bytes"  # a close frame with any code may be among them
            if decisive in script.mistaken and not codes <= wanted and not by_code:
                raise Different(f"websockets says {codes} of {script.mistake.__name__}")
        if not codes:
            ends["no close frame"] += 1
        elif not self.reference.by_client:
            ends["/".join(map(str, sorted(codes)))] += 1
        else:
            ends["close by the client" + (" without a code" if 1005 in codes else "")] += 1

    async def send(self):
        """Sends the frames. Before an end by the client it may wait for the answers."""
        reference, script = self.reference, self.script
        # What a client does not wait for need not be answered before its close frame is: see `compare`.
        self.waits = not reference.codes or reference.by_client and script.chance(0.5)
        count = self.decisive if self.waits and reference.codes else len(script.sent)
        await self.send_segments(script.segments(count))
        if self.waits:
            await self.wait_for_answers()
        if count < len(script.sent):
            await self.send_segments([(b"".join(sent.data for sent in script.sent[count:]), False)])
        if not reference.codes:
            self.socket.shutdown(socket.SHUT_WR)

    async def send_segments(self, segments):
        for segment, pause in segments:
            await self.loop.sock_sendall(self.socket, segment)
            await asyncio.sleep(0.001 * pause)

    async def wait_for_answers(self):
        verdict, reference = self.verdict, self.reference
        while not verdict.ended and (
            len(verdict.messages) < len(reference.messages) or len(verdict.pongs) < len(reference.pongs)
        ):
            verdict.news.clear()
            await verdict.news.wait()

    async def receive(self):
        while data := await self.loop.sock_recv(self.socket, 65536):
            self.verdict.feed(data)
        self.verdict.end()

    def compare(self):
        reference, verdict = self.reference, self.verdict
        code = verdict.code or 0
        if code not in (reference.codes or {0}):
            raise Different("the close code")
        messages = reference.messages
        if reference.by_client and not self.waits and len(verdict.messages) < len(messages):
            # A close frame is answered "as soon as practical" (RFC 6455, section 5.5.1), and then nothing more can be
            # sent. So it is with shared connections; the threads of the others have nearly always answered before.
            messages = messages[: len(verdict.messages)]
            differences[f"{self.path}: closed before all was answered"] += 1
        if verdict.messages != messages:
            raise Different("the messages")
        if verdict.pongs != reference.pongs:
            raise Different("the pongs")
        if verdict.closed and verdict.ended - verdict.closed > CUT:
            raise Different("the stream did not end with the close frame, but was cut off")

    def describe(self):
        """All of a case."""
        lines = [f"{self.path}, to be seen again with --seed {self.seed} --cases 1; compression: {self.agreed}"]
        if self.script:
            lines += [f"    {sent.what}: {shorten(sent.data)}" for sent in self.script.sent]
        for name, side in [("websockets", self.reference), ("the server", self.verdict)]:
            if side:
                code = side.code if isinstance(side, Verdict) else "/".join(map(str, sorted(side.codes))) or None
                lines.append(f"  {name}: close code {code}; pongs {[shorten(pong) for pong in side.pongs]};")
                lines += [f"    message {opcode}: {shorten(data)}" for opcode, data in side.messages]
        return "\n".join(lines)


def shorten(data):
    return data.hex() if len(data) <= 100 else f"{data[:60].hex()}...{data[-30:].hex()} ({len(data)} bytes)"


# A run.


class Run:
    def __init__(self, url, cases, seed):
        self.host, slash, path = url.removeprefix("ws://").partition("/")
        paths = [slash + path] if path else PATHS
        self.cases = ((path, seed + i) for i in range(cases) for path in paths)
        self.passed, self.failed = 0, []

    async def worker(self):
        for path, seed in self.cases:
            if len(self.failed) >= SHOWN:
                return
            connection = Connection(self.address, self.host, path, seed)
            try:
                await asyncio.wait_for(connection.run(), PATIENCE)
                self.passed += 1
            except Exception as e:
                self.failed.append(seed)
                why = f"not done within {PATIENCE} s" if isinstance(e, asyncio.TimeoutError) else e
                if not isinstance(e, (Different, OSError, asyncio.TimeoutError)):
                    traceback.print_exc()
                print(f"FAILED: {why!r}: {connection.describe()}\n", flush=True)

    async def run(self):
        host, _, port = self.host.rpartition(":")
        (self.address, *_) = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )
        await asyncio.gather(*(self.worker() for _ in range(AT_ONCE)))


# What must have occurred: a case of one kind may hide that there was none of another.
ENDS = ["no close frame", "close by the client", "close by the client without a code", "1002", "1007", "1009"]
DIFFERENCES = [
    "a block after one with BFINAL",
    "a length that is not minimal",
    "a message that ends within a block",
    "a close frame within a message",
    "a ping within a large message",
    "a close frame that is wrong twice",
    "too large, and another rule",
]
KINDS = [
    "opening without compression",
    "opening that was refused compression",
    "opening with no context takeover",
    "message",
    "compressed message",
    "compressed answer",
    "fragment",
    "ping",
    "pong",
    "a close frame",
    "an empty close frame",
    "a close frame within a message",
    "a frame cut off",
    "ping within a large message",
    "compressed message of the limit",
]


def missing():
    """What never occurred."""
    for counter, names in [(ends, ENDS), (differences, DIFFERENCES), (kinds, KINDS)]:
        yield from (name for name in names if not counter[name])
    for function in MISTAKES:
        name = function.__name__.replace("_", " ")
        if not any(mistakes[name, str(code or "no mistake")] for code in function.codes):
            yield name


def show_tally():
    for title, counter in [("ends", ends), ("frames", kinds), ("known differences", differences)]:
        print(f"{title}:", ", ".join(f"{name} {n}" for name, n in sorted(counter.items())))
    print("mistakes:")
    by_name = collections.defaultdict(list)
    for (name, found), n in sorted(mistakes.items()):
        by_name[name].append(f"{found}: {n}")
    for name, found in by_name.items():
        print(f"    {name:52}{', '.join(found)}")


def fail(what):
    print(f"differential: FAILED: {what}", flush=True)
    os._exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", metavar="WS_URL")
    parser.add_argument("--cases", type=int, default=CASES, help="for each path (default %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9), help="of the first case (default: random)")
    args = parser.parse_args()
    whole_run = 60 + args.cases // 10
    signal.signal(signal.SIGALRM, lambda *_: fail(f"not done within {whole_run} s"))
    signal.alarm(whole_run)
    print(f"seed {args.seed}", flush=True)
    run = Run(args.url, args.cases, args.seed)
    asyncio.run(run.run())
    show_tally()
    if run.failed:
        fail(f"{len(run.failed)} cases, and {run.passed} passed")
    if run.passed >= ENOUGH and (never := list(missing())):
        fail(f"never occurred: {', '.join(never)}")
    if differences["/echo: closed before all was answered"] > 1 + run.passed / 1000:
        fail("messages before a close frame were not answered on /echo")
    if not run.passed:
        fail("there were no cases")
    print(f"differential: {run.passed} checks passed")


if __name__ == "__main__":
    main()
