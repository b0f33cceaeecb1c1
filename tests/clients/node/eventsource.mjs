// npm `eventsource`: the interface of the browser, reconnecting by itself.
import { EventSource } from 'eventsource';
import { listen, url } from './report.mjs';

listen(new EventSource(url));
// Its timers do not keep a process alive while it waits to reconnect.
setInterval(() => {}, 60_000);
