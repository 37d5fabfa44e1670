"""Drives stomp.py: its transport over a queue, and its parse_frame. The lines are those of stompjs.mjs."""

import json
import os
import sys

os.environ["STOMP_SKIP_HOSTNAME_SCAN"] = "1"
import stomp.transport
import stomp.utils


class Queue(stomp.transport.BaseTransport):
    def __init__(self):
        super().__init__(auto_decode=False)
        self.running = True
        self.blocking = False  # nothing received then means: not yet
        self.chunk = b""

    def receive(self):
        chunk, self.chunk = self.chunk, b""
        return chunk

    def feed(self, chunk):
        self.chunk = chunk
        return self._BaseTransport__read()


for line in sys.stdin:
    request = json.loads(line)
    if request["reset"]:
        queue = Queue()
    frames, error = [], None
    try:
        for octets in queue.feed(bytes.fromhex(request["feed"])) if request["feed"] else []:
            frame = stomp.utils.parse_frame(octets) if octets != b"\n" else None
            if frame is not None:
                frames.append([frame.cmd, list(frame.headers.items()), frame.body.hex()])
    except Exception as raised:
        error = repr(raised)
    print(json.dumps({"frames": frames, "error": error}), flush=True)
