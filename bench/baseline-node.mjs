// What one would write with node:http alone: a set of responses for each topic, and a write for each of them. It forgets nothing of a slow
// reader and bounds nothing either; it replays nothing.
//
//   node bench/baseline-node.mjs [PORT]

import { createServer } from 'node:http';

const topics = new Map();

const server = createServer((request, response) => {
  const [, verb, name] = /^\/(subscribe|publish)\/(.*)$/.exec(request.url) ?? [];
  if (verb === 'subscribe' && request.method === 'GET') {
    const readers = topics.get(name) ?? new Set();
    topics.set(name, readers);
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.write(': ok\n\n');
    readers.add(response);
    response.on('close', () => {
      readers.delete(response);
      if (readers.size === 0 && topics.get(name) === readers) topics.delete(name);
    });
  } else if (verb === 'publish' && request.method === 'POST') {
    let data = '';
    request.setEncoding('utf8');
    request.on('data', (piece) => (data += piece));
    request.on('end', () => {
      const event = `data: ${data.replaceAll('\n', '\ndata: ')}\n\n`;
      for (const reader of topics.get(name) ?? []) reader.write(event);
      response.writeHead(204).end();
    });
  } else {
    response.writeHead(404).end();
  }
});

server.keepAliveTimeout = 0;
server.requestTimeout = 0;
// The system cuts this down to its own maximum.
server.listen({ port: Number(process.argv[2] ?? 0), host: '127.0.0.1', backlog: 65_535 }, () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
