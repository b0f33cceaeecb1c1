// What every foreign client must live through unmodified, whichever language it is written in.
//
// Each scenario has a hub, a proxy and a client of its own. It publishes numbered events, does something to the connection, and
// looks at what the client showed: every number once, in order, and nothing else. It answers the figures for the table.
import { check, until } from './deadline.mjs';
import { QUICK, Sequence, startHub } from './hub.mjs';
import { Proxy } from './proxy.mjs';

const EVENTS = 10_000;

/** Ten thousand events in order, with heartbeats before, between and after, none of which the client shows as an event (S-24). */
export async function ordered(client) {
  return scene(client, QUICK, async ({ hub, proxy, reader, sequence }) => {
    const heartbeat = async () => {
      const before = proxy.streams[0].heartbeats;
      await until('a heartbeat passes', () => proxy.streams[0].heartbeats > before);
    };
    await heartbeat();
    const batches = 4;
    for (let batch = 1; batch <= batches; batch++) {
      await sequence.publish(hub, EVENTS / batches, { lines: batch % 2 === 0 });
      await reader.received(sequence.length);
      await heartbeat();
    }
    // What a client makes of the last heartbeat shows before this event, or never.
    await sequence.publish(hub, 1);
    await reader.received(sequence.length);
    sequence.checkReceived(reader.events);
    check(proxy.streams.length === 1, `the client connected ${proxy.streams.length} times, expected one stream`);
    const [{ heartbeats, phantoms }] = proxy.streams;
    check(phantoms === 0, `${phantoms} comments were followed by a blank line (S-24)`);
    return `${sequence.length} events, ${heartbeats} heartbeats`;
  });
}

/** Four cuts, of which three go through the middle of an event; what was published meanwhile arrives, once (S-9, S-21). */
export async function cuts(client) {
  return scene(client, QUICK, async ({ hub, proxy, reader, sequence }) => {
    await sequence.publish(hub, 100);
    await reader.received(100);

    proxy.refusing = true;
    proxy.reset();
    await sequence.publish(hub, 100);
    proxy.refusing = false;
    await resumed(proxy, reader, sequence, 2, 100);

    // A cut through the data, and one between the data and the id: a client that took part of such an event would repeat or lose it.
    const bytes = (number) => `data: ${Sequence.data(number).replace('\n', '\ndata: ')}`;
    proxy.cutAfter(bytes(201).slice(0, -10));
    await sequence.publish(hub, 100);
    await resumed(proxy, reader, sequence, 3, 200);
    proxy.cutAfter(`${bytes(301)}\n`);
    await sequence.publish(hub, 100);
    await resumed(proxy, reader, sequence, 4, 300);

    // Far into a batch, of which a client may have taken any part by then.
    proxy.cutAfter(bytes(450).slice(0, -10));
    await sequence.publish(hub, 100);
    await resumed(proxy, reader, sequence, 5);

    await sequence.publish(hub, 1);
    await reader.received(sequence.length);
    sequence.checkReceived(reader.events);
    return `${sequence.length} events, 4 cuts`;
  });
}

/** A cut before the first event: the primed position is the cursor, and all three events published meanwhile arrive (N-13a). */
export async function firstEvent(client) {
  return scene(client, QUICK, async ({ hub, proxy, reader, sequence }) => {
    await until('the opening is primed', () => proxy.streams[0].blankLines === 1);
    proxy.refusing = true;
    proxy.reset();
    await sequence.publish(hub, 3);
    proxy.refusing = false;
    await reader.received(3);
    await sequence.publish(hub, 1);
    await reader.received(4);
    sequence.checkReceived(reader.events);
    return '3 events published during the cut';
  });
}

/** The hub ends the stream at its maximum age, twice; the client comes back and misses nothing (N-17, S-42, S-43). */
export async function rotation(client) {
  return scene(client, [...QUICK, '--max-age', '2s'], async ({ hub, proxy, reader, sequence }) => {
    await until(
      'the client comes back a second time',
      async () => {
        await sequence.publish(hub, 1);
        return proxy.streams.length >= 3;
      },
      { ms: 60_000, seen: () => `${proxy.streams.length} streams` },
    );
    await sequence.publish(hub, 1);
    await reader.received(sequence.length);
    sequence.checkReceived(reader.events);
    const aborts = client.query.includes('end=abort');
    check(proxy.streams[0].ended === !aborts, `the planned end was ${aborts ? 'not ' : ''}an abort (N-17)`);
    return `${sequence.length} events, ${proxy.streams.length} streams`;
  });
}

/** After a cut the client came back, with the id of event `last` as its cursor if that is certain, and has shown everything since. */
async function resumed(proxy, reader, sequence, streams, last) {
  await reader.received(sequence.length);
  check(proxy.streams.length === streams, `${proxy.streams.length} streams so far, expected ${streams}`);
  if (last === undefined) return;
  const request = proxy.requests.findLast(({ target }) => target.startsWith('/subscribe'));
  const query = new URL(request.target, proxy.url).searchParams;
  const cursor = request.headers.get('last-event-id') ?? query.get('lastEventId');
  check(cursor === sequence.ids[last - 1], `came back with the cursor ${cursor}, expected ${sequence.ids[last - 1]} of event ${last}`);
}

async function scene(client, flags, play) {
  const hub = await startHub(flags);
  const proxy = await Proxy.start(hub.port);
  const sequence = new Sequence('scene/numbers');
  let reader;
  try {
    reader = await client.subscribe(`${proxy.url}/subscribe/scene${client.query}`);
    await until('the client is answered a stream', () => proxy.streams.length > 0 && proxy.streams[0].comments > 0, {
      seen: () => `${proxy.requests.length} requests, answers ${proxy.responses.map(({ status }) => status)}; ${reader.trouble()}`,
    });
    return await play({ hub, proxy, reader, sequence });
  } finally {
    await reader?.stop();
    proxy.close();
    await hub.kill();
  }
}
