// A web site that is not the hub: one blank page under every address, and a cookie for its visitors.
import http from 'node:http';

export class Site {
  static async start() {
    const site = new Site();
    site.server = http.createServer((request, answer) => {
      answer.writeHead(200, { 'content-type': 'text/html', 'set-cookie': 'visitor=known; Path=/' });
      answer.end('<!doctype html><title>A site</title><iframe name="frame"></iframe>');
    });
    await new Promise((resolve) => site.server.listen(0, '127.0.0.1', resolve));
    site.port = site.server.address().port;
    return site;
  }

  origin(host) {
    return `http://${host}:${this.port}`;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
