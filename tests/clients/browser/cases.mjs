// What only a browser can show: the order of its callbacks, its rules between origins, and the pages people open.
import { check, until } from '../harness/deadline.mjs';
import { QUICK, Sequence, startHub } from '../harness/hub.mjs';
import { Proxy } from '../harness/proxy.mjs';
import { Site } from './site.mjs';

/** `open` comes before the first event, even if the first bytes of the answer carry events (S-27). */
async function openFirst(chromium) {
  return stage([], async ({ hub, proxy, sequence }) => {
    await sequence.publish(hub, 3);
    const page = await chromium.subscribe(`${proxy.url}/subscribe/scene?last_event_id=earliest`);
    await page.received(3);
    const order = page.calls.map((call) => call.type ?? Object.keys(call)[0]).join(' ');
    check(order === 'open message message message', `the callbacks were: ${order}`);
    sequence.checkReceived(page.events);
    return order;
  });
}

/** A hub that was killed and started again with an empty memory says that it cannot honour the cursor, and goes on (N-14). */
async function restart(chromium) {
  return stage([], async ({ hub, proxy, sequence, start }) => {
    const page = await chromium.subscribe(`${proxy.url}/subscribe/scene`);
    await page.shows('open', () => page.calls.length > 0);
    await sequence.publish(hub, 5);
    await page.received(5);
    proxy.refusing = true;
    await hub.kill();
    const again = await start(hub.port);
    const after = new Sequence(sequence.topic);
    await after.publish(again, 3);
    proxy.refusing = false;
    await page.received(9);
    await after.publish(again, 2);
    await page.received(11);

    sequence.checkReceived(page.events.slice(0, 5));
    const gap = page.events[5];
    check(gap.type === 'tidings.gap', `a restart was not announced: ${JSON.stringify(gap)}`);
    const { requested, earliest, reason } = JSON.parse(gap.data);
    check(requested === sequence.ids[4] && earliest === after.ids[0] && reason === 'epoch', `the gap says ${gap.data}`);
    after.checkReceived(page.events.slice(6));

    // The cursor that came with the gap is honoured: the next cut costs nothing and is no gap.
    proxy.reset();
    await after.publish(again, 2);
    await page.received(13);
    after.checkReceived(page.events.slice(6));
    return `5 events, gap "${reason}", ${after.length} events`;
  });
}

/** Pages of other origins that are allowed read, with credentials and without, and come back without a preflight (S-17, S-39). */
async function crossOrigin(chromium) {
  const site = await Site.start();
  const flags = ['--cors-origins', site.origin('app.test')];
  try {
    return await stage(flags, async ({ hub, proxy, sequence }) => {
      for (const host of ['app.test', '127.0.0.1']) {
        for (const withCredentials of [false, true]) {
          const about = `a page of ${host} ${withCredentials ? 'with' : 'without'} credentials`;
          const requests = proxy.requests.length;
          const published = sequence.length;
          const page = await chromium.page(site.origin(host));
          await page.subscribe(`${proxy.url}/subscribe/scene`, { withCredentials });
          await page.shows('open', () => page.calls.length > 0);
          check(page.calls[0].open, `${about} cannot read`);
          await sequence.publish(hub, 2);
          await page.received(2);
          proxy.refusing = true;
          proxy.reset();
          await sequence.publish(hub, 2);
          proxy.refusing = false;
          await page.received(4);
          await page.stop();

          const ids = page.events.map(({ id }) => id).join(' ');
          check(ids === sequence.ids.slice(published).join(' '), `${about} received ${ids}`);
          const seen = proxy.requests.slice(requests);
          const methods = seen.map(({ method }) => method).join(' ');
          check(methods === 'GET GET', `${about} asked ${methods}, expected two GET and no preflight`);
          const cursor = seen[1].headers.get('last-event-id');
          check(cursor === sequence.ids[published + 1], `${about} came back with the cursor ${cursor}`);
          // A site shares its cookies with every port of its host.
          const credentials = withCredentials && host === '127.0.0.1';
          const cookies = seen.filter(({ headers }) => headers.get('cookie')?.includes('visitor=known')).length;
          check(cookies === (credentials ? 2 : 0), `${about} sent its cookie ${cookies} times`);
        }
      }
      return `4 pages, ${sequence.length} events, 4 cuts, 0 preflights`;
    });
  } finally {
    site.close();
  }
}

