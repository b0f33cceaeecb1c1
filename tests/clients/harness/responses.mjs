// Reads HTTP/1.1 answers as they pass, one after the other on a connection, and looks at the lines of those that are event streams.
//
// It keeps counts, not bodies. It is the witness that what the hub put on the wire was what a scenario needs: a test in which no heartbeat
// passed would prove nothing about heartbeats.

export class ResponseReader {
  constructor(onHead) {
    Object.assign(this, { onHead, buffer: Buffer.alloc(0), state: 'head', left: 0, response: null });
  }

  feed(bytes) {
    this.buffer = this.buffer.length ? Buffer.concat([this.buffer, bytes]) : bytes;
    while (this.#step());
  }

  /** One step of reading; false when more bytes are needed. */
  #step() {
    switch (this.state) {
      case 'head': {
        const head = this.#takeThrough('\r\n\r\n');
        if (head === null) return false;
        this.#startBody(head);
        return true;
      }
      case 'chunk-size': {
        const line = this.#takeThrough('\r\n');
        if (line === null) return false;
        this.left = parseInt(line, 16);
        if (this.left === 0) this.response.ended = true;
        this.state = this.left === 0 ? 'trailer' : 'chunk';
        return true;
      }
      case 'trailer': {
        const line = this.#takeThrough('\r\n');
        if (line === null) return false;
        if (line === '\r\n') this.state = 'head';
        return true;
      }
      case 'chunk': {
        const took = this.#takeBody();
        if (this.left === 0) this.state = 'chunk-end';
        return took;
      }
      case 'chunk-end': {
        if (this.#takeThrough('\r\n') === null) return false;
        this.state = 'chunk-size';
        return true;
      }
      case 'sized': {
        const took = this.#takeBody();
        if (this.left === 0) this.state = 'head';
        return took || this.left === 0;
      }
    }
  }

  #startBody(head) {
    const header = (name) => new RegExp(`\\r\\n${name}: *([^\\r]*)`, 'i').exec(head)?.[1];
    this.response = new Response(Number(head.split(' ')[1]), header('content-type'), head);
    this.onHead(this.response);
    if (/chunked/i.test(header('transfer-encoding') ?? '')) {
      this.state = 'chunk-size';
    } else if (header('content-length') !== undefined || this.response.isStream === false) {
      this.left = Number(header('content-length') ?? 0);
      this.state = this.left === 0 ? 'head' : 'sized';
    } else {
      this.left = Infinity;
      this.state = 'sized';
    }
  }

  #takeThrough(end) {
    const at = this.buffer.indexOf(end);
    if (at < 0) return null;
    const text = this.buffer.toString('latin1', 0, at + end.length);
    this.buffer = this.buffer.subarray(at + end.length);
    return text;
  }

  #takeBody() {
    if (this.buffer.length === 0) return false;
    const part = this.buffer.subarray(0, this.left);
    this.left -= part.length;
    this.buffer = this.buffer.subarray(part.length);
    this.response.feed(part);
    return true;
  }
}

class Response {
  constructor(status, contentType, head) {
    Object.assign(this, { status, contentType, head, comments: 0, blankLines: 0, phantoms: 0, ended: false });
    Object.assign(this, { line: '', afterComment: false });
  }

  get isStream() {
    return this.status === 200 && this.contentType === 'text/event-stream';
  }

  /** Comments after the one that opens a stream (S-27). */
  get heartbeats() {
    return Math.max(0, this.comments - 1);
  }

  feed(bytes) {
    const lines = (this.line + bytes.toString('latin1')).split('\n');
    this.line = lines.pop();
    for (const line of lines) {
      if (line === '') this.blankLines += 1;
      if (line === '' && this.afterComment) this.phantoms += 1;
      this.afterComment = line.startsWith(':');
      if (this.afterComment) this.comments += 1;
    }
  }
}
