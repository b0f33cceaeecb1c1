// Readers of both dialects: private updates by header and cookie, resuming, presence.
//
// It knows npm `eventsource` and `event-source-polyfill`, and what differs between the dialects only through `DIALECTS`.
import polyfill from 'event-source-polyfill';
import { check, until } from '../harness/deadline.mjs';
import { accessToken, legacyToken } from './hub.mjs';
import { bearer, checkIds, DIALECTS, publish, query, reader, shown, stage } from './stage.mjs';

const subscribeUrl = (base, dialect, topic, more = {}) => `${base}?${query({ ...dialect.subscribe(topic), ...more })}`;

/** Publishes updates one after the other to a topic below `topic`. */
async function publisher(hub, topic) {
  const token = await accessToken('publish', [{ match: '*' }]);
  return (data, fields = [['private', 'on']]) => publish(hub, token, [['topic', `${topic}/1`], ['data', data], ...fields]);
}

/** Private updates to whoever has the right, by header or cookie, and a program that comes back with the cursor in the URL. */
export const privately = (number, by) => () =>
  stage('anonymous', async (hub, topic) => {
    const dialect = DIALECTS[number];
    const grant = await dialect.grant(topic);
    const headers = by === 'header' ? bearer(grant) : { Cookie: `${dialect.cookie}=${grant}` };
    const update = await publisher(hub, topic);
    const live = reader(subscribeUrl(hub.mercure, dialect, topic), headers);
    const outside = reader(subscribeUrl(hub.mercure, dialect, topic), {});
    await Promise.all([live.opened(), outside.opened()]);
    const ids = [await update('1'), await update('2'), await update('3'), await update('4', [])];
    await live.shows(4);
    await outside.shows(1);
    live.close();
    outside.close();
    const resumed = reader(subscribeUrl(hub.mercure, dialect, topic, { [dialect.cursor]: ids[0] }), headers);
    await resumed.shows(3);
    resumed.close();
    checkIds(live.events, ids);
    checkIds(outside.events, ids.slice(3));
    checkIds(resumed.events, ids.slice(1));
    const begins = resumed.heads[0].headers.get(dialect.begins);
    check(begins === ids[0], `${dialect.begins}: ${begins}, expected ${ids[0]}`);
    return '3 private updates and a public one, 3 after resuming';
  });

/** Cut while idle, between data and id, and inside the data: the client comes back by itself, nothing lost, nothing twice. */
async function cuts({ hub, proxy, topic, seen, cursor }) {
  const update = await publisher(hub, topic);
  const ids = [await update('1'), await update('2', [])];
  await seen.shows(2);

  proxy.refusing = true;
  proxy.reset();
  ids.push(await update('3'), await update('4', []));
  proxy.refusing = false;
  await seen.shows(4);
  check(cursor() === ids[1], `came back with ${cursor()}, expected ${ids[1]}`);

  proxy.cutAfter('data: five');
  ids.push(await update('five'), await update('6', []));
  await seen.shows(6);
  check(cursor() === ids[3], `came back with ${cursor()}, expected ${ids[3]}`);

  ids.push(await update('7'));
  await seen.shows(7);
  seen.close();
  checkIds(seen.events, ids);
  return `${ids.length} updates, private ones among them, ${proxy.streams.length} streams`;
}

/** npm `eventsource`: it comes back with the header `Last-Event-ID`. */
export const resume = (number) => () =>
  stage('', async (hub, topic, proxy) => {
    const dialect = DIALECTS[number];
    const seen = reader(subscribeUrl(hub.behind, dialect, topic), bearer(await dialect.grant(topic)));
    await seen.opened();
    const cursor = () => {
      const sent = proxy.requests.at(-1).headers.get('last-event-id');
      const begins = seen.heads.at(-1).headers.get(dialect.begins);
      check(begins === sent, `${dialect.begins}: ${begins} to a client that came back with ${sent}`);
      return sent;
    };
    return cuts({ hub, proxy, topic, seen, cursor });
  });