/** A page of a foreign origin can neither publish, whichever way a page can send, nor read (N-31). */
async function foreignOrigin(chromium) {
  const site = await Site.start();
  try {
    return await stage(['--cors-origins', site.origin('app.test')], async ({ hub, proxy, sequence }) => {
      const page = await chromium.page(site.origin('evil.test'));
      const attacks = await page.page.evaluate(async (hub) => {
        const outcome = (promise) => promise.then((answer) => `${answer.type} ${answer.status}`, (error) => error.name);
        const target = `${hub}/publish/scene/numbers`;
        const post = { method: 'POST', body: 'forged' };
        const outcomes = {
          simple: await outcome(fetch(target, { ...post, mode: 'no-cors' })),
          credentials: await outcome(fetch(target, { ...post, mode: 'no-cors', credentials: 'include' })),
          cors: await outcome(fetch(target, post)),
          preflighted: await outcome(
            fetch(`${hub}/publish`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"topic":"scene/numbers","data":"forged"}' }),
          ),
        };
        navigator.sendBeacon(target, 'forged');
        const form = Object.assign(document.createElement('form'), { method: 'POST', action: target, enctype: 'text/plain', target: 'frame' });
        form.append(Object.assign(document.createElement('input'), { name: 'forged', value: 'forged' }));
        document.body.append(form);
        form.submit();
        return outcomes;
      }, proxy.url);
      // The simple ones come through to the hub; that the page may not look at the answer is not what protects the hub.
      const expected = { simple: 'opaque 0', credentials: 'opaque 0', cors: 'TypeError', preflighted: 'TypeError' };
      check(JSON.stringify(attacks) === JSON.stringify(expected), `the page's attempts ended as ${JSON.stringify(attacks)}`);
      await until('all attempts reached the hub', () => proxy.requests.length >= 6 && proxy.responses.length >= 6, {
        seen: () => proxy.requests.map(({ method }) => method).join(' '),
      });
      const methods = proxy.requests.map(({ method }) => method).sort().join(' ');
      check(methods === 'OPTIONS POST POST POST POST POST', `the page sent ${methods}`);
      const statuses = proxy.responses.map(({ status }) => status).join(' ');
      check(statuses === '403 403 403 403 403 403', `a foreign page was answered ${statuses}`);

      await sequence.publish(hub, 1);
      await page.subscribe(`${proxy.url}/subscribe/scene?last_event_id=earliest`);
      await page.shows('the end of the attempt to read', () => page.calls.some((call) => call.error === 2));
      check(page.calls.length === 1, `a foreign page was shown ${JSON.stringify(page.calls)}`);
      const read = await page.page.evaluate((hub) => fetch(`${hub}/subscribe/scene?last_event_id=earliest`).then(String, (error) => error.name), proxy.url);
      check(read === 'TypeError', `a foreign page could fetch: ${read}`);
      check(!proxy.responses.some(({ head }) => /\r\naccess-control-/i.test(head)), 'a foreign origin was answered CORS fields');
      await onlyPublished(chromium, hub, sequence);
      await page.stop();
      return '5 posts and 1 preflight refused, nothing published, nothing read';
    });
  } finally {
    site.close();
  }
}

