// A TCP proxy between a client and the hub, which can cut what it carries at will and keeps account of what passed.
//
// It forwards bytes unchanged. What passed is read on the side: requests by their heads, answers by `responses.mjs`.
import net from 'node:net';
import { ResponseReader } from './responses.mjs';

export class Proxy {
  /** Listens on a free port and forwards to `targetPort`, which may be changed at any time for connections to come. */
  static async start(targetPort) {
    const proxy = new Proxy(targetPort);
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.port = proxy.server.address().port;
    proxy.url = `http://127.0.0.1:${proxy.port}`;
    return proxy;
  }

  constructor(targetPort) {
    Object.assign(this, { targetPort, open: new Set(), requests: [], responses: [], refusing: false, refused: 0, marker: null });
    this.server = net.createServer((client) => this.#carry(client));
  }

  #carry(client) {
    client.on('error', () => {});
    if (this.refusing) {
      this.refused += 1;
      client.resetAndDestroy();
      return;
    }
    const hub = net.connect(this.targetPort, '127.0.0.1');
    const connection = { client, hub };
    this.open.add(connection);
    const reader = new ResponseReader((response) => this.responses.push(response));
    let head = '';
    let tail = Buffer.alloc(0);
    client.on('data', (bytes) => {
      hub.write(bytes);
      head += bytes.toString('latin1');
      for (let end = head.indexOf('\r\n\r\n'); end >= 0; end = head.indexOf('\r\n\r\n')) {
        const request = readHead(head.slice(0, end));
        if (request) this.requests.push(request);
        head = head.slice(end + 4);
      }
    });
    hub.on('data', (bytes) => {
      const cut = this.#cutPoint(tail, bytes);
      const part = cut === null ? bytes : bytes.subarray(0, cut);
      reader.feed(part);
      if (cut === null) {
        tail = Buffer.concat([tail, bytes]).subarray(-256);
        if (!client.write(part)) {
          hub.pause();
          client.once('drain', () => hub.resume());
        }
        return;
      }
      this.marker = null;
      this.open.delete(connection);
      hub.destroy();
      client.end(part);
    });
    client.on('close', () => {
      this.open.delete(connection);
      hub.destroy();
    });
    hub.on('end', () => client.end());
    hub.on('error', () => client.resetAndDestroy());
    hub.on('close', () => this.open.delete(connection));
  }

  /** Where to cut inside `bytes`, when the marker that `cutAfter` set ends there. */
  #cutPoint(tail, bytes) {
    if (this.marker === null) return null;
    const at = Buffer.concat([tail, bytes]).indexOf(this.marker);
    const end = at + Buffer.byteLength(this.marker) - tail.length;
    return at < 0 || end <= 0 ? null : end;
  }

  /** Forwards up to the end of the next occurrence of `text` towards a client, and then ends that connection there. */
  cutAfter(text) {
    this.marker = text;
  }

  /** Resets every connection, on both sides. */
  reset() {
    for (const { client, hub } of this.open) {
      client.resetAndDestroy();
      hub.destroy();
    }
    this.open.clear();
  }

  /** The event streams that were answered so far. */
  get streams() {
    return this.responses.filter((response) => response.isStream);
  }

  close() {
    this.reset();
    this.server.close();
  }
}

/** A request's method, target and fields (lower-case names), or nothing if this is no request head. */
function readHead(text) {
  const [first, ...lines] = text.split('\r\n');
  const request = /([A-Z]+) (\S+) HTTP\/1\.1$/.exec(first);
  if (!request) return null;
  const headers = new Map();
  for (const line of lines) {
    const colon = line.indexOf(':');
    headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  return { method: request[1], target: request[2], headers };
}
