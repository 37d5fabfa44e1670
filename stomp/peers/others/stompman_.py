"""Drives stompman: its FrameParser. The lines are those of stompjs.mjs."""

import json
import sys

from stompman.frames import HeartbeatFrame
from stompman.serde import FRAMES_TO_COMMANDS, FrameParser

for line in sys.stdin:
    request = json.loads(line)
    if request["reset"]:
        parser = FrameParser()
    frames, error = [], None
    try:
        for frame in parser.parse_frames_from_chunk(bytes.fromhex(request["feed"])):
            if not isinstance(frame, HeartbeatFrame):
                command = FRAMES_TO_COMMANDS[type(frame)].decode()
                frames.append([command, list(frame.headers.items()), getattr(frame, "body", b"").hex()])
    except Exception as raised:
        error = repr(raised)
    print(json.dumps({"frames": frames, "error": error}), flush=True)