/** A page whose host name is made to lead to the hub once it is loaded is of the hub's own origin, and still gets nothing (N-31). */
async function reboundHost(chromium) {
  const site = await Site.start();
  try {
    return await stage([], async ({ hub, proxy, sequence }) => {
      proxy.targetPort = site.port;
      const page = await chromium.page(`http://evil.test:${proxy.port}/`);
      proxy.targetPort = hub.port;
      proxy.reset();
      const statuses = await page.page.evaluate(async () => {
        const status = async (...request) => (await fetch(...request)).status;
        return [await status('/publish/scene/numbers', { method: 'POST', body: 'forged' }), await status('/subscribe/scene'), await status('/topics')];
      });
      check(statuses.join(' ') === '421 421 421', `publishing, subscribing and looking were answered ${statuses.join(' ')}`);
      await sequence.publish(hub, 1);
      await page.subscribe('/subscribe/scene?last_event_id=earliest');
      await page.shows('the end of the attempt to read', () => page.calls.some((call) => call.error === 2));
      check(page.calls.length === 1, `a rebound page was shown ${JSON.stringify(page.calls)}`);
      await onlyPublished(chromium, hub, sequence);
      await page.stop();
      return '421 for all, nothing published, nothing read';
    });
  } finally {
    site.close();
  }
}

/** The dashboard of the original library's known user: one source, one listener per event name (Z-10). */
async function dashboard(chromium) {
  return stage([], async ({ hub }) => {
    const names = ['host', 'sysLoad', 'cpu', 'mem', 'disk', 'net', 'go'];
    const page = await chromium.page(`${hub.url}/health`);
    await page.subscribe('/subscribe/sysenv', { types: names });
    await page.shows('open', () => page.calls.length > 0);
    const rounds = 20;
    for (let round = 0; round < rounds; round++) {
      for (const name of names) {
        const answer = await fetch(`${hub.url}/publish/sysenv/${name}?type=${name}`, { method: 'POST', body: JSON.stringify({ name, round }) });
        check(answer.status === 200, `publishing was answered ${answer.status}`);
      }
    }
    await page.received(rounds * names.length);
    for (const [i, event] of page.events.entries()) {
      const name = names[i % names.length];
      const data = JSON.stringify({ name, round: Math.floor(i / names.length) });
      check(event.type === name && event.data === data, `event ${i + 1} is ${JSON.stringify(event)}, expected ${name} with ${data}`);
    }
    await page.stop();
    return `${names.length} names, ${page.events.length} events`;
  });
}

/** The page that the hub serves publishes and shows, what it published and what came from elsewhere (N-22). */
async function ownPage(chromium) {
  return stage([], async ({ hub }) => {
    const { page } = await chromium.page(`${hub.url}/`);
    const complaints = [];
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.reload();
    await page.getByText('Connected').waitFor();
    await page.getByRole('textbox').fill('typed into the page');
    await page.getByRole('button', { name: 'Publish' }).click();
    await page.getByText('typed into the page').waitFor();
    const answer = await fetch(`${hub.url}/publish/demo`, { method: 'POST', body: '<b>from a terminal</b>' });
    check(answer.status === 200, `publishing was answered ${answer.status}`);
    await page.getByText('<b>from a terminal</b>').waitFor();
    check(complaints.length === 0, `the browser complains: ${complaints.join('; ')}`);
    await page.context().close();
    return 'published and shown, nothing on the console';
  });
}

export const BROWSER_ONLY = { openFirst, restart, crossOrigin, foreignOrigin, reboundHost, dashboard, ownPage };

/** Nothing is in the hub's log but what the sequence published. */
async function onlyPublished(chromium, hub, sequence) {
  await sequence.publish(hub, 1);
  const witness = await chromium.subscribe(`${hub.url}/subscribe/?last_event_id=earliest`);
  await witness.received(sequence.length);
  sequence.checkReceived(witness.events);
  await witness.stop();
}

async function stage(flags, play) {
  const hubs = [];
  const start = async (port) => {
    const hub = await startHub([...QUICK, ...flags], port);
    hubs.push(hub);
    return hub;
  };
  const hub = await start(0);
  const proxy = await Proxy.start(hub.port);
  try {
    return await play({ hub, proxy, start, sequence: new Sequence('scene/numbers') });
  } finally {
    proxy.close();
    for (const each of hubs) await each.kill();
  }
}
