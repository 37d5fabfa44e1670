// Drives @stomp/stompjs: its Parser and what its client makes of a raw frame once 1.2 is agreed.
// A line in: {"reset": bool, "feed": hex}. A line out: {"frames": [[command, [[name, value], …], hex], …], "error"}.
import { createInterface } from 'node:readline';
import { FrameImpl, Parser } from '@stomp/stompjs';

let frames = [];
let parser;
const open = () => {
  parser = new Parser(raw => {
    const frame = FrameImpl.fromRawFrame(raw, true);
    const body = Buffer.from(raw.binaryBody).toString('hex');
    frames.push([frame.command, Object.entries(frame.headers), body]);
  }, () => {});
};

for await (const line of createInterface({ input: process.stdin })) {
  const { reset, feed } = JSON.parse(line);
  if (reset) open();
  frames = [];
  let error = null;
  try {
    parser.parseChunk(Uint8Array.from(Buffer.from(feed, 'hex')).buffer);
  } catch (thrown) {
    error = String(thrown);
  }
  process.stdout.write(JSON.stringify({ frames, error }) + '\n');
}