/** npm `event-source-polyfill`: a token in the header, and its own spelling of the cursor, in the URL (M-217). */
export const resumePolyfill = (number) => () =>
  stage('', async (hub, topic, proxy) => {
    const dialect = DIALECTS[number];
    const headers = bearer(await dialect.grant(topic));
    const seen = shown(new polyfill.EventSourcePolyfill(subscribeUrl(hub.behind, dialect, topic), { headers }));
    await seen.opened();
    const cursor = () => new URL(proxy.requests.at(-1).target, proxy.url).searchParams.get('lastEventId');
    return cuts({ hub, proxy, topic, seen, cursor });
  });

/** Presence as each dialect shows it: whoever came and left, with the payload of the token, and the API's list of them. */
const PRESENCE = {
  7: {
    path: (topic) => `/.well-known/mercure/subscriptions/${encodeURIComponent(topic)}`,
    watch: (path) => ({ topic: `${path}/{subscriber}` }),
    join: (topic) => ({ topic }),
    token: (topic, payload) => legacyToken('subscribe', [topic], { payload }),
    event: 'message',
    type: 'application/ld+json',
    of: (document, topic) => document['@context'] === 'https://mercure.rocks/' && document.type === 'Subscription' && document.topic === topic,
    list: (document) => document.type === 'Subscriptions' && document.lastEventID,
  },
  8: {
    path: (topic) => `/.well-known/mercure/subscriptions/exact/${encodeURIComponent(topic)}`,
    watch: (path) => ({ match_urlpattern: `${path}/:subscriber` }),
    join: (topic) => ({ match: topic }),
    token: (topic, payload) => accessToken('subscribe', [{ match: topic }], { payload }),
    event: 'mercure',
    type: 'application/json',
    of: (document, topic) => document.type === 'subscription' && document.match_type === 'exact' && document.match === topic,
    list: (document, link) => document.type === 'subscriptions' && /last-event-id="([^"]*)"/.exec(link)?.[1],
  },
};

export const presence = (number) => () =>
  stage('', async (hub, topic) => {
    const view = PRESENCE[number];
    const path = view.path(topic);
    const everything = bearer(await DIALECTS[number].everything());
    const watcher = reader(`${hub.mercure}?${query(view.watch(path))}`, everything);
    await watcher.opened();
    const subscriber = reader(`${hub.mercure}?${query(view.join(topic))}`, bearer(await view.token(topic, { user: 'Ada' })));
    await subscriber.opened();
    await watcher.shows(1);
    const answer = await fetch(`${hub.url}${path}`, { headers: everything });
    const listed = await answer.json();
    subscriber.close();
    await watcher.shows(2);
    watcher.close();
    const [came, left] = watcher.events.map(({ data }) => JSON.parse(data));
    check(came.active === true && left.active === false && came.id === left.id, `told ${JSON.stringify([came, left])}`);
    check(came.payload?.user === 'Ada' && view.of(came, topic) && view.of(left, topic), `told ${JSON.stringify([came, left])}`);
    check(watcher.events.every(({ type }) => type === view.event), `types ${watcher.events.map(({ type }) => type)}`);
    check(answer.headers.get('content-type').startsWith(view.type), `the list is ${answer.headers.get('content-type')}`);
    check(listed.subscriptions.map(({ id }) => id).join(' ') === came.id, `listed ${JSON.stringify(listed)}`);
    // A list and a stream join without a hole: what the list names as the last event is a cursor.
    const since = view.list(listed, answer.headers.get('link'));
    check(since === watcher.events[0].id, `the list is of ${since}, expected ${watcher.events[0].id}`);
    const later = reader(`${hub.mercure}?${query({ ...view.watch(path), [DIALECTS[number].cursor]: since })}`, everything);
    await later.shows(1);
    later.close();
    checkIds(later.events, [watcher.events[1].id]);
    return 'came, listed, left; the list is a cursor';
  });
